"""The calibrations of all cameras: which camera took which image."""

from collections.abc import Sequence

from rclpy.impl.rcutils_logger import RcutilsLogger
from sensor_msgs.msg import CameraInfo

from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.geometry.frame_names import frame_name
from xsvggt_ros.node.inputs.camera_calibration import CameraCalibration
from xsvggt_ros.node.inputs.camera_sets import CameraImage
from xsvggt_ros.node.inputs.rig import RigGeometry
from xsvggt_ros.node.status.fault_log import FaultLog


class Calibrations:
    """The calibration of each camera; messages come in the executor's thread."""

    def __init__(
        self, topics: Sequence[str], cameras: Sequence[CameraCalibration],
        rig: RigGeometry | None, faults: FaultLog, logger: RcutilsLogger,
    ) -> None:
        """Take the cameras, the reference first. topics: of their images; rig: None for one."""
        self._topics = topics
        self._cameras = cameras
        self._rig = rig
        self._faults = faults
        self._logger = logger

    @property
    def reference(self) -> CameraCalibration:
        """Return the reference camera's."""
        return self._cameras[0]

    def on_message(self, camera: int, message: CameraInfo) -> None:
        """Remember a camera's calibration."""
        message.header.frame_id = frame_name(message.header.frame_id)
        self._cameras[camera].on_message(message)
        if self._rig is not None:
            self._rig.on_camera_info(message)

    def wait(self) -> None:
        """Wait once, before the first image is looked at, for calibrations that are to come."""
        for camera in self._cameras:
            camera.wait()

    def select(
        self, images: Sequence[CameraImage], height: int, width: int,
    ) -> tuple[list[CameraModel | None], str]:
        """
        Return the calibrated cameras of images of this size, None for one that is not known.

        And why the stream cannot go on with them, empty if it can. What is wrong with a
        calibration is reported.
        """
        cameras, reasons, faults = [], [], []
        for image in images:
            calibration = self._cameras[image.camera]
            described = calibration.description
            cameras.append(calibration.camera(
                image.content.header.frame_id, width, height, image.stamp_ns))
            if calibration.description != described:
                self._logger.info(f'calibration: {calibration.description}')
            faults.append(calibration.fault)
            reasons.append(calibration.restart_reason())
        if any(faults):
            self._faults.report('camera_info', '; '.join(filter(None, faults)))
        else:
            self._faults.clear('camera_info')
        return cameras, '; '.join(filter(None, reasons))

    def description(self) -> str:
        """Return what is made of camera_info, of each camera of a rig."""
        if len(self._cameras) == 1:
            return self.reference.description
        return '; '.join(f'{topic}: {camera.description}'
                         for topic, camera in zip(self._topics, self._cameras))
