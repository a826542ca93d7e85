"""From pictures and what a network says of them to poses, whatever the camera."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.frame import Frame
from xsvggt_ros.trajectory.history import History
from xsvggt_ros.trajectory.landmark_map import LandmarkMap
from xsvggt_ros.trajectory.odometry import Estimate, Odometry
from xsvggt_ros.trajectory.relative_odometry import RelativeOdometry, View
from xsvggt_ros.trajectory.tracker import grey_of

MAX_WIDTH = 1280   # pixels in which corners are tracked: in more they are not found better


@dataclass(frozen=True)
class NetworkFrame:
    """
    What the network says of a frame, on the host.

    depth, confidence: [h, w], NaN and 0 where nothing is known. world_from_camera: [4, 4].
    intrinsics: [3, 3] of the depth map, the calibration's or the network's guess.
    model_from_source: [3, 3], from the rectified picture's pixels to the depth map's.
    depth_error: as in `Frame`.
    """

    depth: np.ndarray
    confidence: np.ndarray
    world_from_camera: np.ndarray
    intrinsics: np.ndarray
    model_from_source: np.ndarray
    depth_error: Callable[[], np.ndarray] | None = None


class CameraTracker:
    """
    One stream's odometry, with its camera.

    The first frame decides whether the focal length is known, by whether a camera comes with it.
    """

    def __init__(self, mode: str, history: bool = False, correct_depth: bool = True,
                 landmarks: LandmarkMap | None = None,
                 relative: RelativeOdometry | None = None) -> None:
        """
        Begin a stream in mode 'tracked' or 'optimized'.

        history: keep every frame's pose; landmarks: a saved map, in which it is looked for then.
        correct_depth: see `Odometry.depth_factors`; relative: see `Odometry`.
        """
        self._config = TrajectoryConfig(optimize=mode == 'optimized',
                                        correct_depth=correct_depth)
        self.history = History(self._config, landmarks) if history else None
        self.odometry: Odometry | None = None
        self._relative = relative
        self._view = GreyView()
        self._frame: Frame | None = None
        self._model_from_picture = np.eye(3)
        self._begun: tuple[np.ndarray, CameraModel | None, np.ndarray] | None = None

    def begin(self, pixels: np.ndarray, camera: CameraModel | None) -> None:
        """
        Do what needs only the picture, while the network sees it: both as `track` gets them next.

        Nothing else may be called until it returns; what it found is let go of if `track` comes
        with another picture.
        """
        grey = self._view.grey(pixels, camera)
        self._begun = pixels, camera, grey
        if self.odometry is not None:
            self.odometry.begin(grey)

    def locate_early(self, view: View | None = None) -> Estimate | None:
        """
        Return where the picture that was begun is, if it alone tells: see `Odometry.locate_early`.

        `locate` is to follow with the same picture, and returns the same.
        """
        if self._begun is None or self.odometry is None:
            return None
        return self.odometry.locate_early(self._begun[2], view)

    def track(self, pixels: np.ndarray, camera: CameraModel | None,
              seen: NetworkFrame) -> Estimate:
        """
        Return the pose of a picture, uint8 [H, W, 3] RGB or [H, W] grey, as it came.

        camera: its calibration; the same object must come with every frame. The window is
        adjusted where the picture makes a keyframe.
        """
        odometry = self._take(pixels, camera, seen, None)
        assert self._frame is not None   # it was taken
        estimate = odometry.step(self._frame)
        if self.history is not None:
            self.history.add(estimate, odometry)
        return estimate

    def locate(self, pixels: np.ndarray, camera: CameraModel | None, seen: NetworkFrame,
               view: View | None = None) -> Estimate:
        """
        Return the pose of a picture, as `track` gets it, and do what it need not wait for later.

        The odometry's `complete` is to follow. Windows are left alone, and there is no history.
        view: as in `Frame`.
        """
        odometry = self._take(pixels, camera, seen, view)
        assert self._frame is not None   # it was taken
        return odometry.locate(self._frame)

    def _take(self, pixels: np.ndarray, camera: CameraModel | None, seen: NetworkFrame,
              view: View | None) -> Odometry:
        """Make a frame of a picture, and of what was begun with it; return its odometry."""
        begun, self._begun = self._begun, None
        is_begun = begun is not None and begun[0] is pixels and begun[1] is camera
        grey = begun[2] if begun is not None and is_begun else self._view.grey(pixels, camera)
        self._model_from_picture = seen.model_from_source @ _larger(grey.shape, pixels.shape)
        if self.odometry is None:
            height, width = grey.shape
            matrix = np.linalg.inv(self._model_from_picture) @ seen.intrinsics
            self.odometry = Odometry(matrix, (width, height), camera is not None, self._config,
                                     self._relative)
        self._frame = Frame(grey, seen.depth, seen.confidence, seen.world_from_camera,
                            self._model_from_picture, seen.depth_error, view)
        return self.odometry

    def set_metres(self, metres: float | None) -> None:
        """Take how many metres a unit of the odometry frame has; None or NaN: not known."""
        support = None if self.odometry is None else self.odometry.support
        if self.odometry is not None and support is not None:
            known = metres is not None and 0 < metres < float('inf')
            support.given = 1 / (metres * self.odometry.steps.unit) if known and metres else None

    def depth_factors(self) -> np.ndarray:
        """Return factors, float32 [h, w], of the last frame's depth; see `Odometry`."""
        assert self.odometry is not None and self._frame is not None   # there was a frame
        return self.odometry.depth_factors(self._frame)

    def intrinsics(self) -> np.ndarray:
        """Return the depth map's camera matrix [3, 3] as it is known now."""
        assert self.odometry is not None   # there was a frame
        return self._model_from_picture @ self.odometry.camera


