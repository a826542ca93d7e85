"""What `scale.mode` does: results in metres, as soon as it is known what the unit is."""

from collections import deque
from collections.abc import Mapping, Sequence

from nav_msgs.msg import Odometry
import numpy as np
from rclpy.impl.rcutils_logger import RcutilsLogger
from sensor_msgs.msg import Image

from xsvggt_ros.engine.camera_model import CameraModel
from xsvggt_ros.engine.preprocess import Resize
from xsvggt_ros.engine.rectify import DepthViews
from xsvggt_ros.engine.scale import (
    BaselineScale, DepthScale, FEWEST_PIXELS, Scale, TrajectoryScale
)
from xsvggt_ros.engine.stream_engine import FrameResult
from xsvggt_ros.geometry import invert_transform
from xsvggt_ros.node.depth_hint import decode_depth, DepthHint
from xsvggt_ros.node.image_codec import ImageError
from xsvggt_ros.node.messages import nanoseconds
from xsvggt_ros.node.odometry_hint import OdometryHint
from xsvggt_ros.node.parameters import Value
from xsvggt_ros.node.rig import seen_transforms

UNMATCHED = 30  # frames for which odometry may be late
UNMATCHED_DEPTH = 3  # frames for which a depth image may be late


class MetricScale:
    """The scale of one stream; hints come from the executor's thread, frames from the worker's."""

    def __init__(self, logger: RcutilsLogger) -> None:
        """Begin without a scale."""
        self.current: Scale | None = None  # None: lengths are in the network's unit
        self._logger = logger
        self._hint = OdometryHint()
        self._trajectory = TrajectoryScale()
        # Positions in the network's unit for whose time no odometry has come yet.
        self._unmatched: deque[tuple[int, np.ndarray]] = deque(maxlen=UNMATCHED)
        self._depth_hint = DepthHint()
        self._depth = DepthScale()
        self._unmatched_depth: deque[tuple[int, FrameResult]] = deque()
        self._baseline = BaselineScale()
        self._camera: CameraModel | None = None
        self._depth_views = DepthViews()
        self.fault = ''  # why there is no newer scale, empty if all is well

    def forget(self) -> None:
        """Begin anew: a new stream has another unit."""
        self.current = None
        self._trajectory.forget()
        self._unmatched.clear()
        self._depth.forget()
        self._unmatched_depth.clear()
        self._baseline.forget()
        self.fault = ''

    def on_odometry(self, message: Odometry) -> None:
        """Remember where another odometry is, in metres."""
        position = message.pose.pose.position
        self._hint.add(nanoseconds(message.header), (position.x, position.y, position.z))

    def on_depth(self, message: Image) -> None:
        """Remember a depth image of the reference camera."""
        self._depth_hint.add(nanoseconds(message.header), message)

    def apply(
        self, results: Sequence[FrameResult], stamp_ns: int, values: Mapping[str, Value],
        resize: Resize, positions: np.ndarray | None, camera: CameraModel | None = None,
    ) -> list[FrameResult]:
        """
        Return the results of one set of images in metres if the scale is known, else as they are.

        positions [K, 3]: where the other cameras are in the frame of the first one, in metres;
        None: not known. camera: with which the first image was rectified, if it was.
        """
        self._camera = camera
        scale = self._estimate(results, stamp_ns, values, resize, positions)
        if scale is None:
            return list(results)
        if self.current is None or scale.metres != self.current.metres:
            self._logger.info(f"the network's unit is {scale.metres:.4g} m "
                              f'(+- {100 * scale.uncertainty:.1f} %)')
            self.current = scale
        return [result.scaled(scale.metres) for result in results]

    def _estimate(
        self, results: Sequence[FrameResult], stamp_ns: int, values: Mapping[str, Value],
        resize: Resize, positions: np.ndarray | None,
    ) -> Scale | None:
        mode = values['scale.mode']
        if mode == 'fixed':
            return Scale(values['scale.value'], 0.0)
        if mode == 'odometry':
            pose = invert_transform(results[0].camera_from_world)
            self._unmatched.append((stamp_ns, pose[:3, 3].cpu().numpy()))
            self._match_odometry()
            return self._trajectory.scale()
        if mode == 'depth':
            self._unmatched_depth.append((stamp_ns, results[0]))
            self._match_depth(resize)
            return self._depth.scale()
        if mode == 'baseline':
            if positions is not None:
                seen = [transform[:3, 3] for transform in seen_transforms(results)[1:]]
                self._baseline.add(np.stack(seen), positions)
            scale = self._baseline.scale()
            self.fault = self._baseline.refusal
            return scale
        return None

    def _match_depth(self, resize: Resize) -> None:
        """Compare the frames for whose time a depth image has come by now."""
        for _ in range(len(self._unmatched_depth)):
            stamp_ns, result = self._unmatched_depth.popleft()
            message = self._depth_hint.at(stamp_ns)
            if message is None:
                self._unmatched_depth.append((stamp_ns, result))
            else:
                self.fault = self._compare_depth(result, message, resize)
        if len(self._unmatched_depth) > UNMATCHED_DEPTH:
            stamp_ns, _ = self._unmatched_depth.popleft()
            distance = self._depth_hint.distance(stamp_ns)
            self.fault = (
                'no depth image has come' if distance is None else
                f'no depth image fits the images: the nearest stamp is {distance:.3g} s away')

    def _compare_depth(self, result: FrameResult, message: Image, resize: Resize) -> str:
        """Compare one frame with a depth image; return what is wrong with that, or nothing."""
        try:
            known = self._depth.add(
                result.depth, result.depth_confidence,
                self._depth_views.rectify(decode_depth(message), self._camera), resize)
        except (ImageError, ValueError) as error:
            return f'depth image refused: {error}'
        if known < FEWEST_PIXELS:
            return f'the depth image is nearly empty: {known} pixels of use'
        return ''

    def _match_odometry(self) -> None:
        """Compare the positions for whose time the other odometry has come by now."""
        for _ in range(len(self._unmatched)):
            stamp_ns, position = self._unmatched.popleft()
            there = self._hint.at(stamp_ns)
            if there is not None:
                self._trajectory.add(position, there)
            else:
                self._unmatched.append((stamp_ns, position))
