"""From the image callbacks to the worker's mailbox: stamps, senders, sets of a rig, rate."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
import time

from rclpy.impl.rcutils_logger import RcutilsLogger
from sensor_msgs.msg import CompressedImage, Image

from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.geometry.frame_names import frame_name, nanoseconds
from xsvggt_ros.node.inputs.camera_sets import CameraImage, CameraSets
from xsvggt_ros.node.inputs.sender_watch import SenderWatch
from xsvggt_ros.node.rate_limit import RateLimit
from xsvggt_ros.node.settings import Settings
from xsvggt_ros.node.status.fault_log import FaultLog
from xsvggt_ros.node.status.stream_statistics import RateMeter
from xsvggt_ros.node.worker import LatestMailbox


@dataclass(frozen=True)
class ImageSet:
    """The images that enter the stream together, the reference camera's first."""

    images: Sequence[CameraImage]
    arrival: float  # of the last one, in seconds of the steady clock


class ImageIntake:
    """
    Checks every image when it arrives, and keeps the newest set for the worker.

    Images arrive in the executor's thread; `begin` is called while there is no worker, and
    `forget` by the worker.
    """

    def __init__(
        self, topics: Sequence[str], engine: StreamEngine, settings: Settings,
        logger: RcutilsLogger,
    ) -> None:
        """Expect images on ``topics``, one a camera. engine: whose stream they are for."""
        self.topics = topics
        self.settings = settings  # may be replaced at any time by a changed copy
        self.enabled = True  # False: images are ignored
        self.meter = RateMeter()
        # The causes are outside of this node.
        self.clock_jumps = FaultLog(lambda text: logger.warning(text))
        self.refused = 0  # images whose stamps are not the stream's
        self._passed_over = 0  # images skipped for input.max_rate
        self._engine = engine
        self._rate = RateLimit()
        self._mailbox = LatestMailbox()
        self._senders = [SenderWatch() for _ in topics]
        self._sets: CameraSets | None = None  # of a rig

    def begin(self, mailbox: LatestMailbox) -> None:
        """Begin with all counters at zero; images go to this mailbox."""
        settings = self.settings.input
        self._mailbox = mailbox
        self.enabled = True
        self._sets = None if len(self.topics) == 1 else CameraSets(
            self.topics, settings.sync_slop, settings.camera_timeout, time.monotonic())
        self._senders = [SenderWatch() for _ in self.topics]
        self.refused = self._passed_over = 0
        self._rate.forget()
        self.clock_jumps.clear('jump')

    def forget(self) -> None:
        """Take whatever stamp comes next."""
        for sender in self._senders:
            sender.forget()

    def on_image(
        self, message: Image | CompressedImage, camera: int = 0, publisher: Hashable = None,
    ) -> None:
        """
        Keep an image for the worker, a rig's with those of its set; the newest set waits.

        publisher: who has sent it, None if the middleware does not say.
        """
        self.meter.tick()
        if not self.enabled:
            return
        message.header.frame_id = frame_name(message.header.frame_id)
        now, stamp_ns = time.monotonic(), nanoseconds(message.header)
        sender = self._senders[camera]
        # The stream goes by the reference's clock; what does not fit to it finds no set.
        follows_jumps = camera == 0 and self.settings.reset.on_time_jump
        refusal = sender.admit(stamp_ns, now, message.header.frame_id, publisher, follows_jumps,
                               self._engine.frames)
        if refusal is not None:
            self.refused += 1
            if not sender.fault(now):  # else that is reported, once, and explains this too
                self.clock_jumps.report('jump', f'image refused: {refusal}', key='jump')
            return
        images = ((CameraImage(0, stamp_ns, message, sender.era),) if self._sets is None
                  else self._sets.add(camera, stamp_ns, message, now, sender.era))
        if images is None:
            return
        if self._rate.is_due(images[0].stamp_ns, now, self.settings.input.max_rate):
            self._mailbox.put(ImageSet(images, now), len(images))
        else:
            self._passed_over += len(images)

    @property
    def received(self) -> int:
        """Return how many images have come, without those that wait for the rest of their set."""
        return (self._mailbox.received + self._passed_over + self.refused
                + (self._sets.dropped if self._sets else 0))

    @property
    def dropped(self) -> int:
        """Return how many images were replaced by newer ones, or found no set."""
        return self._mailbox.dropped + (self._sets.dropped if self._sets else 0)

    @property
    def skipped(self) -> int:
        """Return how many images were left out for input.max_rate."""
        return self._passed_over

    def camera_faults(self) -> list[tuple[int, str]]:
        """Return which cameras of a rig are missing, and why."""
        return self._sets.missing(time.monotonic()) if self._sets and self.enabled else []

    def sender_faults(self) -> list[tuple[int, str]]:
        """Return of which cameras the images come from several senders, and how that shows."""
        now = time.monotonic()
        faults = [(camera, sender.fault(now)) for camera, sender in enumerate(self._senders)]
        return [(camera, fault) for camera, fault in faults if fault]
