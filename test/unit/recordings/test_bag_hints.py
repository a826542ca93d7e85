"""What a bag knows beside its images: metres by depth and odometry, the robot's base by TF."""

import json

import numpy as np
import pytest
from recording_maker import (
    depth_picture,
    IMAGE,
    image_items,
    Messages,
    odometry_message,
    PICTURE,
    SIZE,
    START,
    tf_message,
    TOPIC,
    write_mcap,
    write_ros1,
)

from xsvggt_ros.cli.main import main
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.images.depth_codec import decode_compressed_depth
from xsvggt_ros.images.image_codec import ImageError
from xsvggt_ros.mapping.map_files import read_tum
from xsvggt_ros.recordings.frame_source import open_source
from xsvggt_ros.recordings.inputs.bag_hints import HintChoice
from xsvggt_ros.world.synthetic_world import SyntheticWorld

COUNT = 12
STAMPS = [START + 200_000_000 * number for number in range(COUNT)]
WORLD = SyntheticWorld(3, *SIZE)
FRAMES = [WORLD.frame(0.2 * number) for number in range(COUNT)]
DEPTH, ODOMETRY = '/camera/aligned_depth_to_color/image_raw', 'nav_msgs/msg/Odometry'
TF = 'tf2_msgs/msg/TFMessage'
# A camera half a metre before the robot's base, looking forward.
BASE_FROM_CAMERA = np.array([[0, 0, 1, 0.5], [-1, 0, 0, 0.1], [0, -1, 0, 0.3], [0, 0, 0, 1.0]])


def images(messages):
    return image_items(messages, [frame.image for frame in FRAMES], STAMPS)


def depths(messages, topic=DEPTH):
    return [(topic, IMAGE, stamp, messages.image(
        np.rint(frame.depth * 1000).astype(np.uint16), stamp + 3_000_000, '16UC1', padding=3))
        for frame, stamp in zip(FRAMES, STAMPS)]


def odometries(messages, topic='/odom', child='base_link'):
    """Return the base's poses at 20 Hz in a frame of their own."""
    items = []
    for number in range(-1, 4 * COUNT + 1):
        stamp = START + 50_000_000 * number
        camera = WORLD.path.world_from_camera(0.05 * number)
        body = camera @ np.linalg.inv(BASE_FROM_CAMERA) if child == 'base_link' else camera
        items.append((topic, ODOMETRY, stamp, odometry_message(messages, stamp, body, child)))
    return items


def static(messages):
    return [('/tf_static', TF, STAMPS[0], tf_message(
        messages, STAMPS[0], 'base_link', 'camera', BASE_FROM_CAMERA))]


def hinted(path, choice):
    source = open_source(path, hints=choice)
    return source.hints, [frame.hints for frame in source.frames()]


# What comes with the images ----------------------------------------------------------------------

def test_depth_comes_with_the_image_of_its_time(tmp_path):
    messages = Messages()
    path = write_mcap(tmp_path / 'a.mcap', images(messages) + depths(messages))
    hints, found = hinted(path, HintChoice('auto'))
    assert hints.depth_topic == DEPTH and hints.odometry_topic is None
    for frame, hint in zip(FRAMES, found):
        np.testing.assert_allclose(hint.depth, frame.depth, atol=6e-4)
    assert hinted(path, HintChoice('none'))[1][0].depth is None


@pytest.mark.parametrize('kind, tolerance', [('16UC1', 6e-4), ('32FC1', 0.02)])
def test_depth_that_was_compressed_is_read(tmp_path, kind, tolerance):
    messages = Messages()
    path = write_mcap(tmp_path / 'a.mcap', images(messages) + [
        ('/camera/depth_registered/compressedDepth', PICTURE, stamp,
         depth_picture(messages, frame.depth, stamp, kind))
        for frame, stamp in zip(FRAMES, STAMPS)])
    _, found = hinted(path, HintChoice('auto'))
    for frame, hint in zip(FRAMES, found):
        np.testing.assert_allclose(hint.depth, frame.depth, atol=tolerance)


