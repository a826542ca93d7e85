"""Container files and the Foxglove layout name what is there; no Docker is needed."""

import json
from pathlib import Path
import re
import subprocess

import pytest

from xsvggt_ros import launch_arguments

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / 'docker'
yaml = pytest.importorskip('yaml')


def services(name):
    return yaml.safe_load((DOCKER / name).read_text())['services']


def test_the_image_is_built_from_what_is_there():
    text = (DOCKER / 'Dockerfile').read_text()
    for sources in re.findall(r'^COPY (.+) \S+$', text, re.M):
        for source in sources.split():
            assert (ROOT / source).exists(), source
    variables = dict(re.findall(r'(\w+)=(\S+)', text[text.index('ENV RMW'):]))
    profile = variables['FASTDDS_DEFAULT_PROFILES_FILE'].removeprefix(
        '/workspace/src/xsvggt_ros/')
    assert (ROOT / profile).is_file()
    assert 'COLCON_IGNORE' not in {entry.name for entry in ROOT.iterdir()}


def test_the_shell_reads_the_entry_point():
    subprocess.run(['bash', '-n', str(DOCKER / 'entrypoint.sh')], check=True)


def test_the_services_are_started_with_arguments_that_exist():
    found = services('compose.yaml')
    assert set(found) == {'node', 'camera', 'viewer'}
    context = DOCKER / found['node']['build']['context']
    assert (context / found['node']['build']['dockerfile']).samefile(DOCKER / 'Dockerfile')
    launch = found['node']['command'].split()
    assert launch[:4] == ['ros2', 'launch', 'xsvggt_ros', 'stream.launch.py']
    known = {**launch_arguments.PARAMETERS, **launch_arguments.OTHERS}
    for argument in launch[4:]:
        assert argument.partition(':=')[0] in known
    for service in found.values():
        assert service['image'] == 'xsvggt_ros'
        assert (service['network_mode'], service['ipc']) == ('host', 'host')
    assert set(services('compose.gpu.yaml')) <= set(found)


def test_foxglove_shows_what_the_node_publishes():
    layout = json.loads((ROOT / 'config' / 'stream.foxglove.json').read_text())
    text = json.dumps(layout['configById'])
    topics = set(re.findall(r'"(/xsvggt/[a-z_/]+)', text))
    publishers = (ROOT / 'xsvggt_ros' / 'node' / 'outputs' / 'publishers.py').read_text()
    published = {'/xsvggt/' + name for name in re.findall(r"'~/([a-z_/]+)'", publishers)}
    assert topics <= published and '/xsvggt/map_points' in topics

    def panels(node):
        return [node] if isinstance(node, str) else panels(node['first']) + panels(node['second'])

    assert sorted(panels(layout['layout'])) == sorted(layout['configById'])
    for topic, field in re.findall(r'"/xsvggt/(\w+)\.(\w+)"', text):
        kind = ''.join(word.capitalize() for word in topic.split('_'))
        message = ROOT / 'msg' / f'{kind.replace("Status", "") or "Stream"}Status.msg'
        assert re.search(rf'^\w+ {field}$', message.read_text(), re.M), (topic, field)
