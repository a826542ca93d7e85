"""Which faults are injected in which order: everything follows from the seed. Needs no ROS."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
import random

from xsvggt_ros.soak.kinds import FaultKind, SETUPS

LONG = 1000          # injections of the long form
PROCESS_ROUNDS = 3   # rounds that one process of the node has to live through


@dataclass(frozen=True)
class Step:
    """One fault to inject."""

    kind: FaultKind
    seed: int   # of all that is drawn in it
    round: int


def write_script(kinds: Iterable[FaultKind], seed: int,
                 injections: int | None = None) -> list[Step]:
    """
    Return the steps: rounds of all kinds in an order of their own, one setup after the other.

    injections: how many in all; None for the short form, a round. Kinds that end the process come
    last in a round, and only in every third one, as often as they missed; so the process, whose
    memory is watched, lives through three rounds. Raises ValueError if there are no kinds.
    """
    rng = random.Random(seed)
    kinds = list(kinds)
    if not kinds:
        raise ValueError('there are no kinds of faults to inject')
    if injections is None:
        return list(_round(kinds, rng, 0, with_process=1))
    steps: list[Step] = []
    number = 0
    while len(steps) < injections:
        ends = number % PROCESS_ROUNDS == PROCESS_ROUNDS - 1
        steps += _round(kinds, rng, number, with_process=PROCESS_ROUNDS if ends else 0)
        number += 1
    return steps


def _round(
    kinds: list[FaultKind], rng: random.Random, number: int, with_process: int,
) -> Iterator[Step]:
    setups = [setup for setup in SETUPS if setup != 'process']
    rng.shuffle(setups)
    for setup in [*setups, 'process']:
        times = with_process if setup == 'process' else 1
        drawn = [kind for kind in kinds if kind.setup == setup
                 for _ in range(kind.tries * times)]
        rng.shuffle(drawn)
        for kind in drawn:
            yield Step(kind, rng.randrange(2 ** 32), number)
