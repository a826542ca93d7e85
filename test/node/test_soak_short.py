"""Every kind of fault, injected into the real node."""

import json
import subprocess
import sys

import pytest

pytest.importorskip('rclpy')

DRIFT = 40 * 2 ** 20  # bytes
MANY = 3  # kinds that may want a second try, because the machine was busy


def soak(file, *options):
    """Run `xsvggt soak`, and return what it wrote and what it said."""
    result = subprocess.run(
        [sys.executable, '-m', 'xsvggt_ros.cli.soak', '--json', str(file), '--patience', '120',
         *options], capture_output=True, text=True)
    assert file.exists(), result.stdout[-8000:] + result.stderr
    return json.loads(file.read_text()), result.stdout[-8000:] + result.stderr


@pytest.mark.timeout(3600)  # minutes on an idle machine; a busy one may take its time
def test_the_node_stands_every_kind_of_fault(tmp_path):
    content, said = soak(tmp_path / 'soak.json', '--short', '--seed', '12')
    assert len(content['faults']) >= 60, said
    assert [content[name] for name in ('crashes', 'hangs', 'non_finite', 'lost')] == [0] * 4, said
    assert content['memory_drift_bytes'] < DRIFT, said
    for life in content['lives']:
        assert life['descriptors'][0] == life['descriptors'][1]
        assert life['threads'][0] == life['threads'][1]
    others = [fault['name'] for fault in content['faults'] if fault['outcome'] != 'recovered']
    assert len(others) <= MANY, said
    for number, name in enumerate(others):
        again, said = soak(
            tmp_path / f'again{number}.json', '--only', name, '--injections', '1', '--seed', '13')
        assert all(fault['outcome'] == 'recovered' for fault in again['faults']), said
