"""
What `scale.mode` does: results in metres, as soon as it is known what the unit is.

A scale that is known stays when its source is lost: the network's unit is one for the whole
stream, and going back to it would tear map and path apart. It is no longer kept up then, which is
a fault that is told; a new stream begins without it.
"""

from collections import deque
from collections.abc import Sequence
import time

from nav_msgs.msg import Odometry
import numpy as np
from rclpy.impl.rcutils_logger import RcutilsLogger
from sensor_msgs.msg import Image

from xsvggt_ros.engine.stream_engine import FrameResult
from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.geometry.frame_names import frame_name, nanoseconds
from xsvggt_ros.geometry.se3 import invert_transform
from xsvggt_ros.images.depth_codec import decode_depth
from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.images.rectify import DepthViews
from xsvggt_ros.mapping.baseline_scale import BaselineScale
from xsvggt_ros.mapping.depth_hint import DepthHint
from xsvggt_ros.mapping.depth_scale import DepthScale, MIN_PIXELS
from xsvggt_ros.mapping.odometry_hint import MAX_GAP, OdometryHint
from xsvggt_ros.mapping.scale import Scale
from xsvggt_ros.mapping.trajectory_scale import TrajectoryScale
from xsvggt_ros.node.inputs.hint_topic import HintFault, HintTopic, odometry_fault
from xsvggt_ros.node.inputs.image_codec import ImageError
from xsvggt_ros.node.inputs.rig import seen_transforms
from xsvggt_ros.node.settings import ScaleSettings
from xsvggt_ros.node.status.lasting_fault import LastingFault

UNMATCHED = 30  # frames for which odometry may be late
UNMATCHED_DEPTH = 3  # frames for which a depth image may be late
KEY = 30  # characters of a message by which it is known, before there are numbers


