"""What builds, installs and starts the package names things that exist and agree."""

import ast
import os
from pathlib import Path
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
import zipfile

import pytest
import torch

from xsvggt_ros import launch_arguments
from xsvggt_ros.console.measurement import load_network
from xsvggt_ros.kernels import native

ROOT = Path(__file__).resolve().parents[2]
HEADERS = sorted(file.stem for file in (ROOT / 'xsvggt_ros' / 'kernels').glob('*.h'))

ROS_PACKAGES = {
    'ament_index_python', 'builtin_interfaces', 'composition_interfaces', 'cv_bridge',
    'diagnostic_msgs', 'diagnostic_updater', 'geometry_msgs', 'launch', 'launch_ros',
    'lifecycle_msgs', 'message_filters', 'nav_msgs', 'rcl_interfaces', 'rclpy', 'sensor_msgs',
    'sensor_msgs_py', 'std_msgs', 'std_srvs', 'tf2_geometry_msgs', 'tf2_msgs', 'tf2_ros',
    'tf_transformations', 'visualization_msgs'}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def manifest() -> ElementTree.Element:
    return ElementTree.parse(ROOT / 'package.xml').getroot()


def declared_dependencies() -> set[str]:
    return {element.text for element in manifest() if element.tag.endswith('depend')}


def imported_packages(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.partition('.')[0])
    return names


def project(name: str) -> str:
    """Return a value of pyproject.toml."""
    return re.search(rf"^{name} = '(.+)'$", (ROOT / 'pyproject.toml').read_text(), re.M)[1]


def has_main(path: Path) -> bool:
    """Return whether a module defines main or imports it."""
    names = {getattr(node, 'name', None) for node in parse(path).body}
    names |= {alias.asname or alias.name for node in parse(path).body
              if isinstance(node, ast.ImportFrom) for alias in node.names}
    return 'main' in names


def test_manifest_is_complete():
    package = manifest()
    assert (package.tag, package.get('format')) == ('package', '3')
    assert package.findtext('name') == 'xsvggt_ros'
    assert package.findtext('license') == 'Apache-2.0'
    assert (ROOT / package.find('license').get('file')).is_file()
    assert re.fullmatch(r'\S+@\S+\.\S+', package.find('maintainer').get('email'))
    assert package.findtext('member_of_group') == 'rosidl_interface_packages'
    assert package.findtext('export/build_type') == 'ament_cmake'


def test_versions_agree():
    assert project('version') == manifest().findtext('version')


@pytest.mark.parametrize('folder', ['xsvggt_ros', 'launch'])
def test_every_ros_package_imported_is_declared(folder):
    imported = set().union(*map(imported_packages, (ROOT / folder).rglob('*.py')))
    assert imported & ROS_PACKAGES <= declared_dependencies()
    assert 'rclpy' in imported or 'launch_ros' in imported


def test_every_python_folder_is_a_package():
    for module in (ROOT / 'xsvggt_ros').rglob('*.py'):
        assert (module.parent / '__init__.py').is_file(), module
    generated = {'msg', 'srv', 'action'}
    assert not generated & {path.name for path in (ROOT / 'xsvggt_ros').iterdir()}


def test_console_script_exists():
    module, function = project('xsvggt').split(':')
    assert f'\ndef {function}() -> NoReturn:' in (
        ROOT / f'{module.replace(".", "/")}.py').read_text()


def test_everything_cmake_names_exists():
    text = (ROOT / 'CMakeLists.txt').read_text()
    messages = re.findall(r'msg/\w+\.msg', text)
    assert sorted(messages) == sorted(f'msg/{path.name}' for path in (ROOT / 'msg').glob('*.msg'))
    executables, = re.findall(r'foreach\(executable IN ITEMS (.+)\)', text)
    assert 'node/stream_node' in executables.split()
    for executable in executables.split():
        assert has_main(ROOT / 'xsvggt_ros' / f'{executable}.py'), executable
    for folder in re.findall(r'^install\(DIRECTORY ([\w ]+) DESTINATION', text, re.M)[0].split():
        assert any((ROOT / folder).iterdir()), folder


