"""A network that numbers what it remembers: the node begins a new stream in time."""

from types import SimpleNamespace

from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.node.frame_processor import FrameProcessor


class Engine:
    """Remembers 6 images at most."""

    def __init__(self):
        self.frames = self.remembered = 0
        self.config = EngineConfig(CacheConfig())

    def exhausted(self, frames):
        return None if self.remembered + frames <= 6 else 'it has had 6'


def restarts(stride, cameras, images):
    """Return before which sets of images the stream begins anew, and what is said."""
    engine, told = Engine(), []
    processor = object.__new__(FrameProcessor)
    processor._engine = engine

    def restart(reason):
        told.append((index, reason))
        engine.frames = engine.remembered = 0

    processor._stream = SimpleNamespace(restart=restart)
    settings = SimpleNamespace(input=SimpleNamespace(keyframe_stride=stride))
    for index in range(images):
        processor._check_end(cameras, settings)
        assert engine.exhausted(0) is None
        if engine.frames // cameras % stride == 0:
            engine.remembered += cameras
            assert engine.remembered <= 6
        engine.frames += cameras
    return told


def test_a_stream_ends_before_the_image_that_cannot_be_remembered():
    assert [index for index, _ in restarts(1, 1, 20)] == [6, 12, 18]
    assert [index for index, _ in restarts(3, 1, 40)] == [18, 36]  # others need no number
    assert [index for index, _ in restarts(1, 4, 3)] == [1, 2]  # all of a set, or none


def test_the_reason_names_the_parameter_that_makes_streams_longer():
    (_, reason), *_ = restarts(2, 1, 20)
    assert 'had 6' in reason and 'input.keyframe_stride is 2' in reason
