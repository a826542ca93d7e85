"""Every kind of fault, injected into the real node."""

import json
import subprocess
import sys

import pytest

pytest.importorskip('rclpy')

DRIFT = 40 * 2 ** 20  # bytes


@pytest.mark.timeout(3600)  # minutes on an idle machine; a busy one may take its time
def test_the_node_stands_every_kind_of_fault(tmp_path):
    file = tmp_path / 'soak.json'
    result = subprocess.run(
        [sys.executable, '-m', 'xsvggt_ros.tools.soak', '--short', '--seed', '12', '--json',
         str(file), '--patience', '120'], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr
    content = json.loads(file.read_text())
    assert len(content['faults']) >= 60
    assert all(fault['outcome'] == 'recovered' for fault in content['faults'])
    assert [content[name] for name in ('crashes', 'hangs', 'non_finite', 'lost')] == [0] * 4
    assert content['memory_drift_bytes'] < DRIFT
    for life in content['lives']:
        assert life['descriptors'][0] == life['descriptors'][1]
        assert life['threads'][0] == life['threads'][1]
