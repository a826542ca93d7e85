"""What the sensor adds to a picture of the synthetic world: exposure, motion blur and noise."""

import numpy as np

_SHUTTER = 0.012      # seconds the shutter is open
_NOISE = 2.5          # grey levels, standard deviation
_NOISE_FIELDS = 4     # fields of noise that are drawn once and shifted for every picture


class Sensor:
    """A camera whose exposure wanders; the same time gives the same picture."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        """Draw a sensor for pictures of `width` x `height` pixels."""
        self._gain = rng.uniform(0.9, 1.08)
        self._wander = rng.uniform(0.02, 0.1), rng.uniform(0.2, 0.7), rng.uniform(0, 2 * np.pi)
        self._noise = rng.normal(0.0, _NOISE, (_NOISE_FIELDS, height, width, 3)).astype(np.float32)

    def expose(self, image: np.ndarray, time: float, flow: tuple[float, float]) -> np.ndarray:
        """
        Return `image` [H, W, 3] uint8 as the sensor sees it at `time` seconds.

        `flow` is how fast the picture moves over the sensor, pixels a second in x and y.
        """
        picture = image.astype(np.float32)
        for axis, speed in ((1, flow[0]), (0, flow[1])):
            picture = _smear(picture, axis, abs(speed) * _SHUTTER)
        swing, rate, phase = self._wander
        picture *= np.float32(self._gain * (1 + swing * np.sin(rate * time + phase)))
        # Another field and another shift for every microsecond.
        ticks = round(time * 1e6) * 2654435761 & 0xffffffff
        noise = np.roll(self._noise[ticks % _NOISE_FIELDS], ticks >> 8 & 0xffff, axis=(0, 1))
        return np.clip(picture + noise, 0, 255).astype(np.uint8)


def _smear(picture: np.ndarray, axis: int, length: float) -> np.ndarray:
    """Return `picture`, each pixel spread evenly over `length` pixels along `axis`."""
    reach = (length - 1) / 2   # to either side of the pixel itself
    if reach < 0.1:
        return picture
    total, weight = picture.copy(), 1.0
    for step in range(1, int(np.ceil(reach)) + 1):
        share = min(reach - (step - 1), 1.0)
        for shift in (step, -step):
            moved = np.roll(picture, shift, axis=axis)
            edge = [slice(None)] * 3    # beyond the edge the last pixels go on
            edge[axis] = slice(0, step) if shift > 0 else slice(-step, None)
            moved[tuple(edge)] = picture[tuple(edge)]
            total += np.float32(share) * moved
        weight += 2 * share
    return total / np.float32(weight)
