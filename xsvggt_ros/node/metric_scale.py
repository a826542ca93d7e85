"""What `scale.mode` does: results in metres, as soon as it is known what the unit is."""

from collections import deque
from collections.abc import Mapping

from nav_msgs.msg import Odometry
import numpy as np
from rclpy.impl.rcutils_logger import RcutilsLogger

from xsvggt_ros.engine.scale import Scale, TrajectoryScale
from xsvggt_ros.engine.stream_engine import FrameResult
from xsvggt_ros.geometry import invert_transform
from xsvggt_ros.node.messages import nanoseconds
from xsvggt_ros.node.odometry_hint import OdometryHint
from xsvggt_ros.node.parameters import Value

UNMATCHED = 30  # frames for which odometry may be late


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

    def forget(self) -> None:
        """Begin anew: a new stream has another unit."""
        self.current = None
        self._trajectory.forget()
        self._unmatched.clear()

    def on_odometry(self, message: Odometry) -> None:
        """Remember where another odometry is, in metres."""
        position = message.pose.pose.position
        self._hint.add(nanoseconds(message.header), (position.x, position.y, position.z))

    def apply(
        self, result: FrameResult, stamp_ns: int, values: Mapping[str, Value],
    ) -> FrameResult:
        """Return the result in metres if the scale is known by now, else as it is."""
        scale = self._estimate(result, stamp_ns, values)
        if scale is None:
            return result
        if self.current is None or scale.metres != self.current.metres:
            self._logger.info(f"the network's unit is {scale.metres:.4g} m "
                              f'(+- {100 * scale.uncertainty:.1f} %)')
            self.current = scale
        return result.scaled(scale.metres)

    def _estimate(
        self, result: FrameResult, stamp_ns: int, values: Mapping[str, Value],
    ) -> Scale | None:
        mode = values['scale.mode']
        if mode == 'fixed':
            return Scale(values['scale.value'], 0.0)
        if mode == 'odometry':
            pose = invert_transform(result.camera_from_world)
            self._unmatched.append((stamp_ns, pose[:3, 3].cpu().numpy()))
            self._match_odometry()
            return self._trajectory.scale()
        return None

    def _match_odometry(self) -> None:
        """Compare the positions for whose time the other odometry has come by now."""
        for _ in range(len(self._unmatched)):
            stamp_ns, position = self._unmatched.popleft()
            there = self._hint.at(stamp_ns)
            if there is not None:
                self._trajectory.add(position, there)
            else:
                self._unmatched.append((stamp_ns, position))
