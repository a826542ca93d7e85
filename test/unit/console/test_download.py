"""Files from a server that drops connections, lies, redirects and refuses."""

from functools import partial
import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
from pathlib import Path
import threading

import pytest
import torch

from xsvggt_ros.cli.main import main
from xsvggt_ros.console.download import describe, download, DownloadError
from xsvggt_ros.model import checkpoint, public_weights
from xsvggt_ros.model.checkpoint import CheckpointError, load_model

CONTENT = bytes(range(256)) * 500


class Server:
    """A web server with one file, and what is wrong with it."""

    def __init__(self, content=CONTENT):
        self.content, self.sha256 = content, hashlib.sha256(content).hexdigest()
        self.drop_after = None     # bytes of an answer after which the connection ends
        self.refuse = None         # an error code
        self.ranges, self.tokens = [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *unused):
                pass

            def do_HEAD(self):
                outer.tokens.append(self.headers.get('Authorization'))
                if outer.refuse:
                    self.send_error(outer.refuse)
                    return
                self.send_response(302)
                self.send_header('X-Linked-ETag', f'"{outer.sha256}"')
                self.send_header('X-Linked-Size', str(len(outer.content)))
                self.send_header('Location', '/elsewhere')
                self.end_headers()

            def do_GET(self):
                if outer.refuse:
                    self.send_error(outer.refuse)
                    return
                if self.path != '/elsewhere':
                    self.send_response(302)
                    self.send_header('Location', f'http://localhost:{outer.port}/elsewhere')
                    self.send_header('Content-Length', '0')
                    self.end_headers()
                    return
                outer.tokens.append(self.headers.get('Authorization'))
                wanted = self.headers.get('Range', '')
                outer.ranges.append(wanted)
                start = int(wanted[6:-1]) if wanted else 0
                body = outer.content[start:]
                self.send_response(206 if wanted else 200)
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                self.wfile.write(body[:outer.drop_after])

        self.http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.port = self.http.server_address[1]
        self.url = f'http://127.0.0.1:{self.port}/some/file'
        self.thread = threading.Thread(target=partial(self.http.serve_forever, 0.01))
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


def no_wait(seconds):
    pass


def test_a_file_is_fetched_and_checked(server, tmp_path):
    remote = describe(server.url)
    assert (remote.size, remote.sha256) == (len(CONTENT), server.sha256)
    seen = []
    download(remote, tmp_path / 'a', progress=seen.append)
    assert (tmp_path / 'a').read_bytes() == CONTENT and seen[-1] == len(CONTENT)
    assert [file.name for file in tmp_path.iterdir()] == ['a']


def test_connections_that_end_early_are_gone_on_with(server, tmp_path):
    server.drop_after = 50_000
    download(describe(server.url), tmp_path / 'a', wait=no_wait)
    assert (tmp_path / 'a').read_bytes() == CONTENT
    assert server.ranges == ['', 'bytes=50000-', 'bytes=100000-']


def test_what_an_earlier_run_left_is_gone_on_with(server, tmp_path):
    (tmp_path / 'a.part').write_bytes(CONTENT[:77_000])
    download(describe(server.url), tmp_path / 'a')
    assert (tmp_path / 'a').read_bytes() == CONTENT and server.ranges == ['bytes=77000-']


def test_a_server_that_gives_nothing_is_given_up(server, tmp_path):
    remote = describe(server.url)
    server.drop_after = 0
    (tmp_path / 'a.part').write_bytes(CONTENT[:10])
    with pytest.raises(DownloadError, match='ended early; what is here stays in .*a.part'):
        download(remote, tmp_path / 'a', wait=no_wait)
    assert (tmp_path / 'a.part').read_bytes() == CONTENT[:10]


def test_damage_is_not_kept(server, tmp_path):
    (tmp_path / 'a.part').write_bytes(b'wrong')
    with pytest.raises(DownloadError, match='damaged and was removed: its SHA-256 is'):
        download(describe(server.url), tmp_path / 'a')
    assert not list(tmp_path.iterdir())
    download(describe(server.url), tmp_path / 'a')
    assert (tmp_path / 'a').read_bytes() == CONTENT


