"""What a camera makes of light: blur, exposure, colours, noise and JPEG."""

import io

import numpy as np
from PIL import Image

from training.wide_world import kernels
from training.wide_world.camera import Shot

_LEAST_FLOW = 0.5      # pixels of motion blur that can be seen
_NOISE = np.random.default_rng(0).standard_normal(99991, dtype=np.float32)


def expose(picture: np.ndarray, depth: np.ndarray, shot: Shot,
           rng: np.random.Generator) -> np.ndarray:
    """
    Return the pictures [F, H, W, 3] uint8 that one camera takes of `picture` (light, float32).

    `depth` [F, H, W] in metres tells how far motion smears each pixel.
    """
    frames, height, width = picture.shape[:3]
    flow = optical_flow(depth, shot) * np.float32(shot.exposure)
    if np.abs(flow).max() > _LEAST_FLOW:
        smeared = np.empty_like(picture)
        kernels.smear(picture, flow.astype(np.float32), smeared)
        picture = smeared
    picture = _soften(picture, rng.uniform(0.0, 0.5) if rng.uniform() < 0.4 else 0.0)
    image = np.empty(picture.shape, np.uint8)
    kernels.develop(
        picture, _gain(picture, rng), _vignette(height, width, rng.uniform(0.0, 0.45)
                                                * rng.uniform()),
        _curve(rng), 0.0 if rng.uniform() < 0.08 else rng.uniform(0.6, 1.3), _NOISE,
        rng.uniform(0.0, 0.03) * rng.uniform(), rng.integers(len(_NOISE), size=frames), image)
    if rng.uniform() < 0.25:
        quality = int(rng.integers(35, 92))
        image = np.stack([_jpeg(one, quality) for one in image])
    return image


def optical_flow(depth: np.ndarray, shot: Shot) -> np.ndarray:
    """Return how fast pixels move over the sensor [F, H, W, 2], pixels a second."""
    height, width = depth.shape[1:]
    x = ((np.arange(width) - width / 2) / shot.focal).astype(np.float32)[None, None, :]
    y = ((np.arange(height) - height / 2) / shot.focal).astype(np.float32)[None, :, None]
    vx, vy, vz, wx, wy, wz = shot.velocity.astype(np.float32).T[:, :, None, None]
    near = 1 / np.maximum(depth, 0.05)
    u = (x * vz - vx) * near + x * y * wx - (1 + x * x) * wy + y * wz
    v = (y * vz - vy) * near + (1 + y * y) * wx - x * y * wy - x * wz
    return np.stack([u, v], axis=-1) * np.float32(shot.focal)


def _gain(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the factors [F, 3] of exposure, which follows the light, and white balance."""
    frames = len(picture)
    sample = np.minimum(picture[:, ::4, ::4], 2.0)
    bright = sample.mean(axis=(1, 2, 3)) + 0.02
    steady = bright.mean()
    follow = rng.uniform(0.0, 1.0)      # how quickly the exposure follows
    target = rng.uniform(0.25, 0.6)
    gain = target / (bright ** follow * steady ** (1 - follow))
    drift = np.exp(0.12 * rng.uniform() * np.sin(
        rng.uniform(0.1, 1.5) * np.arange(frames) + rng.uniform(0, 2 * np.pi)))
    balance = np.exp(rng.normal(0.0, 0.07, 3))
    # Most of the lamps' colour is taken out, as cameras do.
    colour = sample.mean(axis=(0, 1, 2)) + 0.02
    balance *= (colour.mean() / colour) ** rng.uniform(0.2, 0.9)
    return ((gain * drift)[:, None] * balance).astype(np.float32)


def _curve(rng: np.random.Generator) -> np.ndarray:
    """Return the grey levels [n] in [0, 1] that light from 0 to 2 becomes."""
    light = np.linspace(0.0, 2.0, 2048)
    if rng.uniform() < 0.7:    # highlights are compressed
        light = np.where(light > 0.7, 1.0 - 0.3 * np.exp((0.7 - light) / 0.3), light)
    black = rng.uniform(0.0, 0.06) * rng.uniform()
    grey = np.clip(light, 0.0, 1.0) ** np.exp(rng.normal(0.0, 0.18))
    return (black + (1 - black) * grey).astype(np.float32)


def _vignette(height: int, width: int, strength: float) -> np.ndarray:
    """Return how much light reaches each pixel [H, W]."""
    x = np.linspace(-1, 1, width)[None, :] * width / np.hypot(width, height)
    y = np.linspace(-1, 1, height)[:, None] * height / np.hypot(width, height)
    return (1 - strength * (x * x + y * y)).astype(np.float32)


def _soften(picture: np.ndarray, side: float) -> np.ndarray:
    """Return pictures blurred by weights side, 1, side along both axes."""
    if side < 0.05:
        return picture
    for axis in (1, 2):
        padded = np.pad(picture, [(1, 1) if one == axis else (0, 0) for one in range(4)], 'edge')
        low, high = ([slice(None)] * axis + [part] for part in (slice(0, -2), slice(2, None)))
        picture = (picture + np.float32(side) * (padded[tuple(low)] + padded[tuple(high)])
                   ) / np.float32(1 + 2 * side)
    return picture


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Return an image as it is after JPEG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, 'JPEG', quality=quality)
    with Image.open(file) as read:
        return np.asarray(read.convert('RGB'))