def test_every_requirement_is_pinned():
    def lines(name):
        text = (ROOT / 'ci' / name).read_text()
        return [line for line in text.splitlines() if line and not line.startswith('#')]

    pins = dict(line.split('==') for line in lines('constraints.txt'))
    assert {line.replace('_', '-') for line in lines('requirements.txt')} <= set(pins)


def test_make_demo_takes_any_name_of_a_folder():
    if shutil.which('make') is None or not (ROOT / 'Makefile').is_file():
        pytest.skip('there is no make, or no checkout')
    name = 'it\'s "my" dir, new'
    shown = subprocess.run(['make', '-n', 'demo', f'INPUT={name}', 'INPUT_TOPIC=/left/image'],
                           cwd=ROOT, check=True, capture_output=True, text=True).stdout
    words = shlex.split(shown)
    assert words[words.index('--input') + 1] == name
    assert words[words.index('--input-topic') + 1] == '/left/image'


def test_middleware_profile_has_room_for_images():
    name = '{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}'
    profiles = ElementTree.parse(ROOT / 'config' / 'fastdds.xml').getroot().find(f'{name}profiles')
    transports = {element.findtext(f'{name}type'): element
                  for element in profiles.iter(f'{name}transport_descriptor')}
    assert set(transports) == {'SHM', 'UDPv4'}
    assert int(transports['SHM'].findtext(f'{name}segment_size')) >= 32 * 1024 ** 2
    participant = profiles.find(f'{name}participant')
    assert participant.get('is_default_profile') == 'true'
    used = [element.text for element in participant.find(f'{name}rtps/{name}userTransports')]
    assert used == [element.findtext(f'{name}transport_id') for element in transports.values()]
    assert participant.findtext(f'{name}rtps/{name}useBuiltinTransports') == 'false'


def test_rviz_shows_what_the_node_publishes():
    yaml = pytest.importorskip('yaml')
    config = yaml.safe_load((ROOT / 'config' / 'stream.rviz').read_text())['Visualization Manager']
    table = parameter_table()
    assert config['Global Options']['Fixed Frame'] == table['odom_frame'].default
    topics = {display['Topic']['Value']: display['Topic']['Reliability Policy']
              for display in config['Displays'] if 'Topic' in display}
    assert [display['Topic']['Value'] for display in config['Displays'] if 'Topic' in display
            and display['Topic']['Durability Policy'] == 'Transient Local'
            ] == ['/xsvggt/map_points', '/xsvggt/occupancy', '/xsvggt/path', '/xsvggt/keyframes']
    assert topics == {'/xsvggt/points': 'Reliable', '/xsvggt/map_points': 'Reliable',
                      '/xsvggt/occupancy': 'Reliable', '/xsvggt/path': 'Reliable',
                      '/xsvggt/odometry': 'Reliable', '/xsvggt/keyframes': 'Reliable',
                      launch_arguments.OTHERS['image_topic'].default: 'Best Effort'}


def parameter_table() -> dict:
    pytest.importorskip('rclpy', reason='the parameter table needs ROS 2')
    from xsvggt_ros.node.parameters import TABLE
    return {parameter.name: parameter for parameter in TABLE}


CACHE_STATUS = {
    'header': 'std_msgs/Header', 'frame_index': 'uint64', 'layers': 'uint32',
    'tokens_per_frame': 'uint32', 'tokens_used': 'uint32', 'tokens_budget': 'uint32',
    'tokens_limit': 'uint32', 'occupancy': 'float', 'tokens_evicted': 'uint32',
    'tokens_evicted_total': 'uint64',
    'tokens_first': 'uint32', 'tokens_history': 'uint32', 'tokens_newest': 'uint32',
    'frames_represented': 'float', 'attention_kept': 'float',
    'bytes_used': 'uint64', 'bytes_budget': 'uint64', 'gpu_bytes_allocated': 'uint64',
    'gpu_bytes_reserved': 'uint64', 'gpu_bytes_free': 'uint64', 'gpu_bytes_total': 'uint64'}
