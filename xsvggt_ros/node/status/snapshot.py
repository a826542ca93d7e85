"""All that diagnostics are made of, taken at one moment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticStatus
import torch

from xsvggt_ros.mapping.scale import Scale
from xsvggt_ros.node.outputs.map_output import MapReport
from xsvggt_ros.node.status.fault_log import Fault
from xsvggt_ros.node.status.stream_statistics import FrameReport, metres_of

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
RECENT = 10.0  # seconds for which a fault that does not repeat stays visible

Part = tuple[bytes, str, Mapping[str, object]]  # level, message, values


@dataclass(frozen=True)
class GpuMemory:
    """Memory of the device in bytes; all zero on a CPU."""

    allocated: int = 0
    reserved: int = 0
    free: int = 0
    total: int = 0

    @classmethod
    def read(cls, device: torch.device) -> 'GpuMemory':
        """Ask the driver."""
        if device.type != 'cuda':
            return cls()
        free, total = torch.cuda.mem_get_info(device)
        return cls(torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device),
                   free, total)


@dataclass(frozen=True)
class Snapshot:
    """All that diagnostics are made of, taken at one moment."""

    state: str  # lifecycle state
    topic: str
    publishers: Sequence[str]  # of the image topic, each in words
    image_timeout: float
    active_for: float  # seconds since activation; 0 while not active
    start_fault: Fault | None
    image_fault: Fault | None
    frame_fault: Fault | None
    tf_fault: Fault | None
    stamp_fault: Fault | None
    map_fault: Fault | None
    process_bytes: int
    paused: bool = False  # by ~/enable
    # What there is only once the node is configured:
    image_age: float | None = None  # seconds since the last image; None: none yet
    image_rate: float = 0.0
    info_rate: float = 0.0
    image_description: str = ''  # encoding and size of the last image
    calibration: str = 'none'  # what is made of camera_info, in words
    camera_faults: Sequence[tuple[int, str]] = ()  # of a rig: which camera is missing, and why
    cameras: str = ''  # of a rig: how many, and where their positions come from
    tf_refused: Sequence[str] = ()  # edges of others, and why
    sender_faults: Sequence[str] = ()  # who publishes images where one camera should
    jump_fault: Fault | None = None  # the last image with the stamp of another clock
    scale_hint: str = ''  # what has come on the topic that scale.mode listens to
    scale_fault: str = ''  # why lengths are not in metres, or their scale is not kept up
    odometry: str = ''  # what has come of the odometry that trajectory.use_odometry takes
    odometry_fault: str = ''  # why poses are made without it
    calibrated_focal: tuple[float, float] | None = None
    camera_info_fault: Fault | None = None
    received: int = 0
    processed: int = 0
    dropped: int = 0
    rejected: int = 0
    skipped: int = 0
    collected: int = 0  # images that wait to begin a stream together
    to_collect: int = 0  # of how many; 0: none waits
    deadline_fault: str = ''  # why deadline_ms cannot be kept
    rate_out: float = 0.0
    latencies: Sequence[float] = ()  # seconds, of the last frames
    odometry_latencies: Sequence[float] = ()  # until their odometry was published
    busy_for: float = 0.0  # seconds that what is in work has taken; 0: nothing is in work
    busy_with: str = 'an image'
    patience: float = 2.0  # seconds after which that is said
    worker_fault: Fault | None = None  # the last one, mended or not; so the next two
    callback_fault: Fault | None = None
    last_failure: Fault | None = None  # of an image
    resets: int = 0
    last_reset: str = ''  # why
    scale: Scale | None = None  # None: lengths are in the network's unit
    report: FrameReport | None = None
    budget_warning: str | None = None
    max_depth_error: float = 0.0  # above which the expected error of depth is worth a warning
    map: MapReport | None = None
    model: str = ''
    random_weights: bool = False
    device: str = ''
    acceleration: Mapping[str, str] = field(default_factory=dict)  # kernels, graphs
    gpu: GpuMemory = GpuMemory()

    @property
    def metres(self) -> float | None:
        """Return the metres of the network's unit; None: lengths are in that unit."""
        return metres_of(self.scale, self.report)

    @property
    def silence(self) -> float:
        """Return for how many seconds an active node has had no image."""
        return self.active_for if self.image_age is None else min(self.image_age, self.active_for)

    @property
    def images_came(self) -> bool:
        """Return whether there was an image since the node was activated."""
        return self.image_age is not None and self.image_age < self.active_for
