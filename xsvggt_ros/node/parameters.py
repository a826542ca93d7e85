"""
Every parameter of the node in one table: name, default, range, description, when it may change.

`config/stream.yaml` and `docs/parameters.md` are kept equal to it by a test.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    InvalidTopicNameException,
)
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from rclpy.validate_topic_name import validate_topic_name

from xsvggt_ros.geometry.frame_names import frame_name
from xsvggt_ros.kernels.availability import CHOICES as KERNELS
from xsvggt_ros.kernels.packing import SCHEMES
from xsvggt_ros.kv_cache.config import QUANTIZATIONS, STORAGE_DTYPES
from xsvggt_ros.kv_cache.retention import POLICIES
from xsvggt_ros.mapping.point_cloud import SOURCES
from xsvggt_ros.mapping.scale import MAX_UNCERTAINTY, METRES
from xsvggt_ros.model.kinds import SIZES
from xsvggt_ros.model.weight_quantization import WEIGHTS
from xsvggt_ros.node.parameter_names import suggestion
from xsvggt_ros.trajectory.config import MODES

Value = str | int | float | bool | list[str]
FRAMES = ('odom_frame', 'map_frame', 'base_frame', 'robot_odom_frame')
GRAPHS = ('off', 'auto', 'on')
SCALE_MODES = ('none', 'fixed', 'odometry', 'depth', 'baseline')
# Of a list: ROS 2 knows no type of an empty one, and launch files cannot give it
# (https://github.com/ros2/rclpy/issues/912), so an empty name stands for nothing.
EMPTY = ['']


@dataclass(frozen=True)
class Parameter:
    """One parameter; ``dynamic`` ones may change at run time, others while unconfigured."""

    name: str
    default: Value
    description: str
    limits: tuple[float, float] | None = None  # smallest and largest
    choices: tuple[str, ...] = ()
    dynamic: bool = False
    advanced: bool = False  # for tuning and debugging; users rarely need it

    def fault(self, value: Value) -> str | None:
        """Return what is wrong with a value of the right type, or None."""
        if isinstance(value, list):
            names = listed(value)
            fault = next(filter(None, map(_topic_fault, names)), None)
            if fault is not None:
                return f'{self.name} must be names of topics; {fault}'
            if len(set(names)) < len(names):
                return f'{self.name} must be different names; got {value}'
            return None
        if self.name in FRAMES and (value or self.default) and not frame_name(str(value)):
            return f"{self.name} must be the name of a frame; got '{value}'"
        if self.choices and value not in self.choices:
            return f"{self.name} must be one of {', '.join(self.choices)}; got '{value}'"
        if self.limits and not self.limits[0] <= float(value) <= self.limits[1]:
            return f'{self.name} must be {self.constraints()}; got {value}'
        return None

    def constraints(self) -> str:
        """Return the allowed values in words, empty if there is no limit."""
        if self.choices:
            return 'one of ' + ', '.join(self.choices)
        if self.limits:
            return ' to '.join(map(_plain, self.limits))
        return ''

    def descriptor(self) -> ParameterDescriptor:
        """Return what `ros2 param describe` shows."""
        when = 'any time' if self.dynamic else 'while the node is unconfigured'
        descriptor = ParameterDescriptor(
            name=self.name, description=f'{self.description} Can be set {when}.',
            additional_constraints=self.constraints() if self.choices else '')
        if self.limits:
            low, high = self.limits
            if isinstance(self.default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=float(low), to_value=float(high))]
            else:
                descriptor.integer_range = [
                    IntegerRange(from_value=int(low), to_value=int(high))]
        return descriptor


MILLION = 1_000_000

TABLE: tuple[Parameter, ...] = (
    Parameter('model.checkpoint', 'small', 'Weights: path of a .safetensors, .pt or .pth file; '
              '"small", which comes with the package, was trained in synthetic rooms and is '
              'modest in real ones; the name of weights that `xsvggt weights` has fetched, such '
              'as "streamvggt"; or "random" for random weights, which only test the '
              'installation.'),
    Parameter('model.size', 'auto', 'Network size: auto reads it from the checkpoint (random '
              'weights: small).', choices=('auto', *SIZES), advanced=True),
    Parameter('model.device', 'auto', 'Where the network runs: auto (the GPU if there is one), '
              'cpu, cuda or cuda:N.'),
    Parameter('model.dtype', 'auto', 'Precision of the network; on a GPU the heads always '
              'compute in fp32. auto: bf16 or fp16 on a GPU; on a CPU fp32, but bf16 for the '
              'full size if the processor has instructions for it.',
              choices=('auto', 'bf16', 'fp16', 'fp32')),
    Parameter('model.weights', 'auto', 'How weights are stored: float, in model.dtype; '
              "int8_camera, the camera head's in 8 bits; int8, all transformers', half of the "
              'memory of bf16. int8_dynamic multiplies in 8 bits too, on a CPU; fp8 on a GPU that '
              'can (Ada, Hopper and newer). auto: int8_dynamic for the full size on a CPU that is '
              'measured to gain by it, if model.dtype is auto; float elsewhere.', choices=WEIGHTS),
    Parameter('model.camera_iterations', 4, 'Refinement iterations of the camera pose; fewer '
              'are faster and less accurate.', limits=(1, 4)),
    Parameter('model.first_frames', 1, 'Images that begin a stream together, if the network can '
              '(docs/models.md): poses begin with the last.', limits=(1, 32), advanced=True),
    Parameter('model.image_size', 0, 'Width in pixels to which images are resized, a multiple '
              'of 14; 0 is the width that the model was trained with. Smaller is faster and '
              'coarser.', limits=(0, 2044)),
    Parameter('model.threads', 0, 'Threads on a CPU. 0: one for a small network in the C++ '
              'kernels (two are 20 % faster, and much slower where others need the cores); else '
              'all cores, or OMP_NUM_THREADS.', limits=(0, 256), advanced=True),
    Parameter('model.kernels', 'portable', 'Implementation of the operations on queries, keys '
              'and packed tokens: portable is PyTorch, triton uses Triton kernels on a GPU, '
              'auto uses them where they run. The Triton kernels were checked on a CPU only, '
              'not on a GPU yet. Small networks on a CPU use C++ kernels in any case.',
              choices=KERNELS, advanced=True),
    Parameter('model.graphs', 'off', 'Replay the steady part of a frame from CUDA graphs once '
              'the cache is full: on needs a GPU, auto uses them where there is one. Not run on '
              'a GPU yet.', choices=GRAPHS, advanced=True),
    Parameter('model.warmup', False, 'Process an empty 4:3 image while the node is configured: '
              'initialization does not delay the first real one then.', advanced=True),
    Parameter('cache.policy', 'frame_coverage', 'Which tokens are kept when the budget is '
              'reached; full keeps all, and memory grows for as long as the stream runs.',
              choices=tuple(POLICIES)),
    Parameter('cache.max_tokens', 7300, 'Budget of the KV cache in tokens per layer. The first '
              'and the newest frame are always kept. The default takes the memory in 4 bits '
              "that the paper's 2048 tokens take in bf16, and holds seven frames of 518x392.",
              limits=(1, MILLION)),
    Parameter('cache.memory_budget_mb', 0.0, 'Memory budget of all caches together in MB (10^6 '
              'bytes); the tokens per layer follow from it. 0: cache.max_tokens is the budget.',
              limits=(0.0, 1e6)),
    Parameter('cache.pool_size', 16, 'Patch queries averaged into one when tokens are scored '
              '(policy xstream).', limits=(1, 4096), advanced=True),
    Parameter('cache.camera_max_tokens', 2048, "Budget of the camera head's KV cache in tokens "
              'per layer, 4 tokens a frame.', limits=(8, MILLION), advanced=True),
    Parameter('cache.quantization', 'int4', 'Bits of stored keys and values: int4 and int8 pack '
              'them, none stores floats.', choices=QUANTIZATIONS),
    Parameter('cache.scheme', 'token', 'How keys and values are packed: token, each token with '
              'a scale of its own, or kcvt, the scheme of the paper.', choices=SCHEMES,
              advanced=True),
    Parameter('cache.seed', 0, 'Seed of the policy random.', limits=(0, MILLION), advanced=True),
    Parameter('cache.storage', 'auto', 'Floating-point type of what is not packed; auto is the '
              'precision of the network.', choices=('auto', *STORAGE_DTYPES), advanced=True),
    Parameter('image_topics', EMPTY, 'Image topics of a camera rig, the reference camera first. '
              "Empty, which in ROS 2 is written ['']: one camera, on the topic `image`."),
    Parameter('image_transport', 'raw', 'What is subscribed to: raw is `image`, compressed is '
              '`image/compressed`, JPEG or PNG (sensor_msgs/CompressedImage).',
              choices=('raw', 'compressed')),
    Parameter('input.reliability', 'best_effort', 'Reliability of the image subscription; '
              'reliable receives nothing from a camera that publishes best effort.',
              choices=('best_effort', 'reliable')),
    Parameter('input.keyframe_stride', 1, 'Every n-th image of a stream is a keyframe, kept in '
              'the KV cache; the others are reconstructed and not remembered: the same budget '
              'reaches farther back.', limits=(1, 1000), dynamic=True),
    Parameter('input.tracking_size', 0, 'Width in pixels, a multiple of 14, at which images '
              'that are no keyframes are processed; faster and coarser. Published images keep '
              'their size. 0: the same as keyframes.', limits=(0, 2044)),
    Parameter('input.sync_slop', 0.02, 'Maximum difference in seconds between the stamps of '
              'images of a rig that belong together.', limits=(0.0, 10.0)),
    Parameter('input.camera_timeout', 2.0, 'Seconds after which a rig continues without a '
              'camera whose images do not arrive or do not match; diagnostics name it.',
              limits=(0.1, 3600.0)),
    Parameter('input.max_rate', 0.0, 'Maximum rate in Hz at which images, or sets of a rig, are '
              'processed, by their stamps, which may be early by a tenth of the period; the '
              'others are skipped. 0: no limit.', limits=(0.0, 1000.0), dynamic=True),
    Parameter('use_camera_info', True, 'Use the calibration on `camera_info`: its intrinsics '
              'are used for ~/points and published, instead of predicted ones.'),
    Parameter('rectify', True, 'Rectify images if `camera_info` has distortion; false: images '
              'are rectified already, as on topics called image_rect.'),
    Parameter('cloud.source', 'depth', 'Points of ~/points: depth unprojects the depth map, '
              "points uses the network's point map.", choices=SOURCES, dynamic=True),
    Parameter('cloud.stride', 1, 'Every n-th pixel in both directions becomes a point.',
              limits=(1, 64), dynamic=True),
    Parameter('cloud.confidence_percentile', 20.0, 'Percentage of the points, those of lowest '
              'confidence, that is dropped.', limits=(0.0, 99.0), dynamic=True),
    Parameter('cloud.max_error', 0.5, 'Points whose depth is expected to be off by a larger '
              'share are dropped; 0 keeps all. No effect with weights that do not say what their '
              'confidences mean.', limits=(0.0, 100.0), dynamic=True),
    Parameter('cloud.max_range', 0.0, 'Points farther from the camera are dropped, in the '
              "cloud's unit; 0 keeps all.", limits=(0.0, float(MILLION)), dynamic=True),
    Parameter('cloud.organized', False, '~/points has one point for every pixel, height x '
              'width, NaN where it is dropped (not for a rig); false: only the points that are '
              'kept.'),
    Parameter('cloud.max_rate', 0.0, 'Maximum rate of ~/points in Hz, by the stamps of the '
              'images; the map receives every cloud. 0: one for each image.',
              limits=(0.0, 1000.0), dynamic=True),
    Parameter('map.enable', True, 'Accumulate the clouds in the voxel map of ~/map_points and '
              '~/save_map.'),
    Parameter('map.voxel_size', 0.0, "Edge of the map's voxels, in the stream's unit: metres if "
              'the scale is metric. 0: chosen automatically, and doubled before the map is full.',
              limits=(0.0, 1e6), dynamic=True),
    Parameter('map.max_points', MILLION, 'Capacity of the map in points, rounded up to a power '
              'of two; 52 bytes each, allocated once.', limits=(64, 100 * MILLION)),
    Parameter('map.publish_period', 2.0, 'Minimum period of ~/map_points in seconds.',
              limits=(0.1, 3600.0), dynamic=True),
    Parameter('map.save_directory', '~/.ros/xsvggt', 'Directory for the files of ~/save_map; '
              'created if it does not exist.', dynamic=True),
    Parameter('map.localize_in', '', 'Saved map in which the stream finds itself: the '
              '.landmarks.safetensors file that ~/save_map or `xsvggt reconstruct` writes beside '
              'a map. map_frame is then the frame of that map (publish_map_tf), and lengths have '
              'its unit, as soon as the stream is recognised. Needs trajectory.mode optimized and '
              'one camera. Empty: none.'),
    Parameter('occupancy.resolution', 0.0, "Edge of the cells of ~/occupancy, in the stream's "
              'unit. 0: about 200 cells across what the camera sees.', limits=(0.0, 1e6),
              dynamic=True),
    Parameter('occupancy.min_height', 0.0, 'Least height of an obstacle above the floor, in the '
              "stream's unit. 0: a tenth of the camera's height.", limits=(0.0, 1e6),
              dynamic=True),
    Parameter('occupancy.max_height', 0.0, 'Greatest height of an obstacle above the floor. 0: '
              "1.1 times the camera's height.", limits=(0.0, 1e6), dynamic=True),
    Parameter('occupancy.publish_period', 2.0, 'Minimum period of ~/occupancy in seconds.',
              limits=(0.1, 3600.0), dynamic=True),
    Parameter('odom_frame', 'xsvggt_odom', 'Frame in which the camera is tracked: x forward, y '
              'left, z up, origin at the first image.'),
    Parameter('map_frame', 'map', 'Parent of odom_frame, with publish_map_tf; its origin is '
              'where each stream begins; with robot_odom_frame, that of the odometry at first.'),
    Parameter('base_frame', '', 'Frame of the robot whose pose is published, for example '
              'base_link; TF must say where the camera is on it. Empty: the frame of the images.'),
    Parameter('publish_tf', True, 'Publish the transform from odom_frame to base_frame, or to '
              'the frame of the images.', dynamic=True),
    Parameter('invert_tf', False, 'Publish that transform inverted, with odom_frame as child of '
              'the robot: for robots whose frames have a root already.'),
    Parameter('publish_map_tf', False, 'Publish the transform from map_frame to odom_frame, '
              'which takes the jumps of new streams, scale and closed loops.', dynamic=True),
    Parameter('robot_odom_frame', '', "Frame of the robot's own odometry, whose driver publishes "
              'the transform from it to base_frame; map_frame becomes its parent, in place of '
              'odom_frame that of base_frame. Needs publish_map_tf and metres. Empty: none.'),
    Parameter('transform_tolerance', 0.5, 'Seconds by which the transform to robot_odom_frame is '
              'post-dated: it holds until the next.', limits=(0.0, 10.0), dynamic=True),
    Parameter('tf_timeout', 0.2, 'Seconds to wait for the transform from base_frame to the camera '
              'at the time of an image.', limits=(0.0, 10.0)),
    Parameter('position_covariance', 0.01, 'Variance of the position in ~/odometry where poses '
              "are the network's (trajectory.mode), a constant, in the cloud's unit squared.",
              limits=(0.0, 1e6), dynamic=True),
    Parameter('orientation_covariance', 0.01, 'Variance of the orientation in ~/odometry where '
              "poses are the network's (trajectory.mode), a constant, in rad^2.",
              limits=(0.0, 1e6), dynamic=True),
    Parameter('scale.mode', 'none', "Source of metric scale: none leaves the network's own "
              'unit, fixed uses scale.value, odometry compares the trajectory with `odom_hint` '
              '(nav_msgs/Odometry), depth compares depth with `depth_hint` (sensor_msgs/Image, '
              'registered to the image), baseline compares the predicted camera positions of a '
              'rig with TF.', choices=SCALE_MODES),
    Parameter('scale.value', 1.0, 'Metric scale, metres per unit of the network, if scale.mode '
              'is fixed.', limits=(METRES[0], METRES[1]), dynamic=True),
    Parameter('scale.max_uncertainty', MAX_UNCERTAINTY, 'Maximum relative uncertainty (one '
              'standard deviation) of a scale estimate that is used; above it the scale stays '
              "as it was, or lengths stay in the network's unit, and diagnostics say so.",
              limits=(0.001, 0.5), dynamic=True),
    Parameter('trajectory.mode', 'optimized', "Source of the poses: network, the network's own; "
              'tracked, corners tracked on its depth; optimized, the same, with bundle adjustment '
              'of a window of keyframes and loop closure in threads of their own. The latter two '
              'estimate covariance and twist of ~/odometry; with several cameras (image_topics) '
              "poses are the network's whatever is set here.", choices=MODES),
    Parameter('trajectory.use_odometry', False, 'Use the odometry on `odom_hint` '
              '(nav_msgs/Odometry: wheels, visual-inertial) in the trajectory: it carries the '
              'pose while the camera sees nothing, and joins keyframes. Needs trajectory.mode '
              'tracked or optimized, and TF from its child_frame_id to the camera.'),
    Parameter('depth.correction', 'auto', "With trajectory.mode optimized: auto corrects the "
              "network's depth smoothly to agree with the landmarks; off leaves it.",
              choices=('off', 'auto')),
    Parameter('path.max_poses', 1000, 'Number of poses on ~/path, the newest ones.',
              limits=(1, 100_000)),
    Parameter('reset.on_lost', False, 'Begin a new stream at once when a predicted pose is not '
              'finite or implausible; otherwise such images are only refused.', dynamic=True),
    Parameter('reset.on_failures', 5, 'Begin a new stream after so many images in a row that '
              'could not be reconstructed; 0: never.', limits=(0, 1000), dynamic=True),
    Parameter('reset.on_time_jump', True, 'Begin a new stream when the stamps of the images '
              'jump and stay there (a bag that loops, a clock that was set), and refuse single '
              'images whose stamps jump. false: accept every stamp.', dynamic=True),
    Parameter('reset.on_gap', 0.0, 'Begin a new stream when two consecutive stamps are farther '
              'apart than this, in seconds; 0: never.', limits=(0.0, 86400.0), dynamic=True),
    Parameter('deadline_ms', 0.0, 'Target latency in ms from the receipt of an image to the end '
              'of publishing: images that would be later are skipped, and if the network is too '
              'slow its history is shortened (not possible with cache.policy full). 0: none.',
              limits=(0.0, 60_000.0), dynamic=True),
    Parameter('autostart', True, 'Configure and activate at once, without a lifecycle manager.'),
    Parameter('exit_on_failure', False, 'Exit with code 1 if autostart cannot configure or '
              'activate the node; false: the node stays, reports the reason on /diagnostics, '
              'and can be configured again. stream.launch.py sets it to true.'),
    Parameter('diagnostics.image_timeout', 5.0, 'Seconds without an image after which '
              'diagnostics report an error.', limits=(0.1, 3600.0), dynamic=True),
    Parameter('diagnostics.frame_timeout', 2.0, 'Maximum processing time of an image in '
              'seconds; after it diagnostics report since when it has been in progress, and '
              '~/status is DEGRADED. At least three times the usual latency.',
              limits=(0.1, 3600.0), dynamic=True),
    Parameter('diagnostics.max_depth_error', 0.35, 'Expected relative error of the depth, median '
              'of an image, above which diagnostics warn that the network does not know such '
              'scenes; 0: never.', limits=(0.0, 100.0), dynamic=True),
)

BY_NAME: Mapping[str, Parameter] = {parameter.name: parameter for parameter in TABLE}


def listed(value: Iterable[str]) -> list[str]:
    """Return the names in a list, without empty ones."""
    return [name for name in value if name]


def _topic_fault(name: str) -> str | None:
    """Return why ROS refuses a topic's name, or None."""
    try:
        validate_topic_name(name)
    except InvalidTopicNameException as error:
        reason = str(error).splitlines()[0].removeprefix('Invalid topic name: ').rstrip(':')
        return f"'{name}' is none: {reason}"
    return None


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def declare_parameters(node: Node) -> list[str]:
    """
    Declare the whole table on a node; return what is wrong with the values it was given.

    A wrong value is replaced by the default, so that the node lives and can say what is wrong.
    """
    faults = [_declare(node, parameter) for parameter in TABLE]
    return [fault for fault in faults if fault is not None]


