"""Where the camera is: TF, odometry, pose and path."""

from collections import deque
from copy import copy
import time

from geometry_msgs.msg import PoseStamped
import numpy as np
from std_msgs.msg import Header

from xsvggt_ros.geometry.frame_names import nanoseconds
from xsvggt_ros.mapping.trajectory import move_poses
from xsvggt_ros.mapping.transform_tree import LookupError_
from xsvggt_ros.node import messages
from xsvggt_ros.node.frames import level_from_optical, OdometryFrame, Pose
from xsvggt_ros.node.inputs.tf_listener import TfListener
from xsvggt_ros.node.message_fields import fill_xyz
from xsvggt_ros.node.outputs.map_output import Moves
from xsvggt_ros.node.outputs.motion import fill_motion
from xsvggt_ros.node.outputs.publishers import Publishers
from xsvggt_ros.node.outputs.robot_odometry import RobotOdometry, StreamPose
from xsvggt_ros.node.outputs.tf_output import Edge, OF_BODY, OF_MAP, TfOutput
from xsvggt_ros.node.settings import PoseSettings
from xsvggt_ros.node.status.fault_log import FaultLog
from xsvggt_ros.node.tracked_pose import LoopState, OdometryCorrection, TrackedPose
from xsvggt_ros.trajectory.landmark_map import landmark_map, LandmarkMap
from xsvggt_ros.trajectory.map_frame import MapFrame

_PAUSE = 0.01  # seconds between two looks for a transform that is awaited


