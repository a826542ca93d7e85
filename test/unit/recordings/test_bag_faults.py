"""Bags as they are in the field: foreign channels, cut off, damaged, two cameras, odd stamps."""

import contextlib
import os
import sqlite3
import sys

import numpy as np
import pytest
from recording_maker import (
    camera_matrix,
    DEFINITIONS,
    IMAGE,
    image_items,
    INFO,
    make_frames,
    Messages,
    PICTURE,
    TOPIC,
    typestore,
    VIDEO,
    write_folder,
    write_mcap,
    write_ros1,
    write_ros2,
)

from xsvggt_ros.cli.main import main
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.recordings.frame_source import open_source

pytest.importorskip('rosbags')
pytest.importorskip('av')
mcap_writer = pytest.importorskip('mcap.writer')

IMAGES, STAMPS = make_frames(5)


def items(**settings):
    return image_items(Messages(), IMAGES, STAMPS, **settings)


def stamps_of(path, **settings):
    return [frame.stamp_ns for frame in open_source(path, **settings).frames()]


# What is in it beside the images -----------------------------------------------------------------

@pytest.mark.parametrize('indexed', [True, False])
def test_channels_that_are_not_ros_are_left_aside(tmp_path, indexed):
    settings = {} if indexed else {'index_types': mcap_writer.IndexType.NONE}
    path = write_mcap(tmp_path / 'a.mcap', items(), others=[
        ('/state', 'jsonschema', 'json', STAMPS[0], b'{}'),
        ('/cloud', 'protobuf', 'protobuf', STAMPS[1], b'\0')], **settings)
    assert stamps_of(path) == STAMPS
    with pytest.raises(ToolError, match='/state: its messages are other, no images; its images:'):
        open_source(path, topic='/state')


def test_each_file_has_its_own_definitions(tmp_path):
    """Two files of one recording may have one type in two versions."""
    old = typestore()
    lines = old.generate_msgdef(IMAGE, ros_version=2)[0].replace('uint32 step\n', '')
    assert 'step' not in lines.partition('MSG:')[0].replace('steps', '')
    write_mcap(tmp_path / 'a_1.mcap', items()[3:])
    with open(tmp_path / 'a_0.mcap', 'wb') as file:
        writer = mcap_writer.Writer(file)
        writer.start('ros2')
        schema = writer.register_schema(IMAGE, 'ros2msg', lines.encode())
        channel = writer.register_channel(TOPIC, 'cdr', schema)
        writer.add_message(channel, STAMPS[0], b'\0\1\0\0' + bytes(60), STAMPS[0])
        writer.finish()
    source = open_source(tmp_path)
    assert [frame.stamp_ns for frame in source.frames()] == STAMPS[2:]
    assert 'skipped 1 images' in source.describe_skipped()


def test_one_camera_sent_raw_and_compressed_is_one(tmp_path):
    messages = Messages()
    path = write_ros2(tmp_path / 'bag', items() + [
        (f'{TOPIC}/compressed', PICTURE, stamp, messages.picture(image, stamp, 'JPEG'))
        for image, stamp in zip(IMAGES, STAMPS)])
    source = open_source(path)
    assert source.topic.name == TOPIC
    assert open_source(path, topic=f'{TOPIC}/compressed').topic.type == PICTURE
    assert open_source(path, topic=TOPIC.strip('/')).topic.name == TOPIC


def test_depth_images_are_not_taken_for_the_camera(tmp_path):
    messages = Messages()
    depth = np.full((84, 112), 1.5, np.float32)
    path = write_ros2(tmp_path / 'bag', items() + [
        ('/camera/depth/image_raw', IMAGE, stamp, messages.image(depth, stamp, '32FC1'))
        for stamp in STAMPS], 'SQLITE3')
    assert open_source(path).topic.name == TOPIC