@pytest.mark.parametrize('change', [
    lambda message: setattr(message, 'data', message.data[:10]),
    lambda message: setattr(message, 'data', message.data[:40]),
    lambda message: setattr(message, 'format', '16UC1; compressedDepth rvl'),
    lambda message: setattr(message, 'data', np.zeros(100, np.uint8))])
def test_compressed_depth_that_is_none_is_refused(change):
    message = depth_picture(Messages(), FRAMES[0].depth, START)
    change(message)
    with pytest.raises(ImageError):
        decode_compressed_depth(message)


@pytest.mark.parametrize('ros1', [False, True])
def test_odometry_of_the_base_is_moved_to_the_camera_on_it(tmp_path, ros1):
    messages = Messages(ros1)
    items = sorted(image_items(messages, [frame.image for frame in FRAMES], STAMPS)
                   + odometries(messages) + static(messages), key=lambda item: item[2])
    write = write_ros1 if ros1 else write_mcap
    path = write(tmp_path / ('a.bag' if ros1 else 'a.mcap'), items)
    hints, found = hinted(path, HintChoice('auto'))
    assert hints.odometry_topic == '/odom'
    for number, hint in enumerate(found):
        place, piece = hint.position
        assert piece == 0
        true = WORLD.path.world_from_camera(0.2 * number)[:3, 3]
        np.testing.assert_allclose(place, true, atol=1e-6)


def test_the_camera_s_place_on_a_base_that_moves_is_that_of_the_time(tmp_path):
    messages = Messages()
    def lifted(stamp):
        matrix = BASE_FROM_CAMERA.copy()
        matrix[2, 3] += (stamp - START) * 1e-9
        return matrix

    mast = [('/tf', TF, stamp, tf_message(messages, stamp, 'base_link', 'camera', lifted(stamp)))
            for stamp in range(START - 10 ** 9, STAMPS[-1], 10 ** 8)]
    path = write_mcap(tmp_path / 'a.mcap', images(messages) + mast)
    _, found = hinted(path, HintChoice(base_frame='base_link'))
    for stamp, hint in zip(STAMPS[:-1], found):
        np.testing.assert_allclose(hint.base_from_camera, lifted(stamp), atol=1e-6)
    np.testing.assert_allclose(found[-1].base_from_camera, lifted(STAMPS[-2]), atol=1e-6)


def test_topics_that_cannot_be_told_apart_are_listed(tmp_path, caplog):
    messages = Messages()
    path = write_mcap(tmp_path / 'a.mcap', images(messages) + odometries(messages)
                      + odometries(messages, '/wheels') + depths(messages, '/a/depth')
                      + depths(messages, '/b/depth'))
    hints, _ = hinted(path, HintChoice('auto'))
    assert hints.describe() == ''
    assert '--depth-topic takes one; there are: /a/depth, /b/depth' in caplog.text
    assert '--odometry-topic takes one; there are: /odom, /wheels' in caplog.text
    hints, _ = hinted(path, HintChoice('auto', 'a/depth', '/wheels'))
    assert (hints.depth_topic, hints.odometry_topic) == ('/a/depth', '/wheels')
    for choice, words in [
            (HintChoice('odometry'), 'has 2 topics of odometry: choose with --odometry-topic'),
            (HintChoice('auto', '/c'), '--depth-topic /c: .* no such topic of type depth image'),
            (HintChoice('auto', None, TOPIC), 'no such topic of type nav_msgs/msg/Odometry')]:
        with pytest.raises(ToolError, match=words):
            open_source(path, hints=choice)


def own_outputs(messages, space, topics=('confidence', 'depth/image_rect'), odometry=True):
    """Return what the node publishes: depth and confidence in the frame of the pictures."""
    items = [(f'{space}/{topic}', IMAGE, stamp, messages.image(
        frame.depth.astype(np.float32) / 3, stamp, '32FC1'))
        for topic in topics for frame, stamp in zip(FRAMES, STAMPS)]
    return items + odometries(messages, f'{space}/odometry') * odometry