STREAM_STATUS = {
    'header': 'std_msgs/Header', 'state': 'uint8', 'model': 'string', 'random_weights': 'boolean',
    'frames_received': 'uint64', 'frames_processed': 'uint64', 'frames_dropped': 'uint64',
    'frames_rejected': 'uint64', 'frames_skipped': 'uint64', 'frames_collected': 'uint32',
    'frames_to_collect': 'uint32', 'latency_total': 'float',
    'latency_decode': 'float', 'latency_upload': 'float', 'latency_inference': 'float',
    'latency_pack': 'float', 'latency_publish': 'float', 'latency_p50': 'float',
    'latency_p95': 'float',
    'latency_p99': 'float', 'rate_in': 'float', 'rate_out': 'float',
    'confidence_mean': 'float', 'depth_error': 'float', 'points_published': 'uint32',
    'metric': 'boolean',
    'scale': 'double', 'scale_uncertainty': 'double', 'pose_source': 'string',
    'pose_inliers': 'uint32', 'reprojection_error': 'float', 'keyframes': 'uint32',
    'loops_closed': 'uint32', 'loops_refused': 'uint32', 'drift_corrected': 'double',
    'drift_corrected_angle': 'double', 'localizing': 'boolean', 'localized': 'boolean',
    'localized_since': 'builtin_interfaces/Time', 'localization_confirmations': 'uint32',
    'reset_count': 'uint32'}


@pytest.mark.parametrize('name, fields', [
    ('CacheStatus', CACHE_STATUS), ('StreamStatus', STREAM_STATUS)])
def test_message_fields(name, fields):
    messages = pytest.importorskip('xsvggt_ros.msg', reason='messages need ROS 2')
    assert getattr(messages, name).get_fields_and_field_types() == fields


def test_stream_states_are_distinct():
    status = pytest.importorskip('xsvggt_ros.msg', reason='messages need ROS 2').StreamStatus
    states = ('WAITING', 'WARMING_UP', 'TRACKING', 'DEGRADED', 'PAUSED')
    assert [getattr(status, state) for state in states] == list(range(len(states)))


@pytest.mark.parametrize('path', sorted((ROOT / 'msg').glob('*.msg')), ids=lambda path: path.stem)
def test_every_message_field_is_explained(path):
    above = ''
    for line in path.read_text().splitlines():
        assert not line or line.startswith('#') or above.startswith('#'), f'{path.name}: {line}'
        above = line


def test_tf_message_is_the_one_of_other_installations():
    rclpy = pytest.importorskip('rclpy')
    from tf2_msgs.msg import TFMessage
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('test_packaging', context=context)
    try:
        node.create_publisher(TFMessage, 'test_tf', 1)
        endpoint, = node.get_publishers_info_by_topic('test_tf')
        if hasattr(endpoint, 'topic_type_hash'):  # not in Humble
            assert str(endpoint.topic_type_hash) == (
                'RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087')
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


# Kernels by pip ----------------------------------------------------------------------------------

@pytest.fixture
def source(tmp_path):
    """Return what setup.py needs, in a folder of its own."""
    folder = tmp_path / 'source'
    (folder / 'xsvggt_ros' / 'kernels').mkdir(parents=True)
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'xsvggt_ros/__init__.py',
                 'xsvggt_ros/kernels/native.py', 'xsvggt_ros/kernels/native.cpp',
                 *(f'xsvggt_ros/kernels/{name}.h' for name in HEADERS),
                 'xsvggt_ros/kernels/__init__.py'):
        shutil.copy(ROOT / name, folder / name)
    return folder


