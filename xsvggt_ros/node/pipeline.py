"""
From image messages to published reconstructions: the parts, and what the worker calls.

Three threads, each with a state of its own:

- The executor's stores what comes (`inputs/image_intake.py`), and only reads the rest.
- The worker's owns the engine and all that is decided before an image is published
  (`frame_processor.py`, `stream.py`).
- The publishing one (`outputs/publishing.py`) owns `outputs`, but only while it publishes an
  image. It gets what was decided as a `Location`, then as a `Reconstruction`, which nobody changes
  any more.

The worker waits for the publishing thread (`Publishing.join`) before it hands over the next image
and before anything else that touches `outputs`: reset, commands, the end. So images come out in
order, a command comes after all images before it, and the buffers that the next image is copied
to are no longer read.
"""

from collections.abc import Sequence
import traceback

from rclpy.impl.rcutils_logger import RcutilsLogger

from xsvggt_ros.msg import StreamStatus
from xsvggt_ros.node.deadline import Deadline
from xsvggt_ros.node.deferred_imports import run_deferred
from xsvggt_ros.node.frame_processor import FrameProcessor
from xsvggt_ros.node.inputs.calibrations import Calibrations
from xsvggt_ros.node.inputs.camera_calibration import CameraCalibration
from xsvggt_ros.node.inputs.image_intake import ImageIntake, ImageSet
from xsvggt_ros.node.inputs.odometry_input import OdometryInput
from xsvggt_ros.node.inputs.rig import RigGeometry
from xsvggt_ros.node.inputs.tf_listener import TfListener
from xsvggt_ros.node.loading import LoadedEngine
from xsvggt_ros.node.metric_scale import MetricScale
from xsvggt_ros.node.opening import Opening
from xsvggt_ros.node.outputs.publishers import Publishers
from xsvggt_ros.node.outputs.stream_outputs import StreamOutputs
from xsvggt_ros.node.settings import Settings, TrajectorySettings
from xsvggt_ros.node.status.fault_log import FaultLog
from xsvggt_ros.node.status.rejections import Rejections
from xsvggt_ros.node.status.stream_statistics import StreamStatistics, Ticket
from xsvggt_ros.node.status.stream_status import StatusPublisher
from xsvggt_ros.node.stream import Stream
from xsvggt_ros.node.stream_trajectory import StreamTrajectory
from xsvggt_ros.node.worker import LatestMailbox
from xsvggt_ros.trajectory.landmark_map import LandmarkMap