class MetricScale:
    """The scale of one stream; hints come from the executor's thread, frames from the worker's."""

    def __init__(self, logger: RcutilsLogger) -> None:
        """Begin without a scale."""
        self.current: Scale | None = None  # None: lengths are in the network's unit
        self._logger = logger
        self.odometry = OdometryHint()
        self._trajectory = TrajectoryScale()
        # Positions in the network's unit for whose time no odometry has come yet.
        self._unmatched: deque[tuple[int, np.ndarray]] = deque()
        self._depth_hint = DepthHint()
        self._depth = DepthScale()
        self._unmatched_depth: deque[tuple[int, str, FrameResult]] = deque()
        self._baseline = BaselineScale()
        self._camera: CameraModel | None = None
        self._depth_views = DepthViews()
        self.fault = ''  # why there is no newer scale, empty if all is well
        self._compared = ''  # why the newest images could not be compared
        self._topic: HintTopic | None = None
        self._since = 0.0  # seconds of the steady clock, when it was listened to
        self._log = LastingFault(logger, 'metric scale is updated again')

    def metres_of(self, mode: str) -> float | None:
        """Return the metres of a unit; NaN while they are not known yet, None if never."""
        if mode == 'none':
            return None
        return float('nan') if self.current is None else self.current.metres

    # The executor's thread -----------------------------------------------------------------------

    def listen(self, topic: HintTopic) -> None:
        """Know from where metres are to come from now on."""
        self._topic, self._since = topic, time.monotonic()

    def on_odometry(self, message: Odometry) -> None:
        """Remember where another odometry is, in metres."""
        self.odometry.take(message)

    def on_depth(self, message: Image) -> None:
        """Remember a depth image of the reference camera."""
        message.header.frame_id = frame_name(message.header.frame_id)
        self._depth_hint.add(nanoseconds(message.header), message)

    def hint_fault(self) -> HintFault | None:
        """Return what is wrong with what comes on the topic, or what follows from it."""
        if self._topic is None:
            return HintFault(self.fault[:KEY], self.fault) if self.fault else None
        if self._topic.mode == 'odometry':
            fault = odometry_fault(self.odometry, self._topic, self._since)
        else:
            heard = self._depth_hint.heard
            fault = self._topic.silence(
                time.monotonic() - max(heard or 0.0, self._since),
                heard is not None and heard >= self._since)
        if fault is not None:
            return fault
        return HintFault(
            self.fault[:KEY], f'{self.fault} ({self._topic.name})') if self.fault else None

    def hint_description(self) -> str:
        """Return what has come on the topic, in words; empty if none is listened to."""
        if self._topic is None:
            return ''
        came = (self.odometry.description() if self._topic.mode == 'odometry' else
                f'{self._depth_hint.received} images')
        return f'{self._topic.name}: {came}'

    def check(self, mode: str, rig_fault: str) -> str:
        """
        Return why there is no scale yet, or none that is kept up; empty if all is well.

        What lasts gets into the log, too. rig_fault: why the cameras' positions are not known.
        """
        fault = self.hint_fault()
        if mode == 'baseline' and rig_fault:
            fault = HintFault('rig', rig_fault)
        what = ('metric scale is no longer updated' if self.current is not None
                else 'metric scale is not known yet')
        text = f'{what} (scale.mode {mode}): {fault.text}' if fault is not None else ''
        self.report(fault, text)
        return text

    def report(self, fault: HintFault | None, text: str) -> None:
        """Have a fault that lasts in the log, more and more seldom, and when it is over."""
        self._log.update(None if fault is None else fault.key, text)

    # The worker's thread -------------------------------------------------------------------------

    def forget(self) -> None:
        """Begin anew: a new stream has another unit."""
        self.current = None
        self._trajectory.forget()
        self._unmatched.clear()
        self._depth.forget()
        self._unmatched_depth.clear()
        self._baseline.forget()
        self.fault = self._compared = ''

    def update(
        self, results: Sequence[FrameResult], stamp_ns: int, settings: ScaleSettings,
        resize: Resize, positions: np.ndarray | None, camera: CameraModel | None = None,
        frame_id: str = '',
    ) -> Scale | None:
        """
        Return what is to be multiplied with the results of one set of images; None: not known.

        positions [K, 3]: where the other cameras are in the frame of the first one, in metres;
        None: not known. camera: with which the first image was rectified, if it was; frame_id: the
        first image's.
        """
        self._camera = camera
        scale = self._estimate(results, stamp_ns, settings, resize, positions, frame_id)
        if scale is None:
            return None
        if self.current is None or scale.metres != self.current.metres:
            self._logger.info(f'metric scale: {scale.metres:.4g} m per unit of the network '
                              f'(+- {100 * scale.uncertainty:.1f} %)')
            self.current = scale
        return self.current

    def _estimate(
        self, results: Sequence[FrameResult], stamp_ns: int, settings: ScaleSettings,
        resize: Resize, positions: np.ndarray | None, frame_id: str,
    ) -> Scale | None:
        mode, bound = settings.mode, settings.max_uncertainty
        if mode == 'fixed':
            return Scale(settings.value, 0.0)
        if mode == 'odometry':
            pose = invert_transform(results[0].camera_from_world)
            self._unmatched.append((stamp_ns, pose[:3, 3].cpu().numpy()))
            self._match_odometry()
            scale = self._trajectory.scale(bound)
            self.fault = self._compared or self._trajectory.refusal
            return scale
        if mode == 'depth':
            self._unmatched_depth.append((stamp_ns, frame_id, results[0]))
            self._match_depth(resize)
            scale = self._depth.scale(bound)
            self.fault = self._compared or self._depth.refusal
            return scale
        if mode == 'baseline':
            if positions is not None:
                seen = [transform[:3, 3] for transform in seen_transforms(results)[1:]]
                self._baseline.add(np.stack(seen), positions)
            scale = self._baseline.scale(bound)
            self.fault = self._baseline.refusal
            return scale
        return None

    def _match_depth(self, resize: Resize) -> None:
        """Compare the frames for whose time a depth image has come by now."""
        for _ in range(len(self._unmatched_depth)):
            stamp_ns, frame_id, result = self._unmatched_depth.popleft()
            message = self._depth_hint.at(stamp_ns)
            if message is None:
                self._unmatched_depth.append((stamp_ns, frame_id, result))
            else:
                self._compared = self._compare_depth(result, message, resize, frame_id)
        if len(self._unmatched_depth) > UNMATCHED_DEPTH:
            stamp_ns, *_ = self._unmatched_depth.popleft()
            distance = self._depth_hint.distance(stamp_ns)
            self._compared = (
                'no depth image has arrived' if distance is None else
                f'no depth image matches an image: the nearest stamp is {distance:.3g} s away')

    def _compare_depth(
        self, result: FrameResult, message: Image, resize: Resize, frame_id: str,
    ) -> str:
        """Compare one frame with a depth image; return what is wrong with that, or nothing."""
        try:
            known = self._depth.add(
                result.depth, result.depth_confidence,
                self._depth_views.rectify(decode_depth(message), self._camera), resize)
        except (ImageError, ValueError) as error:
            return f'depth image refused: {error}'
        if known < MIN_PIXELS:
            return f'the depth image is nearly empty: {known} valid pixels'
        here = message.header.frame_id
        if self._depth.refusal and here and frame_id and here != frame_id:
            return (f"{self._depth.refusal}. The depth images are in the frame '{here}', the "
                    f"images in '{frame_id}': depth must be registered to the image")
        return ''

    def _match_odometry(self) -> None:
        """Compare the positions for whose time the other odometry has come by now."""
        for _ in range(len(self._unmatched)):
            stamp_ns, position = self._unmatched.popleft()
            there = self.odometry.at(stamp_ns)
            if there is not None:
                self._trajectory.add(position, *there)
                self._compared = ''
            else:
                self._unmatched.append((stamp_ns, position))
        if len(self._unmatched) > UNMATCHED:
            stamp_ns, _ = self._unmatched.popleft()
            distance = self.odometry.distance(stamp_ns)
            self._compared = (
                'no valid odometry has arrived' if distance is None else
                f'no odometry matches an image: the nearest stamp is {distance:.3g} s away'
                if distance > MAX_GAP / 2 else
                'the odometry has gaps or jumps at the times of the images')