def test_several_cameras_are_listed_with_counts_and_rates(tmp_path, capsys):
    messages = Messages()
    path = write_ros2(tmp_path / 'bag', items() + [
        ('/right/image_raw', IMAGE, stamp, messages.image(image, stamp))
        for image, stamp in zip(IMAGES[::2], STAMPS[::2])])
    assert main(['reconstruct', str(path), '--out', str(tmp_path / 'out')]) == 1
    words = capsys.readouterr().err
    assert 'has 2 cameras: choose one with --input-topic' in words
    assert f'  {TOPIC}  (sensor_msgs/msg/Image, 5 messages, 10.0 Hz)' in words
    assert '  /right/image_raw  (sensor_msgs/msg/Image, 3 messages, 5.0 Hz)' in words
    assert stamps_of(path, topic='/right/image_raw') == STAMPS[::2]


def test_a_bag_without_images_names_what_it_has(tmp_path):
    path = write_ros2(tmp_path / 'bag', items()[:1])
    with pytest.raises(ToolError, match=f'no colour or grey images.*its topics: {INFO} '):
        open_source(path)
    with pytest.raises(ToolError, match='--input-topic /nothing: .* has no such topic'):
        open_source(path, topic='/nothing')


@pytest.mark.parametrize('change, used', [
    ({}, True), ({'frame': 'another'}, False), ({'matrix': np.zeros((3, 3))}, False)])
def test_the_only_calibration_of_a_bag_is_its_camera_s(tmp_path, change, used):
    messages = Messages()
    info = messages.info(STAMPS[0], matrix=change.get('matrix'))
    info.header.frame_id = change.get('frame', 'camera')
    path = write_ros2(tmp_path / 'bag', [('/elsewhere/info', 'sensor_msgs/msg/CameraInfo',
                                         STAMPS[0], info), *items()[1:]])
    calibration = open_source(path).calibration
    assert (calibration is not None) == used
    if used:
        np.testing.assert_allclose(calibration.camera_matrix, camera_matrix())


# Damage ------------------------------------------------------------------------------------------

