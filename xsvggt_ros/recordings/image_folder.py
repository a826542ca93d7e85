"""A folder of images as a camera stream: order, stamps, rate, pixels and calibration."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
import logging
import os
from pathlib import Path
import re

import numpy as np
from PIL import Image

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.images.pictures import opened_picture, upright
from xsvggt_ros.recordings.calibration import Calibration, find_calibration, load_calibration

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.ppm', '.pgm', '.tif', '.tiff', '.webp')
DEFAULT_RATE = 10.0      # Hz
MIN_STAMP_DIGITS = 16    # of a file name that is a time in nanoseconds
MOST_NAMED = 5           # images that are skipped and named, each with its reason

_FASTEST = 1_000_000     # ns between images; names that are nearer to each other are microseconds
_DECIMAL = re.compile(r'-?\d+(\.(?P<fraction>\d+))?(e[+-]\d{1,4})?', re.ASCII)

_log = logging.getLogger(__name__)


class FolderError(ToolError):
    """A folder that cannot be played."""


class _ImageError(ValueError):
    """Why an image of a folder is left out."""


@dataclass(frozen=True)
class FolderFrame:
    """One picture: pixels [H, W, 3] uint8 RGB or [H, W] uint8 grey, and its time."""

    pixels: np.ndarray
    stamp_ns: int | None      # from the file name; None if names are no times
    offset_ns: int            # after the first frame, when it is due
    path: Path


class ImageFolder:
    """
    The images of a folder in the order in which a camera took them.

    File names that are all times in nanoseconds (at least 16 digits, as in the ASL format) give
    the stamps and the pace. Otherwise, or if `rate` (Hz) is given, frames follow each other at
    a constant rate. Frames are numbered before reading, so a broken file leaves a gap in time.
    """

    def __init__(self, path: Path | str, rate: float | None = None,
                 calibration: Path | str | None = None) -> None:
        """
        Open a folder; `calibration` names a file, else one beside the images is used.

        Raises FolderError or CalibrationError with what is wrong and where.
        """
        self.path = Path(path)
        self.files = _list_images(self.path)
        self.stamps_ns = _stamps(self.files)
        self.rate = rate or self._own_rate()
        self._paced_by_stamps = self.stamps_ns is not None and rate is None
        self.skipped: dict[Path, str] = {}                # images that are left out, and why
        self._window: tuple[float, float] | None = None   # of 16-bit images: black and white
        self._is_deep: bool | None = None                 # whether the first image has 16 bits
        self.first = self._first_readable()
        self.calibration = self._calibrate(calibration)

    def __len__(self) -> int:
        """Return the number of files, readable or not."""
        return len(self.files)

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height of the images."""
        height, width = self.first.pixels.shape[:2]
        return width, height

    @property
    def duration_ns(self) -> int:
        """Return the time from the first frame to the one that would follow the last."""
        return self._offset_ns(len(self.files) - 1) + round(1e9 / self.rate)

    def frames(self) -> Iterator[FolderFrame]:
        """Yield all frames in order; what cannot be used is in `skipped` and the log."""
        for index in range(len(self.files)):
            try:
                frame = self._read(index)
                height, width = frame.pixels.shape[:2]
                if (width, height) != self.size:
                    raise _ImageError('{}x{}, but the first image is {}x{}'.format(
                        width, height, *self.size))
            except _ImageError as error:
                self._skip(self.files[index], str(error))
            else:
                yield frame

    def describe_skipped(self) -> str:
        """Return how many images were left out so far, some of their names and why; or nothing."""
        if not self.skipped:
            return ''
        reasons: dict[str, list[str]] = {}
        for path, reason in self.skipped.items():
            reasons.setdefault(reason, []).append(path.name)
        told = [_with_reason(*item) for item in list(reasons.items())[:MOST_NAMED]]
        rest = sum(len(names) for names in list(reasons.values())[MOST_NAMED:])
        return (f'skipped {len(self.skipped)} of {len(self)} images: ' + '; '.join(told)
                + (f'; and {rest} more' if rest else ''))

    # Parts ---------------------------------------------------------------------------------------

    def _own_rate(self) -> float:
        """Return the rate that the stamps tell, or the default one."""
        if self.stamps_ns is None or len(self.stamps_ns) < 2:
            return DEFAULT_RATE
        return 1e9 / float(np.median(np.diff(self.stamps_ns)))

    def _offset_ns(self, index: int) -> int:
        if self._paced_by_stamps and self.stamps_ns is not None:
            return self.stamps_ns[index] - self.stamps_ns[0]
        return round(index * 1e9 / self.rate)

    def _first_readable(self) -> FolderFrame:
        reasons = []
        for index, file in enumerate(self.files):
            try:
                return self._read(index)
            except _ImageError as error:
                reasons.append(f'{file.name}: {error}')
        raise FolderError(f'{self.path}: none of the {len(self.files)} images can be read '
                          f'({"; ".join(reasons[:2])})')

    def _calibrate(self, given: Path | str | None) -> Calibration | None:
        file = Path(given) if given is not None else find_calibration(self.files[0].parent)
        if file is None:
            return None
        return load_calibration(file).for_images(*self.size)

    def _read(self, index: int) -> FolderFrame:
        """Return a frame; raises _ImageError."""
        path = self.files[index]
        try:
            with opened_picture(path) as image:
                is_deep = image.mode.startswith('I') or image.mode == 'F'
                if self._is_deep not in (None, is_deep):
                    raise ValueError('16 bits, but the first image has 8: a depth map?' if is_deep
                                     else '8 bits, but the first image has 16')
                pixels = self._to_bytes(upright(image))
        except (OSError, ValueError) as error:  # PictureError, and Pillow's for odd modes
            words = str(error).replace(f"'{path}'", 'it') or type(error).__name__
            raise _ImageError(' '.join(words.split())) from error
        self._is_deep = is_deep
        stamp = None if self.stamps_ns is None else self.stamps_ns[index]
        return FolderFrame(pixels, stamp, self._offset_ns(index), path)

    def _skip(self, path: Path, reason: str) -> None:
        if path in self.skipped:   # told before: folders are played more than once
            return
        self.skipped[path] = reason
        if len(self.skipped) <= MOST_NAMED:
            _log.warning('%s: %s; skipped', path, reason)
        elif len(self.skipped) == MOST_NAMED + 1:
            _log.warning('further images are skipped as well')

    def _to_bytes(self, image: Image.Image) -> np.ndarray:
        """Return grey as [H, W] and everything else as [H, W, 3] RGB, uint8; no alpha."""
        if image.mode.startswith('I') or image.mode == 'F':
            return self._stretch(np.nan_to_num(np.asarray(image).astype(np.float32)))
        if image.mode in ('1', 'L', 'LA', 'La'):
            return np.asarray(image.convert('L'))
        return np.asarray(image.convert('RGB'))

    def _stretch(self, values: np.ndarray) -> np.ndarray:
        """
        Return more than 8 bits as 8, between the darkest and brightest of the first image.

        Sensors of 10, 12 or 14 bits fill 16-bit files only partly, so dividing by 256 would
        leave a black picture. The window is kept, so that the brightness does not flicker.
        """
        if self._window is None:
            low, high = np.percentile(values, (0.5, 99.5))
            self._window = float(low), float(max(high, low + 1.0))
        low, high = self._window
        return np.clip((values - low) * (255.0 / (high - low)), 0, 255).astype(np.uint8)


