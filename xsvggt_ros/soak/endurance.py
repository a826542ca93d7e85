"""No faults, but as many images as the node can take: memory, descriptors, threads, latency."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
import tempfile
import time
from typing import Any

from xsvggt_ros.console.processes import ignore_signals
from xsvggt_ros.soak.harness import Harness
from xsvggt_ros.soak.kinds import Crash, Failure, SETUPS
from xsvggt_ros.soak.node_process import floor, remove_leftovers, Usage

WARM_UP = 5000        # images, or a fifth of all if that is fewer
SHARE = 5
SAMPLES = 100         # looks at the process, evenly over the run
PARTS = 10            # of what is compared
PART = 1000           # images at both ends whose latencies are compared
DRIFT = 16 * 2 ** 20  # bytes by which memory may grow after the warm-up
LOST = 1.0            # seconds after which an image is taken to be lost on the way


@dataclass(frozen=True)
class Endurance:
    """What a run of many images found."""

    wanted: int
    frames: int               # images processed
    unanswered: int           # images sent that were lost on the way
    seconds: float
    samples: Sequence[tuple[int, Usage]]   # images so far, and what the process used then
    latencies: Sequence[float]             # seconds, of each image
    non_finite: int
    lost: int
    trouble: str              # why it ended early, empty if it did not
    crashed: bool

    @property
    def is_complete(self) -> bool:
        """Return whether all images were processed, or a fault ended the run."""
        return self.frames >= self.wanted or bool(self.trouble)

    @property
    def warm(self) -> list[Usage]:
        """Return what the process used after the warm-up."""
        begin = min(WARM_UP, self.wanted // SHARE)
        return [usage for frames, usage in self.samples if frames >= begin]

    @property
    def floors(self) -> list[Usage]:
        """Return the floor of each tenth of that: a file open for an instant is no leak."""
        length = max(1, len(self.warm) // PARTS)
        return [floor(self.warm[begin:begin + length])
                for begin in range(0, len(self.warm) - length + 1, length)]

    @property
    def drift(self) -> int:
        """Return by how many bytes the floor of the process's memory has risen since then."""
        return self.floors[-1].resident - self.floors[0].resident if self.warm else 0

    @property
    def fine(self) -> bool:
        """Return whether all was well."""
        constant = (len({usage.descriptors for usage in self.floors}) == 1
                    and len({usage.threads for usage in self.warm}) == 1)
        return (not self.trouble and not self.non_finite and not self.lost and constant
                and self.drift < DRIFT)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON takes it."""
        return {
            'frames': self.frames, 'seconds': round(self.seconds, 1),
            'images_lost_on_the_way': self.unanswered,
            'memory_drift_bytes': self.drift,
            'memory_highest_bytes': max((one.resident for one in self.warm), default=0),
            'descriptors': sorted({usage.descriptors for usage in self.floors}),
            'threads': sorted({usage.threads for usage in self.warm}),
            'latency_first': percentiles(self.latencies[:PART]),
            'latency_last': percentiles(self.latencies[-PART:]),
            'non_finite': self.non_finite, 'lost': self.lost, 'crashes': int(self.crashed),
            'hangs': int(bool(self.trouble) and not self.crashed), 'trouble': self.trouble,
            'warm_up': min(WARM_UP, self.wanted // SHARE),
            'samples': [[frames, *vars(usage).values()] for frames, usage in self.samples]}

    def words(self) -> list[str]:
        """Return what is said at the end."""
        content = self.to_json()
        lines = [
            f'{self.frames} images in {self.seconds:.0f} s '
            f'({self.frames / max(self.seconds, 1e-9):.1f} a second), '
            f'{self.unanswered} lost on the way',
            f'memory {self.drift / 2 ** 20:+.2f} MiB after {content["warm_up"]} images, '
            f'descriptors {content["descriptors"]}, threads {content["threads"]}',
            f'latency p50, p99: {content["latency_first"]} s in the first {PART}, '
            f'{content["latency_last"]} s in the last',
            f'non-finite messages {self.non_finite}, maps or counters lost {self.lost}']
        return lines + [self.trouble] * bool(self.trouble)


def percentiles(latencies: Sequence[float]) -> list[float]:
    """Return p50 and p99 in seconds; nothing for fewer than two."""
    if len(latencies) < 2:
        return []
    cuts = quantiles(latencies, n=100, method='inclusive')
    return [round(cuts[49], 5), round(cuts[98], 5)]


def run_endurance(
    frames: int, patience: float, parameters: list[str], say: Callable[[str], None],
    keep: Path | None = None,
) -> Endurance:
    """Send each image when the one before is published; Ctrl-C ends it earlier."""
    samples: list[tuple[int, Usage]] = []
    trouble, unanswered, crashed, seconds = '', 0, False, 0.0
    with tempfile.TemporaryDirectory(prefix='xsvggt_soak_') as folder:
        harness = Harness(keep or Path(folder), patience, parameters)
        observer = harness.observer
        observer.keeps_latencies = True
        try:
            say('starting the node')
            harness.camera.choose(SETUPS['camera'])
            harness.running = harness.launch(injectable=False)
            harness.await_active()
            begin = time.monotonic()
            period = max(1, frames // SAMPLES)
            while len(observer.latencies) < frames:
                unanswered += _one_image(harness, patience)
                seconds = time.monotonic() - begin
                done = len(observer.latencies)
                if done >= (len(samples) + 1) * period:
                    samples.append((done, harness.node.usage()))
                    say(f'{done}/{frames} images, {done / seconds:.1f} a second, memory '
                        f'{samples[-1][1].resident / 2 ** 20:.1f} MiB')
        except KeyboardInterrupt:
            ignore_signals()
            say('interrupted')
        except (Failure, Crash) as failure:
            trouble, crashed = str(failure), isinstance(failure, Crash)
        finally:
            harness.close()
            remove_leftovers(harness.shared)
    kinds = [finding.kind for finding in observer.findings]
    return Endurance(
        wanted=frames, frames=len(observer.latencies), unanswered=unanswered, seconds=seconds,
        samples=samples, latencies=observer.latencies, non_finite=kinds.count('non_finite'),
        lost=kinds.count('lost'), trouble=trouble, crashed=crashed)


def _one_image(harness: Harness, patience: float) -> int:
    """Send images until one is published; return how many were lost on the way."""
    observer, lost = harness.observer, 0
    deadline = time.monotonic() + patience
    while True:
        observer.posed.clear()
        harness.camera.send_next()
        if observer.posed.wait(LOST):
            return lost
        lost += 1
        if harness.node.exit_code is not None:
            raise Crash(f'the node ended with exit code {harness.node.exit_code}')
        if time.monotonic() > deadline:
            raise Failure('hang', f'no image was published for {patience:.0f} s')