class Pipeline:
    """Connects the parts; the worker's thread calls `process`, `on_error` and the commands."""

    def __init__(
        self, loaded: LoadedEngine, publishers: Publishers, faults: FaultLog,
        logger: RcutilsLogger, settings: Settings, calibrations: Sequence[CameraCalibration],
        topics: Sequence[str], rig: RigGeometry | None, tf: TfListener,
        landmarks: LandmarkMap | None = None,
    ) -> None:
        """
        Take the engine over; `settings` may be replaced at any time by a changed copy.

        topics: of the images, one a camera; rig: where these cameras are, None for one camera; tf:
        what other nodes publish; landmarks: of a saved map, in which the stream finds itself.
        """
        self.loaded = loaded
        # On a CPU the network has all cores already: publishing beside it costs it more than that
        # time (docs/latency.md).
        self.overlaps = loaded.device.type == 'cuda'
        self.rig = rig
        self.intake = ImageIntake(topics, loaded.engine, settings, logger)
        self.calibrations = Calibrations(topics, calibrations, rig, faults, logger)
        self.statistics = StreamStatistics()
        opening = Opening(loaded.engine.config.first_frames, self.statistics)
        self.status = StatusPublisher(
            publishers, loaded, self.intake, self.statistics, faults, opening)
        self.deadline = Deadline()
        self.scale = MetricScale(logger)
        trajectory = settings.trajectory if rig is None else TrajectorySettings('network')
        self.odometry = make_odometry(settings, self.scale, tf, logger)
        self.outputs = StreamOutputs(
            loaded, publishers, faults, tf, settings, self.statistics, self.status, self.deadline)
        self.stream = Stream(
            loaded.engine, self.deadline, self.scale, self.outputs,
            StreamTrajectory(trajectory, settings.depth, logger, landmarks, self.odometry),
            self.statistics, faults, logger, opening)
        self._rejections = Rejections(loaded, faults, self.statistics)
        self.processor = FrameProcessor(
            loaded, self.stream, self.calibrations, topics, rig, publishers, self.outputs,
            self.statistics, self._rejections, faults, logger, self.status)
        self._settings = settings
        self._ticket = Ticket(0)  # of the images being processed
        self._faults = faults
        self._logger = logger

    @property
    def settings(self) -> Settings:
        """Return the settings that the next image is processed with."""
        return self._settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self._settings = self.intake.settings = settings

    def begin(self, mailbox: LatestMailbox) -> None:
        """Begin a new stream with all counters at zero; before the worker gets any work."""
        self._ticket = Ticket(0)
        self.intake.begin(mailbox)
        self.stream.begin(self.overlaps)

    def abandon(self) -> None:
        """Report nothing from now on: the node has let go of all this."""
        self._rejections.silence()

    # The worker's thread -------------------------------------------------------------------------

    def process(self, item: ImageSet) -> None:
        """Reconstruct the images that belong together and publish what came out."""
        self._ticket = Ticket(len(item.images))
        self.stream.repair()
        self.processor.process(item, self._ticket, self._settings)

    def on_error(self, error: Exception) -> None:
        """Count the images that could not be processed, and report why; the stream goes on."""
        if self._rejections.is_silent:
            return
        run_deferred()   # what was left out of torch might be missing
        self.stream.undo_frame()
        self._rejections.reject(self._ticket, error)
        self.stream.on_failure(error, self._settings.reset)

    def on_crash(self, error: BaseException) -> None:
        """Report what would have ended the worker's thread; the next image repairs the stream."""
        if self._rejections.is_silent:
            return
        name = type(error).__name__
        self.statistics.reject(self._ticket)
        self.stream.mark_broken()
        self._faults.report(
            'worker', f'the worker failed and was started again; {name}: {error}', key=name,
            details=''.join(traceback.format_exception(error)).rstrip())
        self.status.publish(StreamStatus.DEGRADED, self.scale.current)

    def end(self) -> None:
        """Let the image that is being published be the last; by the worker, when it ends."""
        self.stream.publishing.close()
        self.stream.trajectory.close()
        waiting = self.stream.opening.collected
        if waiting:
            self._logger.info(f'{waiting} images at the beginning of a stream were not '
                              'reconstructed: others to see with them did not come')

    # Commands ------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget the stream; the next image begins a new one where the camera was last."""
        self.intake.forget()
        self.stream.reset('requested')
        self._logger.info('stream reset: the next image begins a new one')

    def save_map(self) -> str:
        """Write the map of all images so far as files; raises MapError."""
        self.stream.publishing.join()
        saved = self.outputs.save_map(self._settings.map)
        self._logger.info(f'saved {saved}')
        return saved

    def save_map_and_log(self) -> str:
        """Do the same for a caller who may have stopped waiting: errors get into the log, too."""
        try:
            return self.save_map()
        except Exception as error:
            self._logger.error(f'the map was not saved: {error}')
            raise

    def publish_map_if_due(self) -> None:
        """Publish the map if a subscriber waits for it."""
        self.stream.publishing.join()
        self.outputs.publish_maps(self._settings)


def make_odometry(
    settings: Settings, scale: MetricScale, tf: TfListener, logger: RcutilsLogger,
) -> OdometryInput | None:
    """Return the odometry that the trajectory is to use; None if there is none."""
    if not settings.trajectory.use_odometry:
        return None
    return OdometryInput(scale.odometry, tf, settings.pose.base_frame, logger)
