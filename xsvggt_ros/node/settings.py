"""The values of the parameters as frozen dataclasses, one a section: each part gets its own."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, get_type_hints

from rclpy.node import Node

from xsvggt_ros.geometry.frame_names import frame_name
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.node.parameters import BY_NAME, FRAMES, listed, Value


@dataclass(frozen=True)
class ModelSettings:
    """Which network runs, and where."""

    checkpoint: str
    size: str
    device: str
    dtype: str
    weights: str
    camera_iterations: int
    first_frames: int
    image_size: int
    threads: int
    kernels: str
    graphs: str
    warmup: bool


@dataclass(frozen=True)
class InputSettings:
    """Which images are received and processed, and when."""

    image_topics: list[str]  # of a rig; empty for one camera
    image_transport: str
    reliability: str
    keyframe_stride: int
    tracking_size: int
    sync_slop: float
    camera_timeout: float
    max_rate: float
    use_camera_info: bool
    rectify: bool
    deadline_ms: float

    @property
    def is_compressed(self) -> bool:
        """Return whether images are sensor_msgs/CompressedImage."""
        return self.image_transport == 'compressed'


@dataclass(frozen=True)
class CloudSettings:
    """What ~/points consists of."""

    source: str
    stride: int
    confidence_percentile: float
    max_error: float
    max_range: float
    organized: bool
    max_rate: float


@dataclass(frozen=True)
class MapSettings:
    """What is accumulated in ~/map_points and saved."""

    enable: bool
    voxel_size: float
    max_points: int
    publish_period: float
    save_directory: str
    localize_in: str


@dataclass(frozen=True)
class OccupancySettings:
    """What is an obstacle in ~/occupancy, and how finely."""

    resolution: float
    min_height: float
    max_height: float
    publish_period: float


@dataclass(frozen=True)
class PoseSettings:
    """How poses are published: frames, TF and covariance."""

    odom_frame: str
    map_frame: str
    base_frame: str
    publish_tf: bool
    invert_tf: bool
    publish_map_tf: bool
    robot_odom_frame: str
    transform_tolerance: float
    tf_timeout: float
    position_covariance: float
    orientation_covariance: float


@dataclass(frozen=True)
class TrajectorySettings:
    """Whose poses are published."""

    mode: str
    use_odometry: bool = False


@dataclass(frozen=True)
class DepthSettings:
    """What becomes of the network's depth."""

    correction: str


@dataclass(frozen=True)
class PathSettings:
    """How long ~/path is."""

    max_poses: int


@dataclass(frozen=True)
class ScaleSettings:
    """Where metric scale comes from."""

    mode: str
    value: float
    max_uncertainty: float


@dataclass(frozen=True)
class ResetSettings:
    """When a new stream begins by itself."""

    on_lost: bool
    on_failures: int
    on_time_jump: bool
    on_gap: float


@dataclass(frozen=True)
class StartSettings:
    """What happens when the process starts."""

    autostart: bool
    exit_on_failure: bool


@dataclass(frozen=True)
class DiagnosticsSettings:
    """After how many seconds diagnostics complain."""

    image_timeout: float
    max_depth_error: float
    frame_timeout: float


