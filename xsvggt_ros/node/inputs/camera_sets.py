"""Which images of a rig belong together: approximately the same stamp, one of each camera."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

QUEUE = 10       # images of a camera that wait for those of the others
REMEMBERED = 20  # stamps of the reference camera that a camera left out is compared with
BACK = 200_000_000  # nanoseconds that stamps may go back; more, and time has begun anew


@dataclass(frozen=True)
class CameraImage:
    """An image that waits for its set; camera: its index in the rig, 0 is the reference."""

    camera: int
    stamp_ns: int
    content: Any
    era: int = 0  # of its sender's clock


@dataclass
class _Camera:
    """What is known of one camera of the rig."""

    waiting: deque[CameraImage] = field(default_factory=lambda: deque(maxlen=QUEUE))
    newest_ns: int | None = None  # stamp
    heard: float | None = None    # seconds, of the clock that `add` gets
    fitted: float | None = None   # when it was last part of a set, or at first could have been
    left_out: bool = False
    offset_ns: int | None = None  # of the newest image, from the nearest of the reference


class CameraSets:
    """
    Put the images of several cameras together as they arrive.

    A set has an image of the first camera, the reference, and of each other one the image whose
    stamp is nearest to it, at most `slop` away. A camera that has had none that fits for
    `patience` seconds is left out, until one fits again: sets go on without it, and `missing` says
    so. Without the reference there is no set. Sets never go back.
    """

    def __init__(self, names: Sequence[str], slop: float, patience: float, now: float) -> None:
        """Begin with cameras of these names; slop, patience and now in seconds."""
        self._names = tuple(names)
        self._slop_ns = round(slop * 1e9)
        self._patience = patience
        self._cameras = [_Camera() for _ in names]
        self._reference_stamps: deque[int] = deque(maxlen=REMEMBERED)
        self._taken_ns: int | None = None  # stamp of the reference in the last set
        self._begin = now
        self.dropped = 0  # images that have found no set

    def add(
        self, camera: int, stamp_ns: int, content: Any, now: float, era: int = 0,
    ) -> tuple[CameraImage, ...] | None:
        """
        Take an image; return the set that is complete with it, in the order of the cameras.

        Older images of the cameras in that set are dropped, and counted. Stamps that go back by
        more than BACK begin anew, with all that waits dropped.
        """
        this = self._cameras[camera]
        if this.newest_ns is not None and stamp_ns < this.newest_ns - BACK:
            self._begin_anew()
        if camera == 0:
            self._reference_stamps.append(stamp_ns)
            if self._is_silent(this, now):  # the others have had nothing to fit, all that time
                for other in self._cameras:
                    other.fitted = now
        this.newest_ns, this.heard = stamp_ns, now
        self._compare_offsets(camera)
        self._leave_out(now)
        if camera == 0 and self._taken_ns is not None and stamp_ns < self._taken_ns:
            self.dropped += 1  # a newer one has overtaken it
            return None
        image = CameraImage(camera, stamp_ns, content, era)
        if len(this.waiting) == QUEUE:
            self.dropped += 1  # the deque drops its oldest
        this.waiting.append(image)
        found = self._complete(image)
        if found is not None:
            self._take(found, now)
        return found

    def missing(self, now: float) -> list[tuple[int, str]]:
        """
        Return the cameras left out, with the reason.

        And the reference if it alone is silent: without any image, no camera is to blame.
        """
        self._leave_out(now)
        faults = []
        for index, camera in enumerate(self._cameras):
            if not (camera.left_out if index else self._is_reference_missing(now)):
                continue
            silence = now - (self._begin if camera.heard is None else camera.heard)
            name, reference = self._names[index], self._names[0]
            if index == 0:
                faults.append((0, f'{name} has sent no image for {silence:.0f} s; it is the '
                               'reference camera, and no image is processed without it'))
            elif silence > self._patience or camera.offset_ns is None:
                faults.append((index, f'{name} has sent no image for {silence:.0f} s; the stream '
                               'goes on without it'))
            else:
                faults.append((index, f'images of {name} have stamps '
                               f'{abs(camera.offset_ns) * 1e-9:.3g} s from the nearest of '
                               f'{reference}, more than input.sync_slop; the stream goes on '
                               'without it'))
        return faults

    def _begin_anew(self) -> None:
        for camera in self._cameras:
            self.dropped += len(camera.waiting)
            camera.waiting.clear()
            camera.newest_ns = None
        self._reference_stamps.clear()
        self._taken_ns = None

    def _is_late(self, camera: _Camera, now: float) -> bool:
        return now - (self._begin if camera.fitted is None else camera.fitted) > self._patience

    def _leave_out(self, now: float) -> None:
        """Do without cameras that are late."""
        if self._is_silent(self._cameras[0], now):
            return  # without the reference nothing can fit, and that is nobody else's fault
        for camera in self._cameras[1:]:
            camera.left_out |= self._is_late(camera, now)

    def _is_reference_missing(self, now: float) -> bool:
        reference, *others = self._cameras
        return (now - self._begin > self._patience and self._is_silent(reference, now)
                and not all(self._is_silent(other, now) for other in others))

    def _is_silent(self, camera: _Camera, now: float) -> bool:
        return camera.heard is None or now - camera.heard > self._patience

    def _compare_offsets(self, arrived: int) -> None:
        """Bring a camera back whose newest image fits one of the reference."""
        for index, camera in enumerate(self._cameras):
            if index == 0 or arrived not in (0, index) or camera.newest_ns is None:
                continue
            offsets = [camera.newest_ns - stamp for stamp in self._reference_stamps]
            if not offsets:
                continue
            camera.offset_ns = min(offsets, key=abs)
            if camera.left_out and abs(camera.offset_ns) <= self._slop_ns:
                camera.left_out = False
                camera.fitted = camera.heard

    def _complete(self, image: CameraImage) -> tuple[CameraImage, ...] | None:
        """Return the set that an image has completed by its coming, if it has."""
        reference = image if image.camera == 0 else self._nearest(0, image.stamp_ns)
        if reference is None:
            return None
        found = [reference]
        for index, camera in enumerate(self._cameras[1:], start=1):
            nearest = self._nearest(index, reference.stamp_ns)
            if nearest is not None:
                found.append(nearest)
            elif not camera.left_out:
                return None
        return tuple(found)

    def _nearest(self, camera: int, stamp_ns: int) -> CameraImage | None:
        """Return the waiting image with the nearest stamp, None if that is too far."""
        nearest = min(self._cameras[camera].waiting, default=None,
                      key=lambda image: abs(image.stamp_ns - stamp_ns))
        fits = nearest is not None and abs(nearest.stamp_ns - stamp_ns) <= self._slop_ns
        return nearest if fits else None

    def _take(self, images: tuple[CameraImage, ...], now: float) -> None:
        self._taken_ns = images[0].stamp_ns
        for image in images:
            camera = self._cameras[image.camera]
            camera.fitted = now
            kept = [other for other in camera.waiting if other.stamp_ns > image.stamp_ns]
            self.dropped += len(camera.waiting) - len(kept) - 1
            camera.waiting = deque(kept, maxlen=QUEUE)
