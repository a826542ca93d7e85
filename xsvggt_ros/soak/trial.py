"""One injection: the fault, the recovery, and the judgement of both."""

import time
from typing import Any

from xsvggt_ros.soak.kinds import Crash, Failure
from xsvggt_ros.soak.observer import words_of
from xsvggt_ros.soak.report import Injection
from xsvggt_ros.soak.script import Step
from xsvggt_ros.soak.stage import Stage

MATURE = 10   # images of a stream that is worth keeping
_MOST_WORDS = 5
_MOST_LETTERS = 160


def run_trial(stage: Stage, step: Step) -> Injection:
    """
    Inject one fault and see the node recover; whatever happens, the node tracks afterwards.

    A node that did not recover, or ended where it must not, is started again. Raises Failure or
    Crash if that does not help.
    """
    kind, observer = step.kind, stage.observer
    begin, crash, resets, index = time.monotonic(), '', 0, -1
    found = len(observer.findings)
    failures: list[Failure] = []
    recovery: float | None = None
    try:
        stage.become(kind.setup)
        if not kind.new_stream:  # which a stream of a few images is free to be exchanged for
            stage.until(lambda: _index(stage) >= MATURE, 'images of a stream')
        stage.begin_trial(step.seed)
        resets = observer.status.reset_count
        index = _index(stage)
        try:
            kind.inject(stage)
        except Failure as failure:
            failures.append(failure)
            if kind.setup == 'process' and stage.node.exit_code is not None:
                stage.start()  # which it did not come to
        stage.camera.heal()
        stage.node.release()
        end = stage.end or time.monotonic()
        recovery = stage.tracked(end) - end
        failures += _map_failures(stage, kind.new_stream, resets, index)
    except Failure as failure:
        failures.append(failure)
    except Crash as words:
        crash = str(words)
    findings = observer.findings[found:]
    did = _what_it_did(stage, resets)
    seconds = time.monotonic() - begin
    _mend(stage, is_broken=bool(crash or findings) or recovery is None, is_ill=bool(failures))
    texts: dict[str, Any] = {name: '; '.join(str(one) for one in failures if one.kind == name)
             for name in ('hang', 'silent', 'wrong')}
    heard: dict[str, Any] = {name: '; '.join(
        [*(str(one) for one in failures if one.kind == name),
         *(one.words for one in findings[:_MOST_WORDS] if one.kind == name)])
        for name in ('lost', 'non_finite')}
    return Injection(
        name=kind.name, seed=step.seed, seconds=seconds, recovery_s=recovery, crash=crash,
        **texts, **heard, answer_s=max(stage.answers, default=None), did=did)


def _mend(stage: Stage, is_broken: bool, is_ill: bool) -> None:
    """Have the node track again, a new process or a new stream if need be."""
    if not is_broken and is_ill:
        try:
            stage.begin_anew()
        except (Failure, Crash):
            is_broken = True
    if is_broken:
        stage.start()
        stage.settle()


def _index(stage: Stage) -> int:
    return -1 if stage.observer.cache is None else stage.observer.cache.frame_index


def _map_failures(stage: Stage, new_stream: bool, resets: int, index: int) -> list[Failure]:
    """Return what is wrong with the stream, which must be the one of before or a known new one."""
    status = stage.observer.status
    if new_stream or status.reset_count == resets and _index(stage) > index:
        return []
    if status.reset_count != resets:
        return [Failure('lost', f'the stream was begun anew {status.reset_count - resets} times')]
    return [Failure('lost', f'the stream is at image {_index(stage)} after {index}, without a '
                            'reset that was counted')]


def _what_it_did(stage: Stage, resets: int) -> str:
    """Return what diagnostics complained of, and how often the stream began anew, in words."""
    said = words_of(stage.observer.said) or [
        line.rpartition(']: ')[2] for line in stage.complaints()]
    words = [word[:_MOST_LETTERS] for word in said[:_MOST_WORDS]]
    if stage.observer.statuses and stage.observer.status.reset_count > resets:
        words.append(f'{stage.observer.status.reset_count - resets} new streams')
    return '; '.join(words)
