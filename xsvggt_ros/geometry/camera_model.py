"""
A calibrated camera: its lens, and the pinhole camera that its rectified images belong to.

The meaning of the numbers is that of sensor_msgs/CameraInfo; the lens models are OpenCV's. Pixel
coordinates are integers at pixel centres.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
import reprlib

import numpy as np
from numpy.polynomial import polynomial

LENSES = {'plumb_bob': 5, 'rational_polynomial': 8, 'equidistant': 4}  # number of coefficients
NO_LENS = ('', 'none', 'pinhole')  # what drivers, simulators and files call a camera without one
SHORTEST = 0.05  # of the image's side: with a focal length below that a pinhole sees 169 degrees
LONGEST = 1e6  # of the image's side, for the focal length; no telescope has that
MAX_PRINCIPAL_OFFSET = 1e3  # of the image's side, for the principal point
_GRID = 9  # points in each direction at which two cameras are compared
_BLOCK = 1 << 15  # pixels of a map that are worked on at once: what a processor's cache holds


Numbers = Sequence[float] | np.ndarray


class CameraError(ValueError):
    """A calibration that cannot be used; says why and what to do."""


class PlaceholderError(CameraError):
    """Numbers that stand there because something must: the camera is not calibrated."""


@dataclass(frozen=True, eq=False)
class CameraModel:
    """
    A camera for images of one size; matrices are float64, in pixels of these images.

    width, height: of the raw image and of the rectified one.
    camera_matrix: [3, 3] of the raw image.
    lens: one of `LENSES`; coefficients: as many as it has. All zero is no distortion.
    rectified_from_raw: [3, 3], the rotation that rectification adds (stereo pairs).
    rectified_matrix: [3, 3] of the rectified image, which has no distortion.
    """

    width: int
    height: int
    camera_matrix: np.ndarray
    lens: str
    coefficients: tuple[float, ...]
    rectified_from_raw: np.ndarray
    rectified_matrix: np.ndarray

    @classmethod
    def calibrated(
        cls, size: tuple[int, int], k: Numbers, d: Numbers = (), r: Numbers = (), p: Numbers = (),
        lens: str = 'plumb_bob',
        binning: tuple[int, int] = (1, 1), window: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> 'CameraModel':
        """
        Return the camera that a calibration describes, by the fields of sensor_msgs/CameraInfo.

        size: width, height of the calibrated images. k: 9 numbers; d: the lens's coefficients,
        missing ones are 0; r: 9 numbers, p: 12 numbers, for both of which all zero or nothing
        means that rectification keeps the axes and k. The images are what is left of the
        calibrated ones after cutting out the window (left, top, width, height; all zero: nothing
        is cut off) and merging binning pixels (horizontally, vertically) into one.

        Raises CameraError if that is no camera, PlaceholderError if it is nobody's.
        """
        width, height = size
        if width < 1 or height < 1:
            raise CameraError(f'the calibrated size is {width}x{height}; it must be given')
        camera_matrix = np.array(k, np.float64).reshape(3, 3)
        r_numbers, p_numbers = np.array(r, np.float64), np.array(p, np.float64)
        rotation = r_numbers.reshape(3, 3) if r_numbers.any() else np.eye(3)
        rectified: np.ndarray = camera_matrix
        if p_numbers.any():
            rectified = p_numbers.reshape(3, 4)[:, :3].copy()
        for name, matrix in (('K', camera_matrix), ('P', rectified)):
            matrix[2] = 0, 0, 1  # some drivers leave it empty
            _check_matrix(name, matrix, width, height)
        if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-2) or (
                np.linalg.det(rotation) < 0):
            raise CameraError(f'R is not a rotation: {rotation.tolist()}')
        lens, coefficients = checked_lens(lens, tuple(d))
        camera = cls(width, height, camera_matrix, lens, coefficients, rotation, rectified)
        camera = camera._cut_out(*window)._binned(*(max(1, count) for count in binning))
        if not camera.is_inside(camera.source_of(camera._sparse_pixels())).any():
            raise CameraError('with this lens, R and P the rectified image would show nothing')
        for name, matrix in (('K', camera_matrix), ('P', rectified)):
            if max(abs(matrix[0, 2]) / width, abs(matrix[1, 2]) / height) > MAX_PRINCIPAL_OFFSET:
                raise CameraError(f'{name} has its principal point at {matrix[0, 2]:.4g}, '
                                  f'{matrix[1, 2]:.4g}, far from an image of {width}x{height}')
        return camera

    def for_images(self, width: int, height: int) -> 'CameraModel':
        """
        Return the camera for images of another size that show the same.

        Raises CameraError unless the aspect is the same to within a pixel.
        """
        if (width, height) == (self.width, self.height):
            return self
        if abs(width * self.height / self.width - height) > 1:
            raise CameraError(
                f'the calibration is for images of {self.width}x{self.height}, but these are '
                f'{width}x{height}, another aspect; calibrate at this resolution')
        return self._scaled(width, height, width / self.width, height / self.height)

    def rectified(self) -> 'CameraModel':
        """Return the pinhole camera that rectified images belong to."""
        return replace(self, camera_matrix=self.rectified_matrix, lens='plumb_bob',
                       coefficients=(0.0,) * LENSES['plumb_bob'],
                       rectified_from_raw=np.eye(3))

    @property
    def is_distorted(self) -> bool:
        """Return whether the lens bends straight lines."""
        return any(self.coefficients)

    @property
    def needs_rectification(self) -> bool:
        """Return whether raw and rectified images differ."""
        return (self.is_distorted or not np.allclose(self.rectified_from_raw, np.eye(3))
                or not np.allclose(self.camera_matrix, self.rectified_matrix))

    def distort(self, points: np.ndarray) -> np.ndarray:
        """Return where the lens puts points [..., 2] of the plane at distance 1, float64."""
        return np.stack(self._distort(points[..., 0], points[..., 1]), -1)

    def source_of(self, pixels: np.ndarray) -> np.ndarray:
        """
        Return which pixels [..., 2] of the raw image show these pixels of the rectified one.

        (u, v), float64, also beyond its borders; NaN where no camera with this lens sees.
        """
        return self._source_of(pixels[..., 0], pixels[..., 1])

    def is_inside(self, pixels: np.ndarray) -> np.ndarray:
        """Return which pixels (u, v) [..., 2] lie in the image, NaN in none, bool [...]."""
        u, v = pixels[..., 0], pixels[..., 1]
        return (u >= -0.5) & (u <= self.width - 0.5) & (v >= -0.5) & (v <= self.height - 0.5)

    def rectification_map(self) -> np.ndarray:
        """Return `source_of` all pixels of the rectified image, float64 [height, width, 2]."""
        return np.concatenate([sources for _, sources in self.rectification_rows()])

    def rectification_rows(self) -> Iterator[tuple[int, np.ndarray]]:
        """
        Yield `rectification_map` row by row: the first row's index, float64 [rows, width, 2].

        As many at once as stay in the processor's cache, which makes it several times faster.
        """
        rows = max(1, _BLOCK // self.width)
        columns = np.arange(self.width)
        for top in range(0, self.height, rows):
            bottom = min(top + rows, self.height)
            yield top, self._source_of(columns, np.arange(top, bottom)[:, None])

    def shift_to(self, other: 'CameraModel') -> float:
        """
        Return how far apart this camera and another are: pixels, at the worst place of the image.

        That is how far what a rectified pixel shows and where it looks differ; infinite for
        cameras of another size, or if one of them shows something where the other does not.
        """
        if (self.width, self.height) != (other.width, other.height):
            return float('inf')
        pixels = self._sparse_pixels()
        there = _with_one(pixels) @ np.linalg.inv(other.rectified_matrix).T
        looks = (there @ self.rectified_matrix.T)[..., :2] - pixels
        mine, others = self.source_of(pixels), other.source_of(pixels)
        unseen, unseen_there = (np.isnan(sources).any(-1) for sources in (mine, others))
        if (self.is_inside(mine) & unseen_there | other.is_inside(others) & unseen).any():
            return float('inf')
        shows = np.nan_to_num(others - mine)
        return float(max(np.linalg.norm(shift, axis=-1).max() for shift in (looks, shows)))

    # Parts ---------------------------------------------------------------------------------------

    def _sparse_pixels(self) -> np.ndarray:
        return _pixels(np.linspace(0, self.width - 1, _GRID),
                       np.linspace(0, self.height - 1, _GRID))

    def _source_of(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return `source_of` pixels whose coordinates are broadcast against each other."""
        # Coordinate by coordinate: several times faster than arrays of small vectors.
        raw_from_pixel = self.rectified_from_raw.T @ np.linalg.inv(self.rectified_matrix)
        with np.errstate(all='ignore'):  # where numbers run away, nothing is seen
            x, y, z = (row[0] * u + (row[1] * v + row[2]) for row in raw_from_pixel)
            if (raw_from_pixel[2] == (0, 0, 1)).all():
                seen: np.ndarray | bool = True
            else:
                seen = z > 0
                z = np.where(seen, z, 1)
                x, y = x / z, y / z
            if self.is_distorted:
                seen = seen & (x * x + y * y < self._fold * self._fold)
                x, y = self._distort(x, y)
            k = self.camera_matrix
            raw = np.stack((k[0, 0] * x + k[0, 1] * y + k[0, 2],
                            k[1, 0] * x + k[1, 1] * y + k[1, 2]), -1)
        if seen is not True:
            raw[~seen] = np.nan
        return raw

    def _distort(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where the lens puts points of the plane at distance 1."""
        if not self.is_distorted:
            return x, y
        k, square = self.coefficients, x * x + y * y
        if self.lens == 'equidistant':
            radius = np.sqrt(square)
            angle = np.arctan(radius)
            scale = angle * _polynomial(angle * angle, k) / radius.clip(1e-12)
            return x * scale, y * scale
        scale = _polynomial(square, (k[0], k[1], k[4]))
        if self.lens == 'rational_polynomial':
            scale = scale / _polynomial(square, k[5:8])
        p1, p2 = k[2:4]
        across = 2 * (p1 * y + p2 * x)
        return x * (scale + across) + p2 * square, y * (scale + across) + p1 * square

    @cached_property
    def _fold(self) -> float:
        """
        Return the radius from which on the lens model is not to be believed.

        Its polynomial turns back there, far outside of the image it was fitted to, and would show
        the same raw pixels a second time.
        """
        # By s, the radius squared: d/dr (r n(s)) = n + 2 s n', and likewise for the angle.
        k = self.coefficients
        radial = k if self.lens == 'equidistant' else (k[0], k[1], k[4])
        slope = [(2 * power + 1) * value for power, value in enumerate((1.0, *radial))]
        turns: list[Sequence[float] | np.ndarray] = [slope]
        if self.lens == 'rational_polynomial':
            over, under = (1.0, *radial), (1.0, *k[5:8])
            falling = polynomial.polymul(over, polynomial.polyder(under))
            turns = [polynomial.polysub(polynomial.polymul(slope, under),
                                        polynomial.polymul((0, 2.0), falling)), under]
        first = min(_first_root(numbers) for numbers in turns)
        if self.lens != 'equidistant':
            return float(np.sqrt(first))
        return float(np.tan(np.sqrt(first))) if first < (np.pi / 2) ** 2 else float('inf')

    def _cut_out(self, left: int, top: int, width: int, height: int) -> 'CameraModel':
        """Return the camera of a window of the images, of all if it has no pixels."""
        if not (width and height):
            return self
        if left + width > self.width or top + height > self.height:
            raise CameraError(f'the region of interest, {width}x{height} at {left}, {top}, does '
                              f'not lie in the calibrated {self.width}x{self.height}')
        return self._mapped(width, height, _scaling(1, 1, -left, -top))

    def _binned(self, across: int, down: int) -> 'CameraModel':
        """Return the camera of images in which across x down pixels are merged into one."""
        if across > self.width or down > self.height:
            raise CameraError(
                f'binning of {across}x{down} pixels leaves nothing of {self.width}x'
                f'{self.height}; it says how many pixels the driver merges into one')
        return self._scaled(self.width // across, self.height // down, 1 / across, 1 / down)

    def _scaled(self, width: int, height: int, across: float, down: float) -> 'CameraModel':
        """Return the camera of images scaled by these factors, about the corner at -0.5."""
        return self._mapped(
            width, height, _scaling(across, down, 0.5 * across - 0.5, 0.5 * down - 0.5))

    def _mapped(self, width: int, height: int, new_from_old: np.ndarray) -> 'CameraModel':
        """Return the camera of images whose pixels are mapped by `new_from_old`."""
        return replace(self, width=width, height=height,
                       camera_matrix=new_from_old @ self.camera_matrix,
                       rectified_matrix=new_from_old @ self.rectified_matrix)


def checked_lens(lens: str, d: Sequence[float]) -> tuple[str, tuple[float, ...]]:
    """Return the lens model's name and all of its coefficients; raise CameraError."""
    numbers = tuple(float(value) for value in d)
    if lens.strip().lower() in NO_LENS and not any(numbers):
        lens = 'plumb_bob'
    if lens not in LENSES:
        raise CameraError(
            f'the distortion model {reprlib.repr(lens)} is not supported; calibrate with one of '
            f'{", ".join(LENSES)}, or rectify the images elsewhere')
    count = LENSES[lens]
    if any(numbers[count:]) or not all(map(_is_finite, numbers)):
        raise CameraError(
            f'{lens} has {count} distortion coefficients, but D has {_told(numbers)}; calibrate '
            f'with one of {", ".join(LENSES)}')
    return lens, (numbers + (0.0,) * count)[:count]


def _check_matrix(name: str, matrix: np.ndarray, width: int, height: int) -> None:
    """Raise CameraError unless a matrix [3, 3] can be that of a camera of this size."""
    focal = matrix[0, 0], matrix[1, 1]
    if not (np.isfinite(matrix).all() and min(focal) > 0):
        raise CameraError(f'{name} has no positive focal lengths: {matrix.tolist()}')
    shares = focal[0] / width, focal[1] / height
    if min(shares) < SHORTEST:
        words = (f'{name} has focal lengths of {focal[0]:.4g} and {focal[1]:.4g} pixels, which is '
                 f'a placeholder and no camera of {width}x{height}')
        if name == 'K':
            raise PlaceholderError(f'{words}: the camera is not calibrated')
        raise CameraError(f'{words}, though K is given: calibrate again, or let P be zero')
    if max(shares) > LONGEST:
        raise CameraError(f'{name} has focal lengths of {focal[0]:.4g} and {focal[1]:.4g} pixels, '
                          f'too long for a camera of {width}x{height}')
    # The lower left is zero for a camera; then the inverse exists, and is exact enough.
    if abs(matrix[1, 0]) > 1e-6 * min(focal) or abs(matrix[0, 1]) > max(focal):
        raise CameraError(f'{name} is no camera matrix (singular, or not upper triangular): '
                          f'{matrix.tolist()}')


def _first_root(numbers: Sequence[float] | np.ndarray) -> float:
    """Return the least positive root of n0 + n1 x + ..., infinity if there is none."""
    values = np.asarray(numbers, np.float64)
    values = np.where(np.abs(values) < 1e-30, 0, values)
    values = values[:values.nonzero()[0].max(initial=-1) + 1]
    with np.errstate(all='ignore'):
        try:
            roots = polynomial.polyroots(values)
        except np.linalg.LinAlgError:  # numbers that have overflown: nothing is to be believed
            return 0.0
    real = roots.real[np.abs(roots.imag) <= 1e-9 * np.abs(roots)]
    return float(min(real[real > 0], default=float('inf')))


def _told(numbers: Sequence[float]) -> str:
    """Return numbers in words, not all if there are many."""
    more = f' and {len(numbers) - 12} more' if len(numbers) > 12 else ''
    return f'{list(numbers[:12])}{more}'


def _is_finite(number: float) -> bool:
    return abs(number) < float('inf')


def _polynomial(x: np.ndarray, coefficients: Sequence[float]) -> np.ndarray:
    """Return 1 + c0 x + c1 x^2 + ..."""
    total = np.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = (total + coefficient) * x
    return 1 + total


def _pixels(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the grid of pixel coordinates (u, v), float64 [rows, columns, 2]."""
    return np.stack(np.meshgrid(columns, rows), -1).astype(np.float64)


def _with_one(points: np.ndarray) -> np.ndarray:
    return np.concatenate((points, np.ones_like(points[..., :1])), -1)


def _scaling(across: float, down: float, right: float, below: float) -> np.ndarray:
    return np.array(((across, 0, right), (0, down, below), (0, 0, 1)), np.float64)