@pytest.mark.parametrize('space, topics, odometry', [
    ('/robot/xsvggt', (), True), ('/xsvggt', ('confidence',), False),
    ('/xsvggt', ('confidence/compressedDepth',), False),
    ('/renamed', ('confidence', 'depth/image_rect'), True)])
def test_what_this_package_made_is_no_measure_of_metres(tmp_path, caplog, space, topics, odometry):
    messages = Messages()
    own = own_outputs(messages, space, topics, odometry)
    path = write_mcap(tmp_path / 'a.mcap', images(messages) + own)
    hints, found = hinted(path, HintChoice('auto'))
    assert hints.describe() == '' and all(hint.position is hint.depth is None for hint in found)
    told = [record.message for record in caplog.records if 'this package' in record.message]
    names = ', '.join(sorted({name for name, *_ in own}))
    assert told == [f'left out as a measure of metres, for this package made them: {names}']
    kind = 'odometry' if odometry else 'depth'
    with pytest.raises(ToolError, match=f'choose with --{kind}-topic.*this package made: {space}'):
        hinted(path, HintChoice(kind))
    # Beside others it does not count; whoever names it gets it, and is told.
    path = write_mcap(tmp_path / 'b.mcap', images(messages) + own + depths(messages)
                      + odometries(messages))
    hints, _ = hinted(path, HintChoice('auto'))
    assert (hints.depth_topic, hints.odometry_topic) == (DEPTH, '/odom')
    if odometry:
        caplog.clear()
        hints, _ = hinted(path, HintChoice('auto', None, f'{space}/odometry'))
        assert hints.odometry_topic == f'{space}/odometry'
        assert f'--odometry-topic {space}/odometry: this package made it' in caplog.text


def test_a_renamed_node_is_known_by_its_status_and_its_frame(tmp_path):
    from mcap.writer import Writer
    messages = Messages()
    items = odometries(messages, '/a/odometry', 'camera') + odometries(messages, '/b/odometry')
    for _, _, stamp, message in odometries(messages, '/c/pose'):
        message.header.frame_id = 'xsvggt_odom'
        items.append(('/c/pose', ODOMETRY, stamp, message))
    path = tmp_path / 'a.mcap'
    begin = Writer.finish

    def with_status(writer):
        schema = writer.register_schema('xsvggt_ros/msg/CacheStatus', 'ros2msg', b'int32 a\n')
        channel = writer.register_channel('/a/cache_status', 'cdr', schema)
        writer.add_message(channel, START, bytes(8), START)
        begin(writer)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Writer, 'finish', with_status)
        write_mcap(path, images(messages) + items)
    hints, _ = hinted(path, HintChoice('auto'))
    assert hints.odometry_topic == '/b/odometry'


def test_a_base_that_tf_does_not_know_is_one_line(tmp_path):
    messages = Messages()
    path = write_mcap(tmp_path / 'a.mcap', images(messages) + static(messages))
    with pytest.raises(ToolError, match="--base-frame base_lnk: where the camera 'camera' is on "
                                        "it is not known: .*base_link"):
        open_source(path, hints=HintChoice(base_frame='base_lnk'))


# The command -------------------------------------------------------------------------------------

