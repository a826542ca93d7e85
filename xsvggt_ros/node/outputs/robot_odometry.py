"""Where the odometry of the robot is in the map: its drift is corrected above its own frame."""

from collections import deque
from dataclasses import dataclass
import math

import numpy as np

from xsvggt_ros.mapping.transform_tree import LookupError_
from xsvggt_ros.node.inputs.tf_listener import TfListener
from xsvggt_ros.node.settings import PoseSettings
from xsvggt_ros.node.tracked_pose import OdometryCorrection, TrackedPose
from xsvggt_ros.trajectory.corrections import Corrections
from xsvggt_ros.trajectory.map_frame import MapFrame
from xsvggt_ros.trajectory.projection import rotation_vector

LATE = 3       # images for which TF may be late
_WAITING = 30  # images whose poses wait for TF
_LOST = ('hold', 'motion', 'network')  # sources of a pose that say less than any odometry


@dataclass(frozen=True)
class StreamPose:
    """
    Where the robot is, as the stream has it, at an image.

    stream_from_body [4, 4]: `base_frame` in the map that the stream makes, which is the saved
    map's if it was found in one. is_metric: whether its lengths are metres.
    """

    stamp_ns: int
    stream_from_body: np.ndarray
    map_frame: MapFrame
    tracked: TrackedPose | None
    is_metric: bool

    @property
    def is_lost(self) -> bool:
        """Return whether the camera was not located."""
        return self.tracked is not None and self.tracked.source in _LOST

    @property
    def is_found_again(self) -> bool:
        """Return whether landmarks of before a loss were recognised."""
        return self.tracked is not None and self.tracked.source == 'matches'

    @property
    def evidence(self) -> tuple[int, int]:
        """Return the numbers of loops closed, and of keyframes that a saved map agrees with."""
        loops = None if self.tracked is None else self.tracked.loops
        if loops is None:
            return 0, 0
        found = loops.localization
        return loops.report.found, 0 if found is None else found.confirmations


class RobotOdometry:
    """
    Follows `robot_odom_frame`, in which others publish the robot, through the node's streams.

    The map begins as the robot's odometry frame. What the stream and the odometry say of the same
    motion may differ: the stream is right, and the difference is in map_from_robot [4, 4]. Where
    the stream says nothing - it begins anew, its unit is not known, the camera is lost - the
    odometry is right, and map_from_robot stays as it was.
    """

    def __init__(self, tf: TfListener) -> None:
        """Look the robot up in ``tf``."""
        self._tf = tf
        self.forget()

    def forget(self) -> None:
        """Begin anew: the map is the odometry's frame again."""
        self.map_from_robot: np.ndarray | None = None   # None: nothing to publish yet
        self._stamp_ns = 0
        self.begin_stream()

    def begin_stream(self) -> None:
        """Go on with another stream, whose map is placed where the odometry says it is."""
        # Both map_from_stream [4, 4]: as the stream began, and since the camera was last lost.
        self._began: np.ndarray | None = None
        self.map_from_stream: np.ndarray | None = None
        self._was_lost = False
        self._evidence = 0, 0
        self._corrections: Corrections | None = None
        self.correction = OdometryCorrection('not known yet')
        self.rescale()

    def rescale(self) -> None:
        """Forget poses in a unit that is no longer the stream's."""
        self._waiting: deque[tuple[int, np.ndarray]] = deque(maxlen=_WAITING)

    def follow(self, pose: StreamPose, settings: PoseSettings) -> None:
        """Take where the robot is by the stream, and what TF says of that by now."""
        if pose.stamp_ns < self._stamp_ns:   # a recording that begins again
            self.forget()
        self._stamp_ns = pose.stamp_ns
        self._follow_map(pose)
        fault = self._why_not(pose)
        if not fault and pose.is_lost:
            self._was_lost = True
            self.rescale()
            self.correction = OdometryCorrection(self._told('the camera is lost'))
        elif not fault:
            self._was_lost &= not pose.is_found_again
            self._waiting.append((pose.stamp_ns, pose.stream_from_body))
            fault = self._match(pose.map_frame.is_localized is True, settings)
        if fault:
            frame = f"'{settings.map_frame}' -> '{settings.robot_odom_frame}'"
            state = self._told(fault)
            self.correction = OdometryCorrection(state, f'{frame} is {state}')

    # Parts ---------------------------------------------------------------------------------------

    def _follow_map(self, pose: StreamPose) -> None:
        """Go back to where the stream's map is, once something joins the two ends of a loss."""
        if pose.map_frame.corrections is not self._corrections:
            self._corrections = pose.map_frame.corrections
            self.rescale()
        if pose.evidence != self._evidence:
            self._evidence = pose.evidence
            self.map_from_stream = self._began

    def _why_not(self, pose: StreamPose) -> str:
        """Return why the stream cannot be compared with an odometry; empty if it can."""
        if pose.map_frame.is_localized is False:
            return 'the stream is not localised in the saved map yet (map.localize_in)'
        if pose.is_metric:
            return ''
        if pose.map_frame.is_localized:
            return ('lengths are not metres: neither is the saved map (map.localize_in). Save one '
                    'with a scale.mode, or set a scale.mode here')
        return ('lengths are not metres yet. The status Input says what scale.mode waits for: '
                'mostly that the robot moves')

    def _match(self, is_localized: bool, settings: PoseSettings) -> str:
        """Compare the newest pose for whose time TF has the robot; return what is wrong."""
        missing = ''
        for index in reversed(range(len(self._waiting))):
            stamp_ns, stream_from_body = self._waiting[index]
            try:
                robot_from_body = self._tf.lookup(
                    settings.robot_odom_frame, settings.base_frame, stamp_ns)
            except LookupError_ as error:
                missing = missing or str(error)
                continue
            for _ in range(index + 1):
                self._waiting.popleft()
            self._compare(stream_from_body, robot_from_body, is_localized)
            return ''
        if len(self._waiting) <= LATE:
            return ''
        return (f"TF does not say where '{settings.base_frame}' is in "
                f"'{settings.robot_odom_frame}' at the times of the images: {missing}. Start the "
                "robot's odometry and have it publish TF, check robot_odom_frame and base_frame, "
                'or leave robot_odom_frame empty')

    def _compare(
        self, stream_from_body: np.ndarray, robot_from_body: np.ndarray, is_localized: bool,
    ) -> None:
        before = np.eye(4) if self.map_from_robot is None else self.map_from_robot
        if self._began is None:
            self._began = (np.eye(4) if is_localized else
                           before @ robot_from_body @ np.linalg.inv(stream_from_body))
        if self.map_from_stream is None:
            self.map_from_stream = self._began
        elif self._was_lost:
            self.map_from_stream = before @ robot_from_body @ np.linalg.inv(stream_from_body)
        self._was_lost = False
        self.map_from_robot = (
            self.map_from_stream @ stream_from_body @ np.linalg.inv(robot_from_body))
        self.correction = OdometryCorrection('corrects ' + self._amount())

    def _told(self, why: str) -> str:
        held = ('not published' if self.map_from_robot is None
                else f'held at {self._amount()}, and not corrected')
        return f'{held}: {why}'

    def _amount(self) -> str:
        assert self.map_from_robot is not None
        angle = math.degrees(np.linalg.norm(rotation_vector(self.map_from_robot[:3, :3])))
        return f'{np.linalg.norm(self.map_from_robot[:3, 3]):.3f} m, {angle:.2f} degrees'
