"""What a bag knows beside the images: depth and odometry in metres, and where the camera sits."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
import logging
from typing import Any

import numpy as np

from xsvggt_ros.geometry.frame_names import frame_name
from xsvggt_ros.geometry.quaternions import matrix_from_quaternion
from xsvggt_ros.images.depth_codec import decode_compressed_depth, decode_depth
from xsvggt_ros.mapping.depth_hint import DepthHint, MAX_OFFSET
from xsvggt_ros.mapping.odometry_hint import OdometryHint, refusal
from xsvggt_ros.mapping.transform_tree import LookupError_, TransformTree
from xsvggt_ros.recordings.inputs.bag import Bag
from xsvggt_ros.recordings.inputs.bag_images import base_topic, frame_of, is_depth, stamp_of
from xsvggt_ros.recordings.inputs.bag_types import BagError, short_words
from xsvggt_ros.recordings.inputs.own_topics import own_topics
from xsvggt_ros.recordings.source_frame import FrameHints, SourceFrame

ODOMETRY, TF = 'nav_msgs/msg/Odometry', 'tf2_msgs/msg/TFMessage'
IMAGES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
REGISTERED = ('aligned', 'registered')   # in the names of depth topics that are
SECOND = 10 ** 9
_ODOMETRY_AHEAD = SECOND      # that much later than an image is looked at
_TF_AHEAD = SECOND // 2

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HintChoice:
    """
    What is wanted of a bag beside its images.

    scale: 'auto', 'depth', 'odometry' or 'none'. Topics: None takes the only one that can be
    meant. base_frame: whose poses are wanted; empty for the camera's.
    """

    scale: str = 'none'
    depth_topic: str | None = None
    odometry_topic: str | None = None
    base_frame: str = ''


class BagHints:
    """Finds for each image of a bag what else is known at its time; memory is bounded."""

    def __init__(self, bag: Bag, images: str, choice: HintChoice) -> None:
        """
        Choose the topics; raises BagError for one that is asked for and not there.

        images: the topic of the pictures.
        """
        self._bag, self._choice = bag, choice
        self._camera_frame = frame_of(bag.first(images))
        self._own, self._left_out = own_topics(bag), list[str]()
        self.depth_topic = self._choose_depth()
        self.odometry_topic = self._choose_odometry()
        if self._left_out:
            _log.warning('left out as a measure of metres, for this package made them: %s',
                         ', '.join(sorted(self._left_out)))
        if choice.base_frame:
            self._check_base()

    def describe(self) -> str:
        """Return in words where metres may come from."""
        told = [f'depth of {self.depth_topic}'] * bool(self.depth_topic)
        told += [f'odometry of {self.odometry_topic}'] * bool(self.odometry_topic)
        return ', '.join(told)

    def attached(self, frames: Iterable[SourceFrame]) -> Iterator[SourceFrame]:
        """Yield frames with what is known at their times."""
        tree = _Transforms(self._bag)
        depth = _Depth(self._bag, self.depth_topic) if self.depth_topic else None
        odometry = (_Odometry(self._bag, self.odometry_topic, tree, self._camera_frame)
                    if self.odometry_topic else None)
        base = self._choice.base_frame
        for frame in frames:
            stamp = frame.stamp_ns
            assert stamp is not None   # images of bags have one
            yield replace(frame, hints=FrameHints(
                depth.at(stamp) if depth is not None else None,
                odometry.at(stamp) if odometry is not None else None,
                tree.at(base, self._camera_frame, stamp) if base else None))

    # Choices -------------------------------------------------------------------------------------

    def _choose_depth(self) -> str | None:
        wanted = self._choice.depth_topic
        there = [name for name, topic in self._bag.topics.items() if topic.count
                 and not topic.fault and topic.type in IMAGES and is_depth(self._bag, topic)]
        if wanted is not None:
            return self._asked('--depth-topic', wanted, there)
        if self._choice.scale not in ('auto', 'depth'):
            return None
        there = self._of_others(there)
        # One that was recorded raw and compressed counts once; raw is taken.
        cameras = {base_topic(name): name for name in sorted(there, reverse=True)}
        fitting = [name for name in cameras.values() if self._is_registered(name)]
        if len(fitting) == 1:
            return fitting[0]
        why = ('which of them is registered to the images cannot be told' if fitting or there
               else 'there is none')
        if self._choice.scale == 'depth':
            raise BagError(f'--scale depth: {self._bag.path}: {why}: choose with --depth-topic'
                           f'{self._listed(there)}')
        if there:
            _log.warning('depth is not used for metres: %s; --depth-topic takes one%s', why,
                         _listed(there))
        return None

    def _is_registered(self, name: str) -> bool:
        frame = frame_of(self._bag.first(name))
        return (any(word in name for word in REGISTERED)
                or bool(frame) and frame == self._camera_frame)

    def _choose_odometry(self) -> str | None:
        wanted = self._choice.odometry_topic
        there = [name for name, topic in self._bag.topics.items()
                 if topic.type == ODOMETRY and topic.count and not topic.fault]
        if wanted is not None:
            return self._asked('--odometry-topic', wanted, there)
        if self._choice.scale not in ('auto', 'odometry'):
            return None
        there = self._of_others(there)
        if len(there) == 1:
            return there[0]
        if self._choice.scale == 'odometry':
            raise BagError(f'--scale odometry: {self._bag.path} has {len(there)} topics of '
                           f'odometry: choose with --odometry-topic{self._listed(there)}')
        if there:
            _log.warning('odometry is not used for metres: there are several; --odometry-topic '
                         'takes one%s', _listed(there))
        return None

    def _asked(self, option: str, wanted: str, there: list[str]) -> str:
        name = wanted if wanted in there else '/' + wanted.strip('/')
        if name not in there:
            kind = ODOMETRY if 'odometry' in option else 'depth image'
            raise BagError(f'{option} {wanted}: {self._bag.path} has no such topic of type {kind}'
                           f'{_listed(there)}')
        if name in self._own and self._choice.scale != 'none':
            _log.warning('%s %s: this package made it: its lengths are metres only if they were '
                         'when it was made', option, name)
        return name

    def _of_others(self, there: list[str]) -> list[str]:
        """Return the topics that this package did not make."""
        self._left_out += [name for name in there if name in self._own]
        return [name for name in there if name not in self._own]

    def _listed(self, there: list[str]) -> str:
        made = f' (this package made: {", ".join(self._left_out)})' * bool(self._left_out)
        return _listed(there) + made

    def _check_base(self) -> None:
        """Raise BagError unless TF knows where the camera is on the base, at some time."""
        base = self._choice.base_frame
        if not self._camera_frame:
            raise BagError(f'--base-frame {base}: the images have no frame_id')
        tree = _Transforms(self._bag)
        for _ in range(60):   # seconds: a joint may be published late
            try:
                tree.lookup(base, self._camera_frame, None)
                return
            except LookupError_ as error:
                told = error
            if not tree.read(SECOND):
                break
        raise BagError(f"--base-frame {base}: where the camera '{self._camera_frame}' is on it is "
                       f'not known: {told}')


# Topics that are read beside the images ----------------------------------------------------------

class _Reader:
    """The messages of a topic, as far as somebody has asked for them."""

    def __init__(self, bag: Bag, topic: str) -> None:
        self._topic, self._messages = topic, bag.messages(topic)
        self._told = False
        self.newest: int | None = None

    def until(self, stamp_ns: int) -> Iterator[tuple[int, Any]]:
        """Yield stamp and message of what was not asked for yet, up to one that is later."""
        while self.newest is None or self.newest <= stamp_ns:
            message = next(self._messages, None)
            if message is None:
                return
            try:
                content = message.decode(message.data)
                stamp = stamp_of(content, message.log_ns) if hasattr(
                    content, 'header') else message.log_ns
            except Exception as error:   # of the library, for bytes that nobody thought of
                if not self._told:
                    _log.warning('%s: messages of it are left out, such as one at %d ns: %s',
                                 self._topic, message.log_ns, short_words(error))
                    self._told = True
                continue
            self.newest = stamp
            yield stamp, content


class _Depth:
    """Depth images at the times of others."""

    def __init__(self, bag: Bag, topic: str) -> None:
        self._topic = topic
        self._reader, self._hint = _Reader(bag, topic), DepthHint()
        self._told = False

    def at(self, stamp_ns: int) -> np.ndarray | None:
        """Return depth in metres, None if there is none at that time."""
        for stamp, message in self._reader.until(stamp_ns + MAX_OFFSET):
            self._hint.add(stamp, message)
        message = self._hint.at(stamp_ns)
        if message is None:
            return None
        try:
            return decode_depth(message) if hasattr(message, 'encoding') else (
                decode_compressed_depth(message))
        except ValueError as error:   # ImageError
            if not self._told:
                _log.warning('%s: %s', self._topic, error)
                self._told = True
            return None


class _Odometry:
    """The camera's position by an odometry, at the times of images."""

    def __init__(self, bag: Bag, topic: str, tree: '_Transforms', camera_frame: str) -> None:
        self._reader = _Reader(bag, topic)
        self._hint = OdometryHint(lambda: (self._reader.newest or 0) / SECOND)
        self._tree, self._camera_frame = tree, camera_frame

    def at(self, stamp_ns: int) -> tuple[np.ndarray, int] | None:
        """Return the camera's position in metres and the piece; None if it is not known."""
        for stamp, message in self._reader.until(stamp_ns + _ODOMETRY_AHEAD):
            self._to_camera(message, stamp)
            self._hint.take(message)
        return self._hint.at(stamp_ns)

    def _to_camera(self, message: Any, stamp_ns: int) -> None:
        """Move a pose of the odometry's body to the camera on it, if TF knows where that is."""
        body = frame_name(getattr(message, 'child_frame_id', ''))
        if not body or body == self._camera_frame or refusal(message):
            return
        body_from_camera = self._tree.at(body, self._camera_frame, stamp_ns)
        if body_from_camera is None:
            return
        pose = message.pose.pose
        turn = pose.orientation
        arm = matrix_from_quaternion((turn.x, turn.y, turn.z, turn.w)) @ body_from_camera[:3, 3]
        place = pose.position
        place.x, place.y, place.z = (float(value) for value in (
            place.x + arm[0], place.y + arm[1], place.z + arm[2]))


