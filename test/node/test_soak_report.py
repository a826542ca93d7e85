"""What a soak reports: counters, memory, long runs, and the page of results."""

from dataclasses import replace
import json
from pathlib import Path

import pytest

pytest.importorskip('rclpy')
from xsvggt_ros.soak import docs, report  # noqa: E402
from xsvggt_ros.soak.endurance import Endurance  # noqa: E402
from xsvggt_ros.soak.faults import KINDS  # noqa: E402
from xsvggt_ros.soak.node_process import floor, Usage  # noqa: E402
from xsvggt_ros.soak.run import Lives, LOOKS, WARM_UP  # noqa: E402

GOOD = report.Injection('padded rows', 1, 1.0, 0.25)


def whole(*injections, lives=()):
    return report.Report(
        seed=3, form='short', seconds=12.0, machine='a machine', injections=injections,
        expected={name: kind.expected for name, kind in KINDS.items()},
        groups={name: kind.group for name, kind in KINDS.items()}, lives=lives, leftovers=0)


def test_the_json_has_what_was_promised():
    content = json.loads(json.dumps(whole(GOOD, replace(GOOD, recovery_s=0.75)).to_json()))
    fault, = content['faults']
    assert (fault['name'], fault['count'], fault['outcome']) == ('padded rows', 2, 'recovered')
    assert fault['recovery_s'] == 0.5 and fault['recovery_worst_s'] == 0.75
    assert [content[name] for name in (
        'crashes', 'hangs', 'non_finite', 'lost', 'memory_drift_bytes')] == [0] * 5
    assert '2 injections of 1 kinds' in report.text_table(content)


@pytest.mark.parametrize('name, outcome, counter', [
    ('crash', 'crashed', 'crashes'), ('hang', 'hung', 'hangs'), ('lost', 'lost', 'lost'),
    ('non_finite', 'non-finite', 'non_finite'), ('wrong', 'wrong', 'wrong'),
    ('silent', 'silent', 'silent')])
def test_each_trouble_is_counted_and_fails_the_run(name, outcome, counter):
    ill = replace(GOOD, **{name: 'what happened'})
    result = whole(GOOD, ill)
    content = result.to_json()
    assert whole(GOOD).fine and not result.fine
    assert content[counter] == 1 and content['faults'][0]['outcome'] == outcome
    assert 'what happened' in report.text_table(content)


def usage(resident, threads=20, descriptors=9):
    return Usage(resident=resident, peak=9, shared=0, descriptors=descriptors, threads=threads)


def test_memory_is_compared_by_its_floor():
    assert floor([usage(50), usage(7), usage(80)]) == usage(7)

    class Node:
        pid = 1

        def usage(self):
            return usage(next(sizes))

        def trim(self, patience):
            pass

    sizes = iter([1, 2, 90, 10, *[90] * (2 * LOOKS - 3), 17, 90, 90])
    lives = Lives()
    for images in [0, WARM_UP - 1, *range(WARM_UP, WARM_UP + 2 * LOOKS + 2)]:
        lives.look(Node(), images)
    lives.finish()
    content = whole(GOOD, lives=lives.done).to_json()
    assert content['memory_drift_bytes'] == 7
    assert content['lives'][0]['injections'] == 2 * LOOKS + 2


def endurance(samples, **changes):
    result = Endurance(
        wanted=100, frames=100, unanswered=0, seconds=1.0, samples=samples,
        latencies=[0.01] * 99 + [0.1], non_finite=0, lost=0, trouble='', crashed=False)
    return replace(result, **changes)


def test_a_long_run_is_judged_after_its_warm_up():
    steady = [(frames, usage(1000 if frames > 15 else 1)) for frames in range(1, 101)]
    assert endurance(steady).fine and endurance(steady).drift == 0
    assert endurance(steady).to_json()['latency_last'][0] == 0.01
    growing = [(frames, usage(frames * 2 ** 20)) for frames in range(1, 101)]
    assert endurance(growing).drift > 2 ** 26 and not endurance(growing).fine
    threads = [(frames, usage(1, threads=frames)) for frames in range(1, 101)]
    assert not endurance(threads).fine
    once = [(frames, usage(1, threads=21 if frames == 55 else 20)) for frames in range(1, 101)]
    assert not endurance(once).fine and endurance(once).to_json()['threads'] == [20, 21]
    read = [(frames, usage(1, descriptors=9 + (frames == 55))) for frames in range(1, 101)]
    assert endurance(read).fine and endurance(read).to_json()['descriptors'] == [9]
    left = [(frames, usage(1, descriptors=9 + (frames >= 55))) for frames in range(1, 101)]
    assert not endurance(left).fine and endurance(left).to_json()['descriptors'] == [9, 10]
    for change in ({'non_finite': 1}, {'lost': 1}, {'trouble': 'it hangs'}):
        assert not endurance(steady, **change).fine


# The page ----------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / 'docs' / 'reliability.md'


def test_results_are_written_into_the_page():
    lives = [report.Life(
        30, (50 * 2 ** 20, 57 * 2 ** 20), (9, 9), (0, 0), (9, 9), (20, 21))]
    faults = whole(GOOD, replace(GOOD, recovery_s=0.75), lives=lives).to_json()
    steady = [(frames, usage(1000)) for frames in range(1, 101)]
    frames = endurance(steady).to_json() | {'machine': 'another machine'}
    page = docs.page_with(PAGE.read_text(), [faults, frames])
    row = next(line for line in page.splitlines() if '| padded rows |' in line)
    assert '| 2 | recovered | 0.50 (0.75) s |' in row
    assert 'from 50 to 57 MiB' in page and 'another machine' in page
    assert docs.page_with(page, [faults, frames]) == page
