"""
The arguments of stream.launch.py: defaults, what is allowed, and the files they name.

Neither ROS nor torch is imported: `ros2 launch` may run on another Python than the node does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
import math
from pathlib import Path
import re
from typing import TypeVar

import yaml

from xsvggt_ros.model.public_weights import ALL as ALL_PUBLIC
from xsvggt_ros.model.public_weights import fetched_file, how_to_fetch

Value = str | int | float | bool | list[str]
Number = TypeVar('Number', int, float)
NAME = r'[A-Za-z_]\w*'
NAMES = f'{NAME}(/{NAME})*'
TOPIC = f'(~?/)?{NAMES}'
SHIPPED = ('small', 'random')  # checkpoints that are no files
A_TOPIC = 'the name of a topic: letters, digits, _ and /, no word beginning with a digit'
A_LIST = "a list of topics, for example ['/left/image_raw','/right/image_raw']"
MILLION = 1_000_000


@dataclass(frozen=True)
class Argument:
    """One argument; the type of its default is its type."""

    default: Value
    description: str
    parameter: str = ''  # of the node; empty: meant for the launch file itself
    choices: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None  # smallest and largest
    multiple: int = 1
    pattern: str = ''  # a regular expression, and in words:
    expected: str = ''

    @property
    def text(self) -> str:
        """Return the default as it would be given."""
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)

    @property
    def help(self) -> str:  # noqa: A003
        """Return what --show-args says, the allowed numbers included."""
        limits = self._limits()
        return f'{self.description} ({limits})' if limits else self.description

    def constraints(self) -> str:
        """Return in words what is allowed."""
        if self.choices:
            return 'one of ' + ', '.join(self.choices)
        if isinstance(self.default, bool):
            return 'true or false'
        if isinstance(self.default, list):
            return A_LIST
        if isinstance(self.default, str):
            return self.expected or 'a text'
        kind = 'a whole number' if isinstance(self.default, int) else 'a number'
        return ', '.join(filter(None, [kind, self._limits()]))

    def read(self, text: str) -> Value:
        """Return the value that a text stands for; raise ValueError if it stands for none."""
        if isinstance(self.default, bool):
            return {'true': True, '1': True, 'false': False, '0': False}[text.lower()]
        if isinstance(self.default, int):
            return self._checked(int(text))
        if isinstance(self.default, float):
            return self._checked(float(text))
        if isinstance(self.default, list):
            return self._list(text)
        if self.choices:
            return self.choices[self.choices.index(text.lower())]
        if self.pattern and not re.fullmatch(self.pattern, text, re.ASCII):
            raise ValueError(text)
        return text

    def _checked(self, number: Number) -> Number:
        low, high = self.limits or (-math.inf, math.inf)
        allowed = math.isfinite(number) and low <= number <= high
        if not allowed or (self.multiple > 1 and number % self.multiple):
            raise ValueError(number)
        return number

    def _list(self, text: str) -> list[str]:
        names = yaml.safe_load(text)
        if not isinstance(names, list) or not all(
                isinstance(name, str) and re.fullmatch(f'({TOPIC})?', name, re.ASCII)
                for name in names):
            raise ValueError(text)
        return names or ['']

    def _limits(self) -> str:
        if self.limits is None:
            return ''
        low, high = self.limits
        multiple = f', a multiple of {self.multiple}' if self.multiple > 1 else ''
        return f'{low:.7g} to {high:.7g}{multiple}'


# The parameters of the node that people change most.
PARAMETERS = {
    'checkpoint': Argument(
        'small', 'Weights: path of a .safetensors, .pt or .pth file; "small", which comes with '
        'the package, was trained in synthetic rooms and is modest in real ones; "streamvggt", '
        'once `xsvggt weights` has fetched it; or "random", to test the plumbing',
        'model.checkpoint'),
    'device': Argument(
        'auto', 'Where the network runs: auto, cpu, cuda or cuda:N', 'model.device',
        pattern=r'auto|cpu|cuda(:\d+)?', expected='auto, cpu, cuda or cuda:N'),
    'image_size': Argument(
        0, 'Width in pixels to which images are resized; smaller is faster and coarser. 0: the '
        'width the network was trained with', 'model.image_size', limits=(0, 2044),
        multiple=14),
    'max_tokens': Argument(
        7300, 'Budget of the KV cache, in tokens per layer', 'cache.max_tokens', limits=(1,
        MILLION)),
    'memory_budget_mb': Argument(
        0.0, 'Memory for the caches in MB, instead of max_tokens. 0: max_tokens counts',
        'cache.memory_budget_mb', limits=(0, MILLION)),
    'policy': Argument(
        'frame_coverage', 'Which tokens stay in a full cache; with full it has no budget',
        'cache.policy', choices=('full', 'sliding_window', 'random', 'xstream',
                                 'xstream_per_head', 'frame_coverage', 'value_aware',
                                 'lingbot')),
    'quantization': Argument(
        'int4', 'How the cache is packed', 'cache.quantization',
        choices=('none', 'int8', 'int4')),
    'image_transport': Argument(
        'raw', 'raw, or compressed for sensor_msgs/CompressedImage on <image_topic>/compressed',
        'image_transport', choices=('raw', 'compressed')),
    'image_topics': Argument(
        [''], 'Images of a rig, in place of image_topic, the reference camera first: '
        "['/left/image_raw','/right/image_raw']", 'image_topics'),
    'max_rate': Argument(
        0.0, 'Images that are taken a second at most. 0: all', 'input.max_rate', limits=(0,
        1000)),
    'deadline_ms': Argument(
        0.0, 'Latency to keep, in ms: late images are skipped, and a network that is too slow '
        'remembers less. 0: none', 'deadline_ms', limits=(0, 60_000)),
    'trajectory_mode': Argument(
        'optimized', "Source of the poses: network, the network's own; tracked, corners tracked "
        'on its depth; optimized, the same with bundle adjustment and closed loops',
        'trajectory.mode', choices=('network', 'tracked', 'optimized')),
    'use_odometry': Argument(
        False, 'Whether odom_hint_topic carries the pose while the camera sees nothing, and joins '
        'keyframes: true or false', 'trajectory.use_odometry'),
    'scale_mode': Argument(
        'none', "Where metres come from: none leaves the network's own unit, fixed takes "
        'scale_value, odometry compares with odom_hint_topic, depth with depth_hint_topic, '
        'baseline with the places of the cameras of a rig', 'scale.mode',
        choices=('none', 'fixed', 'odometry', 'depth', 'baseline')),
    'scale_value': Argument(
        1.0, "Metres in the network's unit, with scale_mode:=fixed", 'scale.value',
        limits=(1e-6, MILLION)),
    'odom_frame': Argument('xsvggt_odom', 'Frame in which the camera is tracked', 'odom_frame'),
    'base_frame': Argument(
        '', 'Frame of the robot whose pose is published, for example base_link. Empty: the frame '
        'of the images', 'base_frame'),
    'map_frame': Argument('map', 'Parent of odom_frame, with publish_map_tf', 'map_frame'),
    'publish_tf': Argument(
        True, 'Whether to publish the edge from odom_frame to base_frame, or to the frame of the '
        'images: true or false', 'publish_tf'),
    'invert_tf': Argument(
        False, 'Whether odom_frame hangs below the robot: true for robots whose frames have a '
        'root already, or false', 'invert_tf'),
    'publish_map_tf': Argument(
        False, 'Whether to publish the edge from map_frame to odom_frame: true or false',
        'publish_map_tf'),
    'robot_odom_frame': Argument(
        '', "Frame of the robot's own odometry, for example odom, whose drift is corrected with "
        'publish_map_tf. Needs base_frame and scale_mode. Empty: none', 'robot_odom_frame'),
    'localize_in': Argument(
        '', 'Saved map in which the stream finds itself: the .landmarks.safetensors file beside '
        "a map. map_frame is then that map's, with publish_map_tf. Empty: none",
        'map.localize_in'),
    'autostart': Argument(
        True, 'Whether the node configures and activates itself: true, or false if a lifecycle '
        'manager does it', 'autostart'),
}

# What is meant for the launch file. Files are those of the package's folder config/.
OTHERS = {
    'image_topic': Argument(
        '/camera/image_raw', 'Images to reconstruct (sensor_msgs/Image)', pattern=TOPIC,
        expected=A_TOPIC),
    'camera_info_topic': Argument(
        'auto', 'Calibration of that camera. auto: camera_info beside image_topic', pattern=TOPIC,
        expected=A_TOPIC),
    'odom_hint_topic': Argument(
        'odom_hint', 'Odometry in metres (nav_msgs/Odometry), with scale_mode:=odometry or '
        'use_odometry:=true', pattern=TOPIC, expected=A_TOPIC),
    'depth_hint_topic': Argument(
        'depth_hint', 'Depth in metres (sensor_msgs/Image), registered to the images, with '
        'scale_mode:=depth', pattern=TOPIC, expected=A_TOPIC),
    'params_file': Argument(
        'stream.yaml', 'Parameter file of the node. What it says counts for every parameter whose '
        'argument is not given'),
    'namespace': Argument(
        '', 'Namespace of the node and its relative topics', pattern=f'/|/?{NAMES}/?',
        expected='names of letters, digits and _ with / between them, none beginning with a '
        'digit'),
    'node_name': Argument(
        'xsvggt', 'Name of the node, and of its topics and services', pattern=NAME,
        expected='a name of letters, digits and _ that does not begin with a digit'),
    'use_sim_time': Argument(
        'auto', 'Whether time comes from /clock: true or false; auto: if a bag is played',
        choices=('auto', 'true', 'false')),
    'log_level': Argument(
        'info', 'Least severity of log messages',
        choices=('debug', 'info', 'warn', 'error', 'fatal')),
    'respawn': Argument(
        False, 'Whether to start the node again, after 2 s, when it has ended: true or false'),
    'on_exit': Argument(
        'stop', 'What ends with the node: stop, what this file has started (RViz, a recording), '
        'or shutdown, the whole launch, with all that includes this file',
        choices=('stop', 'shutdown')),
    'exit_on_failure': Argument(
        True, 'Whether a node that cannot start ends, with exit code 1: true, or false to '
        'configure it again later'),
    'input': Argument(
        '', 'Published on image_topic: a camera of this machine (camera:0 or /dev/video0), a '
        'video, a folder of images, or a bag of ROS 1 or 2. Empty: images come from elsewhere'),
    'input_topic': Argument(
        '', 'Images of input that are published, of a bag that has several cameras. Empty: those '
        'of its only camera', pattern=f'({TOPIC})?', expected=A_TOPIC),
    'calibration': Argument(
        '', 'Calibration of input: ROS camera_info, OpenCV, ASL or Kalibr YAML. Empty: one that '
        'lies in it or beside it'),
    'bag': Argument('', 'Recording (rosbag2) to play, with all its topics. Empty: none'),
    'bag_rate': Argument(
        1.0, 'Speed of the recording, 1.0 as recorded', limits=(0.001, 1000)),
    'bag_delay': Argument(
        5.0, 'Seconds before the recording starts: time for loading the weights', limits=(0,
        86_400)),
    'loop': Argument(
        False, 'Whether a recording, bag or input, begins again when it has ended: true or false'),
    'rviz': Argument(False, 'Whether to show points, TF and images in RViz: true or false'),
    'rviz_config': Argument('stream.rviz', 'What RViz shows'),
}
FILES = ('params_file', 'rviz_config')
ALL = PARAMETERS | OTHERS


def read(texts: Mapping[str, str]) -> dict[str, Value]:
    """Return the values of arguments; raise ValueError that names each one that is wrong."""
    values: dict[str, Value] = {}
    faults = []
    for name, text in texts.items():
        try:
            values[name] = ALL[name].read(text.strip())
        except (ValueError, KeyError, yaml.YAMLError):
            faults.append(f"{name}:='{text}' must be {ALL[name].constraints()}")
    if faults:
        raise ValueError('; '.join(faults))
    return values


def check_files(values: Mapping[str, Value]) -> None:
    """Raise ValueError that names each argument whose file is not there or not what it should."""
    faults = [_missing_parameters(str(values['params_file']))]
    checkpoint = str(values.get('checkpoint', SHIPPED[0]))
    if checkpoint in ALL_PUBLIC:
        faults.append('' if fetched_file(checkpoint).is_file() else how_to_fetch(checkpoint))
    elif checkpoint not in SHIPPED:
        faults.append(_missing('checkpoint', checkpoint, 'or use small, which comes with the '
                               'package'))
    if values.get('localize_in'):
        faults.append(_missing('localize_in', str(values['localize_in']), 'or leave it empty'))
    if values['bag']:
        faults.append(_missing_bag(str(values['bag'])))
    faults += _wrong_input(values)
    if values['calibration']:
        faults.append(_missing('calibration', str(values['calibration']), 'or leave it empty'))
    if values['rviz']:
        faults.append(_missing('rviz_config', str(values['rviz_config'])))
    if any(faults):
        raise ValueError('; '.join(filter(None, faults)))


def without_effect(values: Mapping[str, Value]) -> list[str]:
    """Return a line for each argument that was given, and that others leave without effect."""
    mode = values.get('scale_mode')
    lines = [
        f'{hint} has no effect with scale_mode:={mode}; set scale_mode:={wanted}{other}'
        for hint, wanted, other in (
            ('odom_hint_topic', 'odometry', ', or use_odometry:=true for the trajectory'),
            ('depth_hint_topic', 'depth', ''))
        if values[hint] != ALL[hint].default and mode is not None and mode != wanted
        and not (hint == 'odom_hint_topic' and values.get('use_odometry'))]
    if values['loop'] and not values['bag'] and (
            not values['input'] or is_camera(str(values['input']))):
        lines.append('loop has no effect without a recording (bag or input)')
    if values['input_topic'] and not values['input']:
        lines.append('input_topic has no effect without input; image_topic is what the node '
                     'listens to')
    if values['calibration'] and not values['input']:
        lines.append('calibration has no effect without input; the calibration of other images '
                     'comes on camera_info_topic')
    return lines


def is_camera(name: str) -> bool:
    """Return whether an input is a camera of this machine."""
    return re.fullmatch(r'camera:\d+|/dev/video\d+', name, re.ASCII) is not None


def expanded(path: str) -> str:
    """Return a path with ~ replaced, which no shell does behind := ."""
    return str(Path(path).expanduser())


def camera_info_beside(image_topic: str) -> str:
    """Return the topic camera_info beside that of images: relative if that one is."""
    return ''.join(image_topic.rpartition('/')[:2]) + 'camera_info'


def full_name(namespace: str, topic: str) -> str:
    """Return the name that a topic has for a node in a namespace."""
    if topic.startswith('/'):
        return topic
    return '/'.join(['', *filter(None, namespace.split('/')), topic])


def _missing(name: str, path: str, advice: str = '') -> str | None:
    file = Path(path).expanduser()
    if file.is_file():
        return None
    what = 'is a folder; a file is needed' if file.is_dir() else 'there is no such file'
    return ', '.join(filter(None, [f"{name}:='{path}': {what}", advice]))


def _wrong_input(values: Mapping[str, Value]) -> list[str]:
    """Return what is wrong with the images that are to be published."""
    given = str(values['input'])
    faults: list[str] = []
    if not given:
        return faults
    if values['bag']:
        faults.append('bag and input are both given: one of them publishes the images')
    if not is_camera(given) and not Path(given).expanduser().exists():
        faults.append(f"input:='{given}': there is no such file or folder; cameras are camera:0 "
                      'or /dev/video0')
    topics = values.get('image_topics')
    if isinstance(topics, list) and any(topics):
        faults.append('input and image_topics are both given: input is one camera, published on '
                      'image_topic, to which a rig does not listen')
    if values.get('image_transport') == 'compressed':
        faults.append('input is published as raw images, to which a node with '
                      'image_transport:=compressed does not listen; leave that away')
    return faults


def _missing_bag(path: str) -> str | None:
    bag = Path(path).expanduser()
    if not bag.exists():
        return f"bag:='{path}': there is no such file or folder"
    kinds = ('metadata.yaml', '*.mcap', '*.db3')
    if bag.is_dir() and not any(file for kind in kinds for file in bag.glob(kind)):
        return f"bag:='{path}': there is no recording in this folder (metadata.yaml, .mcap, .db3)"
    return None


def _missing_parameters(path: str) -> str | None:
    fault = _missing('params_file', path)
    if fault is not None:
        return fault
    try:
        content = yaml.safe_load(Path(path).expanduser().read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        return f"params_file:='{path}' cannot be read: {' '.join(str(error).split())}"
    if not _has_parameters(content):
        return (f"params_file:='{path}' has no parameters: it must begin as config/stream.yaml "
                "does, with '/**:' and below it 'ros__parameters:'")
    return None


def _has_parameters(content: object) -> bool:
    """Return whether a parameter file's content has parameters of a node, in any namespace."""
    return isinstance(content, dict) and (
        'ros__parameters' in content or any(map(_has_parameters, content.values())))
