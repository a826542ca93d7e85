"""One injection: the fault, the recovery, and the judgement of both."""

import time
from typing import Any

from xsvggt_ros.soak.harness import Harness
from xsvggt_ros.soak.kinds import Crash, Failure
from xsvggt_ros.soak.observer import words_of
from xsvggt_ros.soak.report import Injection
from xsvggt_ros.soak.script import Step

MATURE = 10   # images of a stream that is worth keeping
_MOST_WORDS = 5
_MOST_LETTERS = 160


def run_trial(harness: Harness, step: Step) -> Injection:
    """
    Inject one fault and see the node recover; whatever happens, the node tracks afterwards.

    A node that did not recover, or ended where it must not, is started again. Raises Failure or
    Crash if that does not help.
    """
    kind, observer = step.kind, harness.observer
    begin, crash, resets, index = time.monotonic(), '', 0, -1
    found = len(observer.findings)
    failures: list[Failure] = []
    recovery: float | None = None
    try:
        harness.switch_setup(kind.setup)
        if not kind.new_stream:  # which a stream of a few images is free to be exchanged for
            harness.until(lambda: _index(harness) >= MATURE, 'images of a stream')
        harness.begin_trial(step.seed)
        resets = observer.status.reset_count
        index = _index(harness)
        try:
            kind.inject(harness)
        except Failure as failure:
            failures.append(failure)
            if kind.setup == 'process' and harness.node.exit_code is not None:
                harness.start()  # which it did not come to
        harness.camera.heal()
        harness.node.release()
        end = harness.end or time.monotonic()
        recovery = harness.tracked(end) - end
        failures += _map_failures(harness, kind.new_stream, resets, index)
    except Failure as failure:
        failures.append(failure)
    except Crash as words:
        crash = str(words)
    findings = observer.findings[found:]
    did = _what_it_did(harness, resets)
    seconds = time.monotonic() - begin
    _recover(harness, is_broken=bool(crash or findings) or recovery is None, is_ill=bool(failures))
    texts: dict[str, Any] = {name: '; '.join(str(one) for one in failures if one.kind == name)
                             for name in ('hang', 'silent', 'wrong')}
    heard: dict[str, Any] = {name: '; '.join(
        [*(str(one) for one in failures if one.kind == name),
         *(one.words for one in findings[:_MOST_WORDS] if one.kind == name)])
        for name in ('lost', 'non_finite')}
    return Injection(
        name=kind.name, seed=step.seed, seconds=seconds, recovery_s=recovery, crash=crash,
        **texts, **heard, answer_s=max(harness.answers, default=None), did=did)


def _recover(harness: Harness, is_broken: bool, is_ill: bool) -> None:
    """Have the node track again, a new process or a new stream if need be."""
    if not is_broken and is_ill:
        try:
            harness.reset_stream()
        except (Failure, Crash):
            is_broken = True
    if is_broken:
        harness.start()
        harness.settle()


def _index(harness: Harness) -> int:
    return -1 if harness.observer.cache is None else harness.observer.cache.frame_index


def _map_failures(harness: Harness, new_stream: bool, resets: int, index: int) -> list[Failure]:
    """Return what is wrong with the stream, which must be the one of before or a known new one."""
    status = harness.observer.status
    if new_stream or status.reset_count == resets and _index(harness) > index:
        return []
    if status.reset_count != resets:
        return [Failure('lost', f'the stream was begun anew {status.reset_count - resets} times')]
    return [Failure('lost', f'the stream is at image {_index(harness)} after {index}, without a '
                            'reset that was counted')]


def _what_it_did(harness: Harness, resets: int) -> str:
    """Return what diagnostics complained of, and how often the stream began anew, in words."""
    said = words_of(harness.observer.said) or [
        line.rpartition(']: ')[2] for line in harness.complaints()]
    words = [word[:_MOST_LETTERS] for word in said[:_MOST_WORDS]]
    if harness.observer.statuses and harness.observer.status.reset_count > resets:
        words.append(f'{harness.observer.status.reset_count - resets} new streams')
    return '; '.join(words)
