"""`xsvggt bench node` as a person runs it: the real node, a camera, and what is written."""

from argparse import Namespace
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy')
torch = pytest.importorskip('torch')
from xsvggt_ros.cli.main import build_parser  # noqa: E402
from xsvggt_ros.console import measurement  # noqa: E402
from xsvggt_ros.console.errors import ToolError  # noqa: E402
from xsvggt_ros.demo import node_bench  # noqa: E402
from xsvggt_ros.model.checkpoint import CheckpointError  # noqa: E402
from xsvggt_ros.node.settings import DEFAULTS  # noqa: E402
from xsvggt_ros.node.subscriptions import IMAGE_DEPTH  # noqa: E402

PATIENCE = 600  # seconds until a test gives up; only one that fails ever waits so long
SMALL = ['--image', '160x120', '--image-size', '56', '--rate', '5']


def bench_node(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'xsvggt_ros.cli.bench', 'node', *SMALL, *arguments],
        capture_output=True, text=True, timeout=PATIENCE)


def test_stages_start_and_rate_are_written(tmp_path):
    done = bench_node('--frames', '9', '--json', str(tmp_path / 'node.json'),
                      '--parameter', 'cloud.max_rate:=1.0',
                      # Else poses may be out before the network has seen their images.
                      '--parameter', 'trajectory.mode:=network')
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / 'node.json').read_text())
    assert 0 < content['start_to_first_pose_s'] < PATIENCE
    stages = content['stages_ms']
    assert set(stages) == {'total', 'decode', 'upload', 'inference', 'pack', 'publish'}
    parts = sum(stages[name]['mean'] for name in stages if name != 'total')
    assert 0 < parts <= stages['total']['mean'] + 1e-3
    # From sending to receiving is longer than what happens in the node until then.
    assert content['odometry_ms']['mean'] > stages['inference']['mean'] > 0
    difference = content['odometry_ms']['p50'] - content['engine_ms']['p50']
    assert content['overhead_ms'] == pytest.approx(difference, abs=2e-3)
    receipt = content['receipt_to_odometry_ms']
    assert 0 < receipt['p50'] <= receipt['p95'] <= receipt['p99']
    # The middleware's ways there and back are not in it.
    assert stages['inference']['mean'] < receipt['p99'] and receipt['p50'] < (
        content['odometry_ms']['p99'])
    assert content['above_engine_ms'] == pytest.approx(
        receipt['p50'] - content['engine_latest_ms']['p50'], abs=2e-3)
    assert content['processed'] >= 9 and content['received'] >= content['processed']
    # On a busy machine images waited for the first pose: with the worker, in the middleware.
    assert content['sent'] >= 8 - 1 - IMAGE_DEPTH
    assert 0 < content['rate_held'] and 0 < content['cpu_seconds']
    assert content['memory_bytes'] > 2 ** 26
    assert content['parameters'] == ['cloud.max_rate:=1.0', 'trajectory.mode:=network']
    assert f"{content['start_to_first_pose_s']:.1f} s after the node's start" in done.stdout


@pytest.mark.parametrize('overhead, above, words', [
    (1.7, -0.2, ('1.7 ms more than the engine alone (17.1 ms)',
                 'published odometry, 0.2 ms less than the engine alone')),
    (-2.0, 0.4, ('2.0 ms less than', '0.4 ms more than'))])
def test_a_pose_that_is_out_before_the_network_is_done_needs_less_than_that(
        overhead, above, words):
    times = {'p50': 17.1, 'p99': 18.0}
    table = node_bench._table(dict(
        checkpoint='small', image='640x480', rate=10.0, hardware='cpu',
        start_to_first_pose_s=3.0, odometry_ms=times, engine_ms=times, overhead_ms=overhead,
        receipt_to_odometry_ms=times, above_engine_ms=above, rate_held=10.0, sent=1, received=1,
        processed=1, dropped=0, cpu_seconds=0.01, memory_bytes=1,
        stages_ms=dict.fromkeys(node_bench.STAGES, times)))
    assert all(word in table for word in words)


def test_the_engine_alone_sees_what_the_node_sees(monkeypatch):
    calls = []
    engine = SimpleNamespace(
        step=lambda pixels: calls.append(pixels) or SimpleNamespace(pose_encoding=torch.zeros(9)),
        finish_frame=lambda: None, want_points=lambda wanted: calls.append(wanted))
    monkeypatch.setattr(node_bench, 'build_engine', lambda *arguments: engine)
    monkeypatch.setattr(node_bench, 'load_network', lambda *arguments: SimpleNamespace(
        config=SimpleNamespace(img_size=112, patch_size=14)))
    options = Namespace(device='cpu', checkpoint='small', size='auto', image_size=None,
                        frames=130, parameter=['cloud.max_rate:=1.0'])
    clip = [SimpleNamespace(pixels=index) for index in range(3)]
    assert len(node_bench._engine_seconds(options, clip)) == 130
    # Its caches are as full as the node's, and no head is at work that is not in the node.
    assert calls == [False] + ([0, 1, 2, 1] * 33)[:130]
    calls.clear()
    options.parameter = ['cloud.source:=points']
    node_bench._engine_seconds(options, clip)
    assert calls[0] is True


def test_the_engine_alone_has_the_weights_of_the_node(monkeypatch):
    asked = []

    def load_model(path, size, device, *, weights, precision):
        asked.append((size, weights, precision))
        raise CheckpointError('it is seen already')

    monkeypatch.setattr(measurement, 'load_model', load_model)
    options = build_parser('bench').parse_args(['bench', 'node', '--device', 'cpu'])
    with pytest.raises(ToolError, match='it is seen already'):
        node_bench._engine_seconds(options, [])
    node = DEFAULTS.model
    assert asked == [(node.size, node.weights, node.dtype)]
    options.parameter = ['model.weights:=int8', 'model.dtype:=bf16']
    with pytest.raises(ToolError, match='it is seen already'):
        node_bench._engine_seconds(options, [])
    assert asked[1] == (node.size, 'int8', 'bf16')


def test_a_node_that_does_not_start_is_told_with_its_words():
    done = bench_node('--frames', '9', '--parameter', 'cache.policy:=nonsense')
    assert done.returncode == 1
    assert 'the node does not start' in done.stderr and 'nonsense' in done.stderr
    assert 'Traceback' not in done.stderr
