"""What a run found: by injection, by kind, as a table, as JSON. Needs no ROS."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

LATE = 2.0  # seconds within which a node on an idle machine has to have recovered
# What may be said of an injection, the worst first
OUTCOMES = ('crashed', 'hung', 'lost', 'non-finite', 'wrong', 'silent', 'recovered')


@dataclass(frozen=True)
class Injection:
    """One fault that was injected, and what came of it; texts are empty where all was well."""

    name: str
    seed: int
    seconds: float             # that all of it took
    recovery_s: float | None   # from the fault's end to the next tracked image; None: never
    crash: str = ''
    hang: str = ''
    lost: str = ''
    non_finite: str = ''
    wrong: str = ''
    silent: str = ''           # what diagnostics should have said
    answer_s: float | None = None  # the longest that a service took
    did: str = ''              # what the node said and did
    resident: int = 0          # bytes of the node's own memory afterwards

    @property
    def outcome(self) -> str:
        """Return one of `OUTCOMES`."""
        texts = (self.crash, self.hang, self.lost, self.non_finite, self.wrong, self.silent)
        return next((name for name, text in zip(OUTCOMES, texts) if text), OUTCOMES[-1])

    @property
    def trouble(self) -> str:
        """Return all that was wrong, in words."""
        return '; '.join(filter(None, (self.crash, self.hang, self.lost, self.non_finite,
                                       self.wrong, self.silent)))


@dataclass(frozen=True)
class Life:
    """What one process of the node used after its first and after its last faults."""

    injections: int
    resident: tuple[int, int]     # bytes of its own, in use
    peak: tuple[int, int]         # bytes
    shared: tuple[int, int]       # bytes
    descriptors: tuple[int, int]
    threads: tuple[int, int]


@dataclass(frozen=True)
class Report:
    """A whole run."""

    seed: int
    form: str                 # 'short' or 'long'
    seconds: float
    machine: str
    injections: Sequence[Injection]
    expected: dict[str, str]  # what the node must do, by kind
    groups: dict[str, str]    # by kind
    lives: Sequence[Life]
    leftovers: int            # files in shared memory that nodes which were killed had left

    @property
    def fine(self) -> bool:
        """Return whether all was well."""
        return all(one.outcome == 'recovered' for one in self.injections)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON takes it."""
        faults = [{'name': name, 'count': len(these), 'outcome': _worst(these),
                   **_recovery(these), 'group': self.groups[name],
                   'expected': self.expected[name], 'did': these[-1].did}
                  for name, these in by_kind(self.injections).items()]
        drift = max((life.resident[1] - life.resident[0] for life in self.lives), default=0)
        recoveries = [one.recovery_s for one in self.injections if one.recovery_s is not None]
        return {
            'faults': faults, 'crashes': _count(self.injections, 'crash'),
            'hangs': _count(self.injections, 'hang'),
            'non_finite': _count(self.injections, 'non_finite'),
            'lost': _count(self.injections, 'lost'),
            'memory_drift_bytes': drift,
            'wrong': _count(self.injections, 'wrong'),
            'silent': _count(self.injections, 'silent'),
            'injections': len(self.injections), 'seed': self.seed, 'form': self.form,
            'seconds': round(self.seconds, 1), 'machine': self.machine,
            'recovery_median_s': _rounded(median(recoveries) if recoveries else None),
            'recovery_worst_s': _rounded(max(recoveries, default=None)),
            'late': sum(seconds > LATE for seconds in recoveries),
            'answer_worst_s': _rounded(max(
                (one.answer_s for one in self.injections if one.answer_s is not None),
                default=None)),
            'lives': [asdict(life) for life in self.lives],
            'shared_memory_leftovers': self.leftovers,
            'trace': [[one.name, one.seed, one.outcome, _rounded(one.recovery_s),
                       round(one.seconds, 2), one.resident] for one in self.injections],
            'troubles': [{'name': one.name, 'seed': one.seed, 'outcome': one.outcome,
                          'what': one.trouble, 'did': one.did}
                         for one in self.injections if one.outcome != 'recovered']}


def by_kind(injections: Iterable[Injection]) -> dict[str, list[Injection]]:
    """Return the injections by their kind's name, in the order of the names."""
    kinds: dict[str, list[Injection]] = {}
    for one in injections:
        kinds.setdefault(one.name, []).append(one)
    return dict(sorted(kinds.items()))


def text_table(content: dict[str, Any]) -> str:
    """Return the table that a run ends with, from its JSON."""
    rows = [('fault', 'count', 'outcome', 'median s', 'worst s', 'what the node said and did')]
    for one in content['faults']:
        rows.append((one['name'], str(one['count']), one['outcome'], _seconds(one['recovery_s']),
                     _seconds(one['recovery_worst_s']), one['did'][:100]))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ['  '.join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[5]]).rstrip()
             for row in rows]
    return '\n'.join([*lines, '', *totals(content)])


def totals(content: dict[str, Any]) -> list[str]:
    """Return the lines below the table."""
    lines = [
        f"{content['injections']} injections of {len(content['faults'])} kinds in "
        f"{content['seconds']:.0f} s (seed {content['seed']}, {content['machine']})",
        f"crashes {content['crashes']}, hangs {content['hangs']}, non-finite messages in "
        f"{content['non_finite']}, maps or counters lost in {content['lost']}, wrong "
        f"{content['wrong']}, silent {content['silent']}",
        f"recovery: median {_seconds(content['recovery_median_s'])} s, worst "
        f"{_seconds(content['recovery_worst_s'])} s, {content['late']} above {LATE:.0f} s; "
        f"services answered within {_seconds(content['answer_worst_s'])} s",
        f"memory: {content['memory_drift_bytes'] / 2 ** 20:+.1f} MiB at most in one process"]
    for life in content['lives']:
        lines.append(
            f"  a process that lived through {life['injections']} injections: memory "
            f"{life['resident'][0] / 2 ** 20:.0f} -> {life['resident'][1] / 2 ** 20:.0f} MiB, "
            f"descriptors {life['descriptors'][0]} -> {life['descriptors'][1]}, threads "
            f"{life['threads'][0]} -> {life['threads'][1]}")
    for one in content['troubles']:
        lines.append(f"{one['outcome'].upper()} {one['name']} (seed {one['seed']}): {one['what']}")
    return lines


def _worst(injections: Iterable[Injection]) -> str:
    return min((one.outcome for one in injections), key=OUTCOMES.index)


def _recovery(injections: Iterable[Injection]) -> dict[str, float | None]:
    seconds = [one.recovery_s for one in injections if one.recovery_s is not None]
    return {'recovery_s': _rounded(median(seconds) if seconds else None),
            'recovery_worst_s': _rounded(max(seconds, default=None))}


def _count(injections: Iterable[Injection], name: str) -> int:
    return sum(bool(getattr(one, name)) for one in injections)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _seconds(value: float | None) -> str:
    return '-' if value is None else f'{value:.2f}'