def reconstruct(path, out, *arguments):
    assert main(['reconstruct', str(path), '--out', str(out), *arguments]) == 0
    return json.loads((out / 'report.json').read_text()), read_tum(out / 'trajectory.tum')


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['network', 'optimized'])
def test_metres_come_from_depth_and_all_files_have_them(tmp_path, mode, capsys):
    messages = Messages()
    path = write_mcap(tmp_path / 'a.mcap', images(messages) + depths(messages))
    report, metric = reconstruct(path, tmp_path / 'out', '--export', 'depth', '--trajectory', mode)
    scale = report['scale']
    assert scale['metric'] and scale['source'] == 'depth' and 0 < scale['uncertainty'] < 0.1
    assert 'm a unit' in capsys.readouterr().out
    ratios = []
    for frame, stamp in zip(FRAMES, STAMPS):
        with np.load(tmp_path / 'out' / 'depth' / f'{stamp}.npz') as arrays:
            ratios.append(np.nanmedian(arrays['depth'] / frame.depth))
    assert np.median(ratios) == pytest.approx(1.0, abs=0.15)
    plain, own = reconstruct(path, tmp_path / 'own', '--scale', 'none', '--trajectory', mode)
    assert not plain['scale']['metric']
    for one, other in zip(metric, own):
        np.testing.assert_allclose(
            one.position, np.multiply(other.position, scale['metres_per_unit']), atol=1e-5)


@pytest.mark.slow
def test_metres_come_from_odometry_and_the_drift_is_told(tmp_path):
    messages = Messages()
    path = write_mcap(tmp_path / 'a.mcap', sorted(
        images(messages) + odometries(messages) + static(messages), key=lambda item: item[2]))
    report, poses = reconstruct(path, tmp_path / 'out')
    assert report['scale']['source'] == 'odometry'
    true = np.array([frame.world_from_camera[:3, 3] for frame in FRAMES])
    length = np.linalg.norm(np.diff(true, axis=0), axis=1).sum()
    assert report['length'] == pytest.approx(length, rel=0.25)
    against = report['against_odometry']
    assert against['compared'] == COUNT and against['ate_ratio'] < 0.2


@pytest.mark.slow
def test_poses_of_the_base_begin_at_the_base(tmp_path):
    messages = Messages()
    path = write_mcap(tmp_path / 'a.mcap', images(messages) + depths(messages) + static(messages))
    _, cameras = reconstruct(path, tmp_path / 'cameras')
    report, bases = reconstruct(path, tmp_path / 'bases', '--base-frame', 'base_link',
                                '--export', 'mcap')
    assert report['base_frame'] == 'base_link'
    np.testing.assert_allclose(bases[0].matrix(), np.eye(4), atol=1e-6)
    flat = np.eye(4)
    flat[:3, :3] = BASE_FROM_CAMERA[:3, :3]
    for camera, base in zip(cameras, bases):   # the same camera, seen from the base's origin
        found = np.linalg.inv(BASE_FROM_CAMERA) @ base.matrix() @ BASE_FROM_CAMERA
        np.testing.assert_allclose(found, np.linalg.inv(flat) @ camera.matrix(), atol=1e-5)

    from rosbags.highlevel import AnyReader
    edges, children = {}, set()
    with AnyReader([tmp_path / 'bases' / 'recording.mcap']) as reader:
        for connection, _, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            if connection.topic in ('/tf', '/tf_static'):
                for edge in message.transforms:
                    edges.setdefault((edge.header.frame_id, edge.child_frame_id), []).append(edge)
            if connection.topic == '/xsvggt/odometry':
                children.add(message.child_frame_id)
    assert children == {'base_link'}
    assert {pair: len(found) for pair, found in edges.items()} == {
        ('xsvggt_odom', 'base_link'): COUNT, ('base_link', 'camera_optical_frame'): COUNT}
    move = edges['base_link', 'camera_optical_frame'][0].transform.translation
    np.testing.assert_allclose((move.x, move.y, move.z), BASE_FROM_CAMERA[:3, 3], atol=1e-9)


def test_what_only_bags_have_is_refused_for_others(tmp_path, capsys):
    for arguments in (['--base-frame', 'base_link'], ['--scale', 'depth']):
        assert main(['reconstruct', *arguments, '--frames', '2', '--out', str(tmp_path)]) == 1
        assert f'{" ".join(arguments[:1])}' in (told := capsys.readouterr().err)
        assert 'is no bag; only bags have depth, odometry and TF' in told