def _with_reason(reason: str, names: list[str]) -> str:
    """Return the first of the names, how many others there are, and the reason."""
    more = f' and {len(names) - 2} more' if len(names) > 2 else ''
    return f'{", ".join(names[:2])}{more} ({reason})'


def _list_images(path: Path) -> list[Path]:
    """Return the images in `path`, or in its sub-folder `data`, in the order of their names."""
    if not path.exists():
        raise FolderError(f'{path}: no such file or folder')
    if not path.is_dir():
        raise FolderError(f'{path}: not a folder; give the folder that holds the images')
    try:
        for place in (path, path / 'data'):
            if place.is_dir():
                files = [file for file in place.iterdir() if _is_image(file)]
                if files:
                    return _in_order(files)
        inside = sorted(entry.name for entry in path.iterdir() if _has_images(entry))
    except OSError as error:
        raise FolderError(f'{path}: cannot be read ({error})') from error
    hint = f"; there are some in its sub-folder(s) {', '.join(inside[:5])}" if inside else ''
    raise FolderError(f'{path}: no images in it ({", ".join(SUFFIXES)}){hint}')


def _is_image(file: Path) -> bool:
    return (file.suffix.lower() in SUFFIXES and not file.name.startswith('.')
            and file.is_file())


def _has_images(folder: Path) -> bool:
    try:
        return folder.is_dir() and any(_is_image(file) for file in folder.iterdir())
    except OSError:
        return False


def _in_order(files: list[Path]) -> list[Path]:
    """Return files by the numbers in their names, which may be times in seconds."""
    numbers = _decimal_fractions([file.stem for file in files])
    if numbers is None:
        return sorted(files, key=lambda file: _natural_key(file.name))
    return [file for _, _, file in sorted(zip(numbers, (file.name for file in files), files))]


def _decimal_fractions(stems: list[str]) -> list[Decimal] | None:
    """
    Return the numbers that names differ by, if these are decimal fractions; None if they are not.

    9.15 comes before 9.2 then, as in times that Python wrote. With names such as 9.10, which no
    program writes for a fraction that has others of another length beside it, they are versions,
    and 9.2 comes first.
    """
    before = re.sub(r'[0-9][0-9.]*$|^-$', '', os.path.commonprefix(stems))
    stems = [stem[len(before):] for stem in stems]
    after = os.path.commonprefix([stem[::-1] for stem in stems])[::-1]
    after = re.sub(r'^[0-9.]*[0-9]', '', after)
    matches = [_DECIMAL.fullmatch(stem.removesuffix(after)) for stem in stems]
    found = [match for match in matches if match is not None]
    if len(found) < len(matches):
        return None
    fractions = [match['fraction'] for match in found if match['fraction']]
    if not fractions or (len(set(map(len, fractions))) > 1
                         and any(len(text) > 1 and text.endswith('0') for text in fractions)):
        return None
    return [Decimal(match.group()) for match in found]


def _natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a key that sorts img2 before img10."""
    parts = re.split(r'([0-9]+)', name.lower())
    key = [(0, int(part), '') if number % 2 else (1, 0, part)
           for number, part in enumerate(parts)]
    return key, name


def _stamps(files: list[Path]) -> list[int] | None:
    """Return the times in ns that the file names are, or None if they are not all times."""
    if not all(file.stem.isascii() and file.stem.isdigit()
               and len(file.stem) >= MIN_STAMP_DIGITS for file in files):
        return None
    stamps = [int(file.stem) for file in files]
    if 1 < len(stamps) and stamps[-1] < 10 ** 16 and np.median(np.diff(stamps)) < _FASTEST:
        stamps = [1000 * stamp for stamp in stamps]   # microseconds since 1970
    if len(set(stamps)) != len(stamps) or stamps[-1] >= 2 ** 31 * 10 ** 9:
        return None   # the same time twice, or more seconds than a ROS stamp can hold
    return stamps