@dataclass(frozen=True)
class Settings:
    """The values of all parameters; frames by the names that TF has, lists without empty names."""

    model: ModelSettings
    cache: CacheConfig
    input: InputSettings
    cloud: CloudSettings
    map: MapSettings
    occupancy: OccupancySettings
    pose: PoseSettings
    path: PathSettings
    trajectory: TrajectorySettings
    depth: DepthSettings
    scale: ScaleSettings
    reset: ResetSettings
    start: StartSettings
    diagnostics: DiagnosticsSettings

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> 'Settings':
        """Return the values of all parameters, given by their names."""
        return cls(**{
            section: kind(**{
                field.name: _normal(name, values[name]) for field in fields(kind)
                for name in [parameter_name(section, field.name)]})
            for section, kind in get_type_hints(cls).items()})

    def changed(self, values: Mapping[str, Value]) -> 'Settings':
        """Return a copy in which the parameters of these names have other values."""
        sections: dict[str, Any] = {}
        for section in vars(self):
            part = getattr(self, section)
            names = {field.name: parameter_name(section, field.name) for field in fields(part)}
            sections[section] = replace(part, **{
                field: _normal(name, values[name]) for field, name in names.items()
                if name in values})
        return Settings(**sections)

    def check(self) -> None:
        """Raise ValueError for values that are allowed, but not together."""
        pose, cameras = self.pose, len(self.input.image_topics)
        if self.scale.mode == 'baseline' and cameras < 2:
            raise ValueError(
                'scale.mode baseline needs the images of at least two cameras; name their topics '
                'in image_topics, or choose another scale.mode')
        if pose.invert_tf and pose.publish_map_tf:
            raise ValueError('invert_tf and publish_map_tf would each give odom_frame a parent, '
                             'and it can have one only; switch one of them off')
        frames = {name: getattr(pose, name) for name in FRAMES if getattr(pose, name)}
        if len(set(frames.values())) < len(frames):
            raise ValueError(f'{", ".join(frames)} must have different names; got '
                             + ', '.join(frames.values()))
        if pose.robot_odom_frame:
            self._check_robot_odometry()
        low, high = self.occupancy.min_height, self.occupancy.max_height
        if low and high and low >= high:
            raise ValueError(
                f'occupancy.min_height {low:g} is not below occupancy.max_height {high:g}, so '
                'nothing would be an obstacle in ~/occupancy; change one of them, or set it to 0')
        if self.map.localize_in and (self.trajectory.mode != 'optimized' or cameras > 1):
            raise ValueError(
                'map.localize_in needs trajectory.mode optimized and one camera: nothing else has '
                'keyframes; change them, or leave map.localize_in empty')
        if self.trajectory.use_odometry and (self.trajectory.mode == 'network' or cameras > 1):
            raise ValueError(
                'trajectory.use_odometry needs trajectory.mode tracked or optimized and one '
                "camera: the network's own poses take no odometry; change them, or set "
                'trajectory.use_odometry to false')
        if self.cloud.organized and cameras > 1:
            raise ValueError(
                'cloud.organized needs one camera, because the merged cloud of a rig has no rows '
                'and columns; leave image_topics empty, or set cloud.organized to false')

    def _check_robot_odometry(self) -> None:
        pose = self.pose
        if not pose.base_frame:
            raise ValueError(
                'robot_odom_frame needs base_frame, the frame of the robot that its odometry '
                "publishes in it: set base_frame, for example to 'base_link', or leave "
                'robot_odom_frame empty')
        if pose.invert_tf:
            raise ValueError(
                'robot_odom_frame and invert_tf are two places for odom_frame, below map_frame '
                'and below the robot; switch one of them off')
        if self.scale.mode == 'none' and not self.map.localize_in:
            raise ValueError(
                "robot_odom_frame needs lengths in metres, which an odometry of the robot's own "
                'has: set a scale.mode, or name a saved map that is in metres in map.localize_in')


def parameter_name(section: str, field: str) -> str:
    """Return the parameter that a field of a section has its value from."""
    name = f'{section}.{field}'
    return name if name in BY_NAME else field


def read_settings(node: Node) -> Settings:
    """Return the present values of a node's parameters."""
    return Settings.of({name: node.get_parameter(name).value for name in BY_NAME})


def _normal(name: str, value: Any) -> Any:
    if name in FRAMES:
        return frame_name(value)
    if name == 'cache.memory_budget_mb':
        return value or None  # 0: cache.max_tokens counts
    return listed(value) if isinstance(value, list) else value


DEFAULTS = Settings.of({name: parameter.default for name, parameter in BY_NAME.items()})
