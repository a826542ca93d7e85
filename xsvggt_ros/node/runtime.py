"""What the node consists of at the moment."""

from dataclasses import dataclass

from xsvggt_ros.node.inputs.tf_listener import TfListener
from xsvggt_ros.node.outputs.publishers import Publishers
from xsvggt_ros.node.pipeline import Pipeline
from xsvggt_ros.node.settings import Settings
from xsvggt_ros.node.status.diagnostics import clock_time
from xsvggt_ros.node.subscriptions import InputTopics
from xsvggt_ros.node.worker import WorkerSlot

SERVICE_TIMEOUT = 1.0  # seconds a service or a transition waits for the image in progress


class RefusedError(RuntimeError):
    """A transition or a service that is not possible now; says why, and nothing has changed."""


@dataclass
class Runtime:
    """Changed by transitions, read by services and diagnostics, all in the executor's thread."""

    settings: Settings
    worker: WorkerSlot
    state: str = 'unconfigured'  # of the lifecycle
    # While configured:
    pipeline: Pipeline | None = None
    publishers: Publishers | None = None
    tf: TfListener | None = None
    topics: InputTopics | None = None
    # While active, in seconds of the steady clock:
    active_since: float | None = None

    def in_progress(self) -> str:
        """Return what is being done, and since when, in words."""
        work = self.worker.work
        if work is None:
            return 'nothing is in progress any more'
        return f'{work.what} has been in progress since {clock_time(work.seconds)}'

    def require_free_worker(self) -> None:
        """Raise RefusedError while an image of the last activation has the engine."""
        if not self.worker.is_free(SERVICE_TIMEOUT):
            raise RefusedError(f'{self.in_progress()}; try again when it is done, or end the '
                               'process if it never is')