class _Transforms:
    """TF of a bag, read along with its images; what it said last counts where it has gaps."""

    def __init__(self, bag: Bag) -> None:
        self._tree = TransformTree(lambda words: _log.warning('%s', words))
        self._start = bag.span[0]
        self._moving = [_Reader(bag, name) for name, topic in bag.topics.items()
                        if name.endswith('tf') and topic.type.endswith('/TFMessage')
                        and not topic.fault]
        self._last: dict[tuple[str, str], np.ndarray] = {}
        for name, topic in bag.topics.items():
            if name.endswith('tf_static') and topic.type.endswith('/TFMessage'):
                for _, message in _Reader(bag, name).until(bag.span[1] + SECOND):
                    for edge in message.transforms:
                        self._tree.add(edge, static=True)

    def lookup(self, target: str, source: str, stamp_ns: int | None) -> np.ndarray:
        """Return target_from_source [4, 4]; raises LookupError_."""
        return self._tree.lookup(target, source, stamp_ns)

    def read(self, nanoseconds_more: int) -> bool:
        """Read so much more of what moves; return whether there was any."""
        newest = max((reader.newest or self._start for reader in self._moving), default=0)
        return self._read(newest + nanoseconds_more)

    def at(self, target: str, source: str, stamp_ns: int) -> np.ndarray | None:
        """Return target_from_source [4, 4] at a time, or as it was last; None if never known."""
        self._read(stamp_ns + _TF_AHEAD)
        for when in (stamp_ns, None):
            try:
                found = self._tree.lookup(target, source, when)
            except LookupError_:
                if when is not None and (target, source) in self._last:
                    break
                continue
            self._last[target, source] = found
            return found
        return self._last.get((target, source))

    def _read(self, until_ns: int) -> bool:
        some = False
        for reader in self._moving:
            for _, message in reader.until(until_ns):
                some = True
                for edge in message.transforms:
                    self._tree.add(edge, static=False)
        return some


def _listed(names: list[str]) -> str:
    return '; there are: ' + ', '.join(sorted(names)) if names else '; there is none'
