"""What is told of an image's publication: its stages, where two threads have it; its rate."""

import time
from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy')
from xsvggt_ros.node.outputs import stream_outputs  # noqa: E402
from xsvggt_ros.node.outputs.stream_outputs import (  # noqa: E402
    FrameTimestamps,
    StreamOutputs,
)
from xsvggt_ros.node.status.stream_statistics import StreamStatistics, Ticket  # noqa: E402

TIMES = FrameTimestamps(start=1.0, decoded=2.0, computed=5.0, located=5.1, copying=6.0, upload=.5)


@pytest.mark.parametrize('begin, end, seconds', [
    (2.5, 3.0, 0.0),   # a pose that the image alone told: the network was at work all the while
    (4.5, 5.5, 0.5), (5.0, 5.5, 0.5), (5.5, 6.0, 0.5)])
def test_what_went_on_beside_the_network_is_not_counted_twice(begin, end, seconds):
    assert TIMES.after_computing(begin, end) == pytest.approx(seconds)


@pytest.mark.parametrize('cameras', [1, 2, 3])
def test_the_rate_is_that_of_images_as_the_rate_of_those_that_come(monkeypatch, cameras):
    now, statistics = [10.0], StreamStatistics()
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    monkeypatch.setattr(stream_outputs, 'frame_outputs', lambda *args: [])
    outputs = SimpleNamespace(
        _publishers=None, _statistics=statistics, _locating=10.0, _located=10.0)
    for _ in range(9):
        StreamOutputs.publish(outputs, SimpleNamespace(
            timestamps=TIMES, resize=SimpleNamespace(height=4, width=4), header=None, host=None,
            topics=(), ticket=Ticket(cameras)))
        now[0] += 0.25
    now[0] -= 0.25
    assert statistics.processed == 9 * cameras
    assert statistics.out_meter.rate() == pytest.approx(4.0 * cameras)