@pytest.mark.parametrize('code, words', [
    (401, 'set HF_TOKEN'), (403, 'accept the terms'), (404, 'no such file'), (500, 'error 500')])
def test_refusals_say_what_to_do(server, code, words):
    server.refuse = code
    with pytest.raises(DownloadError, match=words):
        describe(server.url)


def test_a_token_goes_to_its_host_alone(server, tmp_path):
    download(describe(server.url, 'secret'), tmp_path / 'a', 'secret')
    assert server.tokens == ['Bearer secret', None]   # localhost is another host than 127.0.0.1


def test_no_network_is_said(tmp_path):
    with pytest.raises(DownloadError, match='the server cannot be reached'):
        describe('http://127.0.0.1:9/a')


# The command -------------------------------------------------------------------------------------

@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv('XSVGGT_WEIGHTS', str(tmp_path / 'weights'))
    monkeypatch.delenv('HF_TOKEN', raising=False)
    return tmp_path / 'weights'


@pytest.fixture
def published(tmp_path):
    """Return a server that has the shipped network as somebody would publish it."""
    model = load_model('small').model
    torch.save(model.state_dict(), tmp_path / 'public.pth')
    config = model.config.to_dict()
    made = Server((tmp_path / 'public.pth').read_bytes())
    yield made, config
    made.close()


def test_fetched_weights_are_found_by_their_name(folder, published, monkeypatch, capsys):
    server, config = published
    monkeypatch.setenv('HF_ENDPOINT', f'http://127.0.0.1:{server.port}')
    monkeypatch.setattr('builtins.input', lambda question: 'no')
    with pytest.raises(CheckpointError, match='xsvggt weights streamvggt fetches them'):
        load_model('streamvggt')
    assert main(['weights', 'streamvggt']) == 1
    assert '--accept-licence says that you accept them' in capsys.readouterr().err
    assert not server.ranges

    folder.mkdir()   # 'small' has another depth than the public one: what it is stands beside it
    (folder / 'streamvggt.checkpoints.json').write_text(json.dumps(config))
    assert main(['weights', 'streamvggt', '--accept-licence']) == 0
    told = capsys.readouterr().out
    assert 'lch01/StreamVGGT: CC BY-NC-SA 4.0' in told and '--checkpoint streamvggt' in told
    loaded = load_model('streamvggt')
    ours = load_model('small').model.state_dict()
    for key, weight in loaded.model.state_dict().items():
        assert torch.equal(weight, ours[key].to(torch.bfloat16).to(weight.dtype))
    assert sorted(file.name for file in folder.iterdir()) == [
        'streamvggt.checkpoints.json', 'streamvggt.safetensors']
    assert main(['weights', 'streamvggt']) == 0
    assert 'is here already' in capsys.readouterr().out
    assert main(['weights']) == 0
    assert f'here: {folder}' in capsys.readouterr().out


def test_a_network_that_fails_says_how_else(folder, monkeypatch, capsys):
    monkeypatch.setenv('HF_ENDPOINT', 'http://127.0.0.1:9')
    assert main(['weights', 'streamvggt', '--accept-licence']) == 1
    words = capsys.readouterr().err
    assert 'cannot be reached' in words and 'xsvggt weights streamvggt --from FILE' in words


def test_another_file_is_refused(folder, tmp_path, capsys):
    (tmp_path / 'a.pth').write_bytes(b'<html>')
    assert main(['weights', 'streamvggt', '--accept-licence', '--from',
                 str(tmp_path / 'a.pth')]) == 1
    assert 'web page' in capsys.readouterr().err
    assert not (folder / 'streamvggt.safetensors').exists()


def test_the_launch_file_knows_them(folder):
    from xsvggt_ros import launch_arguments
    file = Path(__file__).parents[3] / 'config' / 'stream.yaml'
    values = {'params_file': str(file), 'checkpoint': 'streamvggt', 'bag': '', 'rviz': False,
              'input': '', 'calibration': ''}
    with pytest.raises(ValueError, match='xsvggt weights streamvggt fetches them'):
        launch_arguments.check_files(values)
    folder.mkdir()
    public_weights.fetched_file('streamvggt').write_bytes(b'')
    launch_arguments.check_files(values)
    assert checkpoint.public_weights is public_weights