def test_a_recording_that_was_not_ended_is_read_as_far_as_it_goes(tmp_path):
    path = write_mcap(tmp_path / 'a.mcap', items(), chunk=40_000)
    data = path.read_bytes()
    path.write_bytes(data[:len(data) * 2 // 3])
    source = open_source(path)
    read = [frame.stamp_ns for frame in source.frames()]
    assert 1 <= len(read) < len(STAMPS) and read == STAMPS[:len(read)]
    assert 'a.mcap: it was not ended' in source.describe_skipped()


@pytest.mark.parametrize('name, content, words', [
    ('a.mcap', b'no mcap at all', 'neither an MCAP, a SQLite file of ROS 2 nor a ROS 1 bag'),
    ('a.db3', b'SQLite format 3\0' + bytes(100), 'cannot be read'),
    ('a.bag', b'#ROSBAG V2.0\n' + bytes(10), 'cannot be read'),
    ('a.mcap', b'\x89MCAP0\r\n', 'was not ended'),
    ('a.mp4', b'no video', 'cannot be read as a video'),
    ('a.db3.zstd', b'abc', 'cannot be unpacked'),
])
def test_what_is_no_recording_is_one_line(tmp_path, capsys, name, content, words):
    (tmp_path / name).write_bytes(content)
    out = str(tmp_path / 'out')
    assert main(['reconstruct', str(tmp_path / name), '--out', out]) == 1
    told = capsys.readouterr().err
    assert words in told and str(tmp_path / name.removesuffix('.zstd')) in told
    assert 'Traceback' not in told


def test_a_damaged_message_and_a_damaged_picture_cost_themselves(tmp_path):
    messages = Messages()
    pictures = [messages.picture(image, stamp) for image, stamp in zip(IMAGES, STAMPS)]
    pictures[2].data = pictures[2].data[:50]
    pictures[3].data = pictures[3].data[:0]
    path = write_ros2(tmp_path / 'bag', [(TOPIC, PICTURE, stamp, message)
                                         for stamp, message in zip(STAMPS, pictures)])
    source = open_source(path)
    assert [frame.stamp_ns for frame in source.frames()] == [*STAMPS[:2], STAMPS[4]]
    assert 'skipped 2 images' in source.describe_skipped()


def test_video_begins_with_its_first_key_frame(tmp_path):
    made = Messages().packets(IMAGES, STAMPS)   # key frames: 0 and 4
    path = write_ros2(tmp_path / 'bag', [(TOPIC, VIDEO, stamp, message) for stamp, message
                                         in zip(STAMPS[1:], made[1:])])
    source = open_source(path)
    assert [frame.stamp_ns for frame in source.frames()] == STAMPS[4:]
    assert 'key frame' in source.describe_skipped()


def test_video_of_an_unknown_encoding_says_so(tmp_path):
    made = Messages().packets(IMAGES[:1], STAMPS, name='secret')
    path = write_ros2(tmp_path / 'bag', [(TOPIC, VIDEO, STAMPS[0], made[0])])
    with pytest.raises(ToolError, match="encoding 'secret' is not read; record h264 or hevc"):
        open_source(path)


def test_a_file_of_a_split_that_is_missing_is_told(tmp_path):
    folder = write_ros2(tmp_path / 'bag', items())
    text = (folder / 'metadata.yaml').read_text()
    name = next(folder.glob('*.mcap')).name
    (folder / 'metadata.yaml').write_text(text.replace(f'- {name}', f'- {name}\n  - gone.mcap'))
    source = open_source(folder)
    assert len(list(source.frames())) == len(STAMPS)
    assert 'gone.mcap is missing' in source.describe_skipped()
    next(folder.glob('*.mcap')).unlink()
    with pytest.raises(ToolError, match='none of the files is there that metadata.yaml names'):
        open_source(folder)


def test_a_folder_of_several_recordings_asks_which(tmp_path):
    write_mcap(tmp_path / 'kitchen.mcap', items())
    write_mcap(tmp_path / 'hall.mcap', items())
    with pytest.raises(ToolError, match='has 2 recordings, such as hall.mcap: give one of them'):
        open_source(tmp_path)


def test_images_stay_images_whatever_lies_beside_them(tmp_path):
    folder = write_folder(tmp_path / 'images', IMAGES, STAMPS)
    write_mcap(folder / 'a.mcap', items()[:2])
    assert stamps_of(folder) == STAMPS


def test_a_sqlite_file_may_have_any_name_and_stays_open_no_longer_than_it_is_read(tmp_path):
    made = next(write_ros2(tmp_path / 'bag', items(), 'SQLITE3').glob('*.db3'))
    path = made.rename(tmp_path / 'what? #1 50% \udcff.sqlite')
    before = set(os.listdir('/proc/self/fd'))
    for _ in range(3):
        assert stamps_of(path) == STAMPS
    assert len(set(os.listdir('/proc/self/fd'))) == len(before)


@pytest.mark.parametrize('change, words', [
    ('UPDATE topics SET name = NULL', 'cannot be read: .*name'),
    ('DROP TABLE topics', 'cannot be read: no such table: topics'),
    ('ALTER TABLE messages DROP COLUMN data', 'none of the 5 messages .* a.db3: .*such column'),
    ("UPDATE messages SET data = 'text'", 'none of the 5 messages .* a.db3: .*no time or no'),
    ("UPDATE topics SET serialization_format = 'json'", "(?s)no colour .*are 'json', not ROS's")])
def test_tables_that_are_others_than_rosbag2_s_are_one_line(tmp_path, change, words):
    path = tables(tmp_path, change)
    with pytest.raises(ToolError, match=words):
        open_source(path)


@pytest.mark.parametrize('change, left', [
    ('DROP TABLE message_definitions', STAMPS), ('DELETE FROM message_definitions', STAMPS),
    ('UPDATE messages SET data = NULL WHERE id = 3', [*STAMPS[:1], *STAMPS[2:]]),
    ("UPDATE messages SET timestamp = 'noon' WHERE id = 3", [*STAMPS[:1], *STAMPS[2:]])])
def test_what_tables_lack_costs_itself(tmp_path, change, left):
    source = open_source(tables(tmp_path, change))
    assert [frame.stamp_ns for frame in source.frames()] == left
    assert ('some messages have no time' in source.describe_skipped()) == (left != STAMPS)


def tables(folder, change):
    """Return a SQLite file of ROS 2 of which tables were changed."""
    made = next(write_ros2(folder / 'bag', items(), 'SQLITE3').glob('*.db3'))
    with contextlib.closing(sqlite3.connect(made)) as database:
        database.executescript('PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = '
                               "replace(sql, ' NOT NULL', ''); PRAGMA writable_schema = RESET")
        database.executescript(change)
    return made.rename(folder / 'a.db3')


# Stamps ------------------------------------------------------------------------------------------

def test_stamps_that_are_empty_are_the_times_of_recording(tmp_path):
    messages = Messages()
    path = write_ros2(tmp_path / 'bag', [(TOPIC, IMAGE, stamp + 5, messages.image(image, 0))
                                         for image, stamp in zip(IMAGES, STAMPS)])
    assert stamps_of(path) == [stamp + 5 for stamp in STAMPS]


def test_images_that_come_twice_or_far_too_late_are_counted(tmp_path):
    messages = Messages()
    order = [0, 1, 1, 2, 4, 3]
    path = write_ros1(tmp_path / 'a.bag', [
        (TOPIC, IMAGE, STAMPS[0] + 1000 * number, Messages(True).image(IMAGES[i], STAMPS[i]))
        for number, i in enumerate(order)])
    source = open_source(path)
    assert [frame.stamp_ns for frame in source.frames()] == STAMPS
    assert 'skipped 1 images' in source.describe_skipped()
    assert 'the stamp of an image before it' in source.describe_skipped()
    small = [messages.image(IMAGES[0][:2, :2], STAMPS[0] + 10 ** 9 + i) for i in range(70)]
    path = write_ros2(tmp_path / 'bag', [
        *((TOPIC, IMAGE, STAMPS[0] + i, message) for i, message in enumerate(small)),
        (TOPIC, IMAGE, STAMPS[0] + 10 ** 6, messages.image(IMAGES[0][:2, :2], STAMPS[0]))])
    source = open_source(path)
    assert len(list(source.frames())) == 70
    assert 'an earlier stamp than images before it' in source.describe_skipped()


def test_images_of_another_size_are_left_out(tmp_path):
    messages = Messages()
    path = write_ros2(tmp_path / 'bag', [
        (TOPIC, IMAGE, stamp, messages.image(image[:80] if number == 2 else image, stamp))
        for number, (image, stamp) in enumerate(zip(IMAGES, STAMPS))])
    source = open_source(path)
    assert len(list(source.frames())) == 4
    assert '112x80, but the first image is 112x84' in source.describe_skipped()


# Libraries ---------------------------------------------------------------------------------------

@pytest.mark.parametrize('module, name, words', [
    ('rosbags.typesys', 'bag', 'reading a bag needs rosbags: pip install rosbags'),
    ('mcap.reader', 'a.mcap', 'reading an MCAP needs mcap: pip install mcap'),
    ('av', 'a.mp4', 'reading a video needs av: pip install av'),
])
def test_a_library_that_is_missing_is_one_line(tmp_path, capsys, monkeypatch, module, name, words):
    write_ros2(tmp_path / 'bag', items(), 'SQLITE3')
    write_mcap(tmp_path / 'a.mcap', items())
    (tmp_path / 'a.mp4').write_bytes(b'something')
    monkeypatch.setitem(sys.modules, module, None)
    assert main(['reconstruct', str(tmp_path / name), '--out', str(tmp_path / 'out')]) == 1
    assert words in capsys.readouterr().err


def test_definitions_of_video_messages_are_known_where_a_bag_has_none(tmp_path):
    from xsvggt_ros.recordings.inputs.bag_types import MessageTypes
    messages = Messages()
    for name in DEFINITIONS:
        made = messages.packets(IMAGES[:2], STAMPS, kind=name)[0]
        data = bytes(messages.store.serialize_cdr(made, name))
        read = MessageTypes().decoder(name, '', 'msg', 'cdr')(data)
        np.testing.assert_array_equal(read.data, made.data)