class PoseOutputs:
    """Publishes the poses of one stream after the other."""

    def __init__(
        self, publishers: Publishers, faults: FaultLog, tf: TfListener, max_path: int,
    ) -> None:
        """
        Begin without a path, which will have at most ``max_path`` poses.

        tf: what others publish: where the camera is on the robot, and whose edges are taken.
        """
        self._publishers = publishers
        self._faults = faults
        self._tf = tf
        self._frame = OdometryFrame()
        self._path: deque[PoseStamped] = deque(maxlen=max_path)
        self._path_placements: deque[int] = deque(maxlen=max_path)
        self._map = self._path_map = MapFrame.none()   # of now; that the path has followed
        self.published = 0.0  # when the newest odometry was, in seconds of the steady clock
        self._robot = RobotOdometry(tf)
        self._edges = TfOutput(publishers, faults, tf)

    def forget(self) -> None:
        """Begin anew, at the origin."""
        self._frame = OdometryFrame()
        self._robot.forget()
        self._clear_path()

    def begin_stream(self) -> None:
        """Go on from here, with a new path: the network's world is another one now."""
        self._frame.begin_stream()
        self._robot.begin_stream()
        self._clear_path()

    def rescale(self, factor: float) -> np.ndarray:
        """Follow another unit; return the point [3] about which all is scaled."""
        centre = self._frame.rescale(factor)
        self._robot.rescale()
        for stamped in self._path:
            at = stamped.pose.position
            fill_xyz(at, centre + factor * (np.array((at.x, at.y, at.z)) - centre))
        return centre

    def publish(
        self, header: Header, world_from_camera: np.ndarray, settings: PoseSettings,
        tracked: TrackedPose | None = None, is_metric: bool = False,
    ) -> Pose | None:
        """
        Publish a camera's pose in the network's world; TF first, the others need it.

        tracked: how it came about, which tells covariance and twist. is_metric: whether lengths
        are metres, as those of an odometry of the robot's own are.
        Returns the camera's pose in the odometry frame; None, with nothing published, while it is
        not known where the camera is on the robot.
        """
        base_frame, odom_frame = settings.base_frame, settings.odom_frame
        base_from_optical = (
            self._base_from_optical(header, settings) if base_frame else np.eye(4))
        if base_from_optical is None:
            return None
        if not self._frame.is_placed:
            self._frame.place(
                base_from_optical if base_frame else level_from_optical(), world_from_camera)
        odom_from_camera = self._frame.odom_from_camera(world_from_camera)
        body_frame = base_frame or header.frame_id
        odom_from_body = odom_from_camera @ np.linalg.inv(base_from_optical)
        loops = None if tracked is None else tracked.loops
        if loops is not None:
            self._map = loops.map_frame
        self._edges.publish(
            self._edges_of(header, body_frame, odom_from_body, settings, tracked, is_metric))
        pose, publishers = Pose.from_matrix(odom_from_body), self._publishers
        odometry = messages.odometry(
            header, odom_frame, body_frame, pose, settings.position_covariance,
            settings.orientation_covariance)
        if tracked is not None:
            fill_motion(odometry, tracked, base_from_optical, odom_from_body)
        publishers.odometry.publish(odometry)
        self.published = time.monotonic()
        stamped = messages.pose_stamped(header, odom_frame, pose)
        self._path.append(stamped)
        self._path_placements.append(0 if loops is None else loops.placement)
        if publishers.pose.get_subscription_count():
            publishers.pose.publish(stamped)
        if publishers.path.get_subscription_count():
            self._move_path()
            publishers.path.publish(messages.path(self._path))
        if loops is not None and publishers.keyframes.get_subscription_count():
            placed = self._frame.placed(loops.map_frame.odom_from_map(loops.keyframes))
            publishers.keyframes.publish(messages.pose_array(
                header, odom_frame, placed @ np.linalg.inv(base_from_optical)))
        return Pose.from_matrix(odom_from_camera)

    @property
    def correction(self) -> OdometryCorrection:
        """Return what is told of the transform to the robot's own odometry."""
        return self._robot.correction

    def landmarks(self, loops: LoopState, is_metric: bool) -> LandmarkMap:
        """Return what keyframes see, in the odometry frame, in the unit of what is published."""
        frame = loops.map_frame
        return landmark_map(loops.kept, self._frame.placed(frame.odom_from_map(np.eye(4))),
                            frame.metres, is_metric)

    def moves(self, before: MapFrame, now: MapFrame) -> Moves:
        """Return how what placements have moved in the odometry frame, in its unit of now."""
        frame = copy(self._frame)
        return lambda placements: frame.in_odom(now.moves(before, placements))

    # Parts ---------------------------------------------------------------------------------------

    def _clear_path(self) -> None:
        self._path.clear()
        self._path_placements.clear()
        self._map = self._path_map = MapFrame.none()

    def _move_path(self) -> None:
        """Move the path to where closed loops say that it was."""
        before, self._path_map = self._path_map, self._map
        if before.corrections is self._map.corrections or not self._path:
            return
        poses = np.array([messages.numbers_of(stamped.pose) for stamped in self._path])
        move_poses(poses, np.array(self._path_placements, np.int64), self.moves(before, self._map))
        for stamped, numbers in zip(self._path, poses.tolist()):
            messages.fill_pose(stamped.pose, numbers)

    def _base_from_optical(
        self, header: Header, settings: PoseSettings,
    ) -> np.ndarray | None:
        """Return where the camera is on the robot [4, 4]; None, and a fault, if TF lacks it."""
        # A transform that has been missing for longer is not waited for again with every image.
        patience = 0.0 if self._faults.get('base') is not None else settings.tf_timeout
        end = time.monotonic() + patience
        while True:
            try:
                found = self._tf.lookup(
                    settings.base_frame, header.frame_id, nanoseconds(header))
            except LookupError_ as error:
                if time.monotonic() < end:
                    time.sleep(_PAUSE)
                    continue
                self._faults.report(
                    'base', f"the camera's pose on '{settings.base_frame}' is unknown: "
                    f'{error}. No TF, odometry and map until it is: publish the '
                    f"transform of '{header.frame_id}' (robot_state_publisher, or the camera's "
                    'driver), check base_frame and the frame_id of the images, or leave '
                    'base_frame empty', key='base')
                return None
            self._faults.clear('base')
            return found

    def _edges_of(
        self, header: Header, body_frame: str, odom_from_body: np.ndarray,
        settings: PoseSettings, tracked: TrackedPose | None, is_metric: bool,
    ) -> list[Edge]:
        """Return what TF is to have of a pose."""
        edges: list[Edge] = []
        odom_frame = settings.odom_frame
        if settings.publish_tf and settings.invert_tf:
            edges.append(Edge(
                body_frame, odom_frame, np.linalg.inv(odom_from_body), OF_BODY, header))
        elif settings.publish_tf and not settings.robot_odom_frame:
            edges.append(Edge(odom_frame, body_frame, odom_from_body, OF_BODY, header))
        map_from_odom = self._frame.map_from_odom(
            self._map.metric_map_from_odom, bool(self._map.is_localized))
        if settings.robot_odom_frame:
            robot = self._robot
            robot.follow(StreamPose(nanoseconds(header), map_from_odom @ odom_from_body,
                                    self._map, tracked, is_metric), settings)
            map_from_stream = robot.map_from_stream
            if settings.publish_map_tf and robot.map_from_robot is not None:
                edges.append(Edge(
                    settings.map_frame, settings.robot_odom_frame, robot.map_from_robot, OF_MAP,
                    messages.later(header, settings.transform_tolerance)))
        else:  # the frame of a saved map is not known before the stream is recognised in it
            map_from_stream = None if self._map.is_localized is False else np.eye(4)
        if settings.publish_map_tf and map_from_stream is not None:
            edges.append(Edge(settings.map_frame, odom_frame, map_from_stream @ map_from_odom,
                              OF_MAP, header))
        return edges
