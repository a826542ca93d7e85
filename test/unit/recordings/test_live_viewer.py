"""`xsvggt reconstruct --viewer`: what the viewer is sent, and what is said where there is none."""

import socket
import sys
from types import SimpleNamespace

import pytest
from test_exports import frame_of, turned

from xsvggt_ros.cli.main import main
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.recordings.live_viewer import CLOUDS, LiveViewer
from xsvggt_ros.recordings.recording import Recording


class Stream:
    """A recording stream that remembers what it was sent."""

    def __init__(self, name):
        self.sent, self.opened = [], None

    def spawn(self, **how):
        self.opened = 'window'

    def serve_grpc(self, **how):
        self.opened = 'page'
        return 'rerun+http://127.0.0.1:9876/proxy'

    def log(self, path, what, static=False):
        self.sent.append((path, what))

    def __getattr__(self, name):   # set_time, send_blueprint, flush
        return lambda *arguments, **named: None


@pytest.fixture
def streams(monkeypatch):
    rerun = pytest.importorskip('rerun', reason='rerun-sdk is 170 MB')
    made = []

    def make(name):
        made.append(Stream(name))
        return made[-1]

    monkeypatch.setattr(rerun, 'RecordingStream', make)
    monkeypatch.setattr(rerun, 'serve_web_viewer', lambda **how: made.append(how))
    return made


def test_frames_are_shown_with_their_colours_in_bounded_memory(streams):
    viewer = LiveViewer('a run', {'DISPLAY': ':0'})
    recording = Recording()
    for number in range(6):
        frame = frame_of(number, turned(5.0 * number))
        recording.poses.append(frame.pose)
        viewer.show(frame)
    viewer.finish(recording)
    stream, = streams
    assert stream.opened == 'window' and not viewer.is_page
    paths = [path for path, _ in stream.sent]
    for path in ('odom/camera/image', 'odom/camera/image/rgb', 'plots/latency_ms', 'odom/map',
                 'plots/cache_occupancy', 'odom/trajectory'):
        assert path in paths
    assert sum(path == 'odom/camera' for path in paths) == 6
    clouds = [(path, what) for path, what in stream.sent
              if path.startswith('odom/clouds/') and type(what).__name__ == 'Points3D']
    assert [path for path, _ in clouds] == ['odom/clouds/0', 'odom/clouds/1']
    colours = clouds[0][1].colors.as_arrow_array().to_pylist()
    assert set(colours) == {0x090909ff}
    assert CLOUDS < 100


def test_without_a_display_there_is_a_page(streams, monkeypatch, capsys):
    viewer = LiveViewer('a run', {})
    assert viewer.address == 'http://localhost:9090/?url=rerun%2Bhttp://127.0.0.1:9876/proxy'
    assert streams[1] == {'open_browser': False, 'connect_to': 'rerun+http://127.0.0.1:9876/proxy'}
    read = []
    monkeypatch.setattr(sys, 'stdin', SimpleNamespace(
        isatty=lambda: True, readline=lambda: read.append(1)))
    viewer.finish(Recording())
    assert read and 'until Enter' in capsys.readouterr().out


def test_a_viewer_that_cannot_be_opened_is_one_line(streams, monkeypatch):
    monkeypatch.setattr(Stream, 'spawn', lambda self, **how: (_ for _ in ()).throw(
        RuntimeError('Failed to find Rerun\nViewer executable in PATH')))
    with pytest.raises(ToolError, match='--viewer: cannot be opened: Failed to find Rerun Viewer'):
        LiveViewer('a run', {'DISPLAY': ':0'})


def test_without_rerun_the_run_does_not_begin(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'rerun', None)
    assert main(['reconstruct', '--viewer', '--frames', '2', '--out', str(tmp_path)]) == 1
    assert '--viewer needs rerun-sdk: pip install rerun-sdk' in capsys.readouterr().err


def test_a_run_is_shown_on_a_real_page(tmp_path, monkeypatch, capsys):
    """The server of Rerun gives the page, and takes what is logged."""
    pytest.importorskip('rerun', reason='rerun-sdk is 170 MB')
    for port in (9090, 9876):
        with socket.socket() as probe:
            if probe.connect_ex(('127.0.0.1', port)) == 0:
                pytest.skip(f'port {port} is in use')
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, 'stdin', SimpleNamespace(isatty=lambda: False))
    assert main(['reconstruct', '--viewer', '--size', '112x84', '--image-size', '56',
                 '--max-tokens', '60', '--frames', '3', '--out', str(tmp_path)]) == 0
    assert 'viewer: http://localhost:9090/?url=' in capsys.readouterr().out
    from urllib.request import urlopen
    with urlopen('http://localhost:9090/', timeout=60) as page:
        assert b'Rerun' in page.read()
