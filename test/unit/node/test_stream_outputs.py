"""What of an image's latency its stages are, where two threads are at work on it."""

import pytest

pytest.importorskip('rclpy')
from xsvggt_ros.node.outputs.stream_outputs import FrameTimestamps  # noqa: E402

TIMES = FrameTimestamps(start=1.0, decoded=2.0, computed=5.0, located=5.1, copying=6.0, upload=.5)


@pytest.mark.parametrize('begin, end, seconds', [
    (2.5, 3.0, 0.0),   # a pose that the image alone told: the network was at work all the while
    (4.5, 5.5, 0.5), (5.0, 5.5, 0.5), (5.5, 6.0, 0.5)])
def test_what_went_on_beside_the_network_is_not_counted_twice(begin, end, seconds):
    assert TIMES.after_computing(begin, end) == pytest.approx(seconds)