def unknown_parameters(node: Node) -> list[str]:
    """Return a message for every parameter that was given but does not exist: a typo, mostly."""
    given = getattr(node, '_parameter_overrides', {})  # rclpy has no public name for them
    messages = []
    for name in given:
        if name in BY_NAME or name.startswith('qos_overrides.') or node.has_parameter(name):
            continue
        messages.append(f"parameter '{name}' does not exist{suggestion(name, BY_NAME)}")
    return messages


def check_change(changes: list[RosParameter], configured: bool) -> SetParametersResult:
    """Accept or refuse a change at run time, with the reason."""
    for change in changes:
        parameter = BY_NAME.get(change.name)
        if parameter is None:
            continue
        fault = parameter.fault(change.value)
        if fault is None and configured and not parameter.dynamic:
            fault = (f'{change.name} can only be set while the node is unconfigured; deactivate '
                     'and clean it up first (ros2 lifecycle set)')
        if fault is not None:
            return SetParametersResult(successful=False, reason=fault)
    return SetParametersResult(successful=True)


def _declare(node: Node, parameter: Parameter) -> str | None:
    name, default, descriptor = parameter.name, parameter.default, parameter.descriptor()
    if isinstance(default, list) and name in node._parameter_overrides and (
            not node._parameter_overrides[name].value):
        # An empty list arrives without a type, and declaring it would raise KeyError.
        node.declare_parameter(name, default, descriptor, ignore_override=True)
        return None
    value: Value
    try:
        value = node.declare_parameter(name, default, descriptor).value
        fault = parameter.fault(value)
        if fault is not None:
            node.set_parameters([RosParameter(name, value=default)])
        return fault
    except InvalidParameterValueException:
        given = node._parameter_overrides[name].value
        value, fault = default, parameter.fault(given)
    except InvalidParameterTypeException:
        given = node._parameter_overrides[name].value
        if isinstance(default, float) and type(given) is int:  # 3 for 3.0 is no mistake
            fault = parameter.fault(given)
            value = default if fault else float(given)
        elif isinstance(default, list):
            value = default
            fault = (f"{name} must be a list of names, for example ['/left/image', "
                     f"'/right/image']; got {given!r}")
        else:
            value = default
            fault = f'{name} must be of type {type(default).__name__}; got {given!r}'
    node.declare_parameter(name, value, descriptor, ignore_override=True)
    return fault