class GreyView:
    """Pictures in grey, rectified where their lens asks for it, at most MAX_WIDTH wide."""

    def __init__(self) -> None:
        """Begin without a camera."""
        self._camera: CameraModel | None = None
        self._maps: tuple[np.ndarray, np.ndarray] | None = None

    def grey(self, pixels: np.ndarray, camera: CameraModel | None) -> np.ndarray:
        """Return a picture in grey as the rectified camera sees it, uint8 [h, w]."""
        grey = grey_of(_shrunk(pixels))
        if camera is not self._camera:
            self._camera, self._maps = camera, None
            if camera is not None and camera.needs_rectification:
                height, width = grey.shape
                places = camera.for_images(width, height).rectification_map()
                # Fixed-point maps: half the time of floating ones.
                across, down = np.nan_to_num(places, nan=-2.0).astype(np.float32).transpose(
                    2, 0, 1).copy()
                self._maps = cv2.convertMaps(across, down, cv2.CV_16SC2)
        if self._maps is None:
            return grey
        return cv2.remap(grey, *self._maps, cv2.INTER_LINEAR)


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    """Return a picture a whole number of times smaller, such that it is at most MAX_WIDTH wide."""
    height, width = pixels.shape[:2]
    times = -(-width // MAX_WIDTH)
    if times > 3:   # four pixels of each block first: the time of all would be several times that
        pixels = cv2.resize(pixels, (2 * width // times, 2 * height // times))
    if times > 1:
        pixels = cv2.resize(pixels, (max(1, width // times), max(1, height // times)),
                            interpolation=cv2.INTER_AREA)
    return pixels


def _larger(small: tuple[int, ...], large: tuple[int, ...]) -> np.ndarray:
    """Return the map from pixels of an image [h, w] to those of one of another size, [3, 3]."""
    down, across = (there / here for there, here in zip(large, small))
    return np.array(((across, 0, 0.5 * across - 0.5), (0, down, 0.5 * down - 0.5), (0, 0, 1.0)))
