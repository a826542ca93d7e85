"""An odometry from elsewhere for the trajectory: its motions, and where the camera is on it."""

import time

import numpy as np
from rclpy.impl.rcutils_logger import RcutilsLogger

from xsvggt_ros.geometry.frame_names import frame_name
from xsvggt_ros.mapping.odometry_hint import MAX_GAP, OdometryHint
from xsvggt_ros.mapping.transform_tree import LookupError_
from xsvggt_ros.node.inputs.hint_topic import HintFault, HintTopic, odometry_fault
from xsvggt_ros.node.inputs.tf_listener import TfListener
from xsvggt_ros.node.status.lasting_fault import LastingFault
from xsvggt_ros.trajectory.relative_odometry import RelativeOdometry, View

NOW = 'the odometry is used for the trajectory now'
AGAIN = 'the odometry is used for the trajectory again'
OTHERWISE = 'set trajectory.use_odometry to false'


class OdometryInput:
    """
    What `trajectory.use_odometry` needs: `odom_hint`, and TF from its body to the camera.

    Messages are taken by the executor's thread, as for the scale; views are asked for by the
    worker's.
    """

    def __init__(self, hint: OdometryHint, tf: TfListener, base_frame: str,
                 logger: RcutilsLogger) -> None:
        """
        Read `hint`, which somebody fills, and look cameras up in `tf`.

        base_frame: of the robot; the body of an odometry that does not name its own.
        """
        self.relative = RelativeOdometry(hint)
        self._hint = hint
        self._tf = tf
        self._base_frame = base_frame
        self._topic: HintTopic | None = None
        self._since = 0.0   # seconds of the steady clock, when it was listened to
        self._fault: HintFault | None = None   # of the newest image
        self._is_used = self._was_used = False   # for the newest image; for any, as was checked
        self._log = LastingFault(logger, AGAIN)

    # The executor's thread -----------------------------------------------------------------------

    def listen(self, topic: HintTopic) -> None:
        """Know from where messages are to come from now on."""
        self._topic, self._since = topic, time.monotonic()

    def check(self) -> str:
        """Return why poses are made without the odometry, empty if all is well; log what lasts."""
        fault = self._fault
        if self._topic is not None:
            fault = odometry_fault(self._hint, self._topic, self._since) or fault
        if fault is not None:
            text = f'poses are made without odometry (trajectory.use_odometry): {fault.text}'
            self._log.update(fault.key, text)
            return text
        if self._is_used:   # otherwise no image has shown yet whether all is well
            self._log.update(None, AGAIN if self._was_used else NOW)
            self._was_used = True
        return ''

    def description(self) -> str:
        """Return what has come on the topic, in words."""
        name = '' if self._topic is None else f'{self._topic.name}: '
        return name + self._hint.description()

    # The worker's thread -------------------------------------------------------------------------

    def view(self, frame_id: str, stamp_ns: int) -> View | None:
        """Return where the camera of an image is on the odometry's body; None: not known."""
        view, fault = self._look(frame_id, stamp_ns)
        # First what `check`, in another thread, asks last.
        self._is_used, self._fault = view is not None and fault is None, fault
        return view

    def _look(self, frame_id: str, stamp_ns: int) -> tuple[View | None, HintFault | None]:
        """Return the view of an image, and what is wrong; neither if nothing has come."""
        body = self._hint.body
        if body is None:
            return None, None      # `check` says so
        topic = 'odom_hint' if self._topic is None else self._topic.name
        body = body or self._base_frame
        if not body:
            return None, HintFault('body', (
                f'odometry on {topic} does not say of which frame of the robot it is: set its '
                f'child_frame_id in the odometry, or base_frame here, or {OTHERWISE}'))
        fault = None
        camera = frame_name(frame_id)
        distance = self._hint.distance(stamp_ns)
        if distance is not None and distance > MAX_GAP:
            fault = HintFault('stamps', (
                f'no odometry on {topic} matches an image: the nearest stamp is {distance:.3g} s '
                'away; both must have stamps of one clock'))
        try:
            return View(stamp_ns, self._lookup(body, camera, stamp_ns)), fault
        except LookupError_ as error:
            return None, HintFault('tf', (
                f"the camera's pose on '{body}', of which the odometry on {topic} is, is unknown: "
                f"{error}. Publish the transform from '{body}' to '{camera}' "
                "(robot_state_publisher, or the camera's driver), check the odometry's "
                f'child_frame_id and the frame_id of the images, or {OTHERWISE}'))

    def _lookup(self, body: str, camera: str, stamp_ns: int) -> np.ndarray:
        """Return body_from_camera [4, 4] at a time, or the newest; raises LookupError_."""
        try:
            return self._tf.lookup(body, camera, stamp_ns)
        except LookupError_:
            return self._tf.lookup(body, camera, None)