def run_setup(folder, *arguments, **environment):
    """Run setup.py; return what it printed."""
    done = subprocess.run(
        [sys.executable, 'setup.py', *arguments], cwd=folder, text=True, timeout=280,
        env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_pip_and_cmake_build_the_kernels_with_the_same_flags():
    cmake = (ROOT / 'CMakeLists.txt').read_text()
    options = re.search(r'target_compile_options\(.*?PRIVATE\s+(.*?) \$<', cmake, re.S)[1]
    # cxx_std_17 is gnu++17 for CMake; a module of CMake is shared and -fPIC.
    assert {'-fvisibility=hidden', '-std=gnu++17'} <= flags_of_setup()
    assert 'CXX_VISIBILITY_PRESET hidden' in cmake and 'cxx_std_17' in cmake
    assert set(options.split()) == flags_of_setup() - {
        '-fvisibility=hidden', '-std=gnu++17', '-fPIC', '-shared', '-DNDEBUG'}
    named = set(re.findall(r'native_(x86-64-v\d)', cmake))
    assert named == set(re.findall(r"'(x86-64-v\d)'", (ROOT / 'setup.py').read_text()))


def flags_of_setup():
    values = [node.value for node in parse(ROOT / 'setup.py').body
              if isinstance(node, ast.Assign) and node.targets[0].id == 'FLAGS']
    return set(ast.literal_eval(values[0]))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which('c++'), reason='there is no C++ compiler')
def test_a_wheel_carries_the_kernels(source, tmp_path):
    pytest.importorskip('setuptools.command.bdist_wheel')
    run_setup(source, 'sdist', '-d', str(tmp_path), 'bdist_wheel', '-d', str(tmp_path))
    wheel, = tmp_path.glob('*.whl')
    assert '-py3-none-' in wheel.name and not wheel.name.endswith('-any.whl')
    with zipfile.ZipFile(wheel) as content:
        built = [name for name in content.namelist() if name.endswith('.so')]
        content.extractall(tmp_path / 'wheel', built)
    assert {Path(name).name for name in built} >= {file.name for file in native.files()}
    for name in built:
        if Path(name).name in native.FILES.get(
                torch.backends.cpu.get_cpu_capability(), ('native.so',)):
            assert native.load(tmp_path / 'wheel' / name) is not None
    with tarfile.open(next(tmp_path.glob('*.tar.gz'))) as archive:
        for name in ('native.cpp', *(f'{name}.h' for name in HEADERS)):
            assert any(path.endswith(f'kernels/{name}') for path in archive.getnames())


@pytest.mark.parametrize('compiler', ['no-such-compiler', 'false'])
def test_without_a_compiler_it_installs_and_says_so(source, tmp_path, compiler):
    printed = run_setup(source, 'build', '--build-lib', str(tmp_path / 'lib'), CXX=compiler)
    assert 'left out' in printed
    assert (tmp_path / 'lib/xsvggt_ros/kernels/native.py').is_file()
    assert not list(tmp_path.rglob('*.so'))


def test_missing_kernels_are_said_on_the_console(monkeypatch, capsys):
    monkeypatch.delenv('XSVGGT_NATIVE', raising=False)
    monkeypatch.setattr(native, 'library', lambda: None)
    monkeypatch.setattr(native, 'files', list)
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: 'AVX2')
    load_network('random', 'small', torch.device('cpu'))
    line = capsys.readouterr().err
    assert line.count('\n') == 1 and 'were not built' in line and 'pip install .' in line
    monkeypatch.setattr(native, 'files', lambda: [Path('old.so')])
    assert 'another version' in native.why_missing()
    monkeypatch.setenv('XSVGGT_NATIVE', '0')  # as wanted
    assert native.why_missing() is None
    monkeypatch.undo()
    assert native.library() is None or native.why_missing() is None
