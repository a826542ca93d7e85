"""Bags whose own definitions of messages are others than those of ROS."""

import numpy as np
import pytest
from recording_maker import (
    DEFINITIONS,
    IMAGE,
    image_items,
    INFO,
    make_frames,
    Messages,
    odometry_message,
    PICTURE,
    START,
    tf_message,
    TOPIC,
    typestore,
    VIDEO,
)

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.recordings.frame_source import open_source
from xsvggt_ros.recordings.inputs.bag_fields import definition_fault
from xsvggt_ros.recordings.inputs.bag_hints import HintChoice
from xsvggt_ros.recordings.inputs.bag_types import BagError, MessageTypes

pytest.importorskip('rosbags')
mcap_writer = pytest.importorskip('mcap.writer')

IMAGES, STAMPS = make_frames(3, (16, 12))
INFOS, TF = 'sensor_msgs/msg/CameraInfo', 'tf2_msgs/msg/TFMessage'
ODOMETRY = 'nav_msgs/msg/Odometry'
STRING, FLOATS = (1, ('string', 0)), (4, ((1, ('float64', 0)), 0))
# A type, and the fields that are read of it with the type in which each of them is.
READ = [
    (IMAGE, IMAGE, 'header height width encoding is_bigendian step data'),
    (PICTURE, PICTURE, 'header format data'),
    (VIDEO, VIDEO, 'timestamp format data'),
    (INFOS, INFOS, 'height width distortion_model k d r p binning_x binning_y roi'),
    (INFOS, 'sensor_msgs/msg/RegionOfInterest', 'x_offset y_offset width height'),
    (TF, TF, 'transforms'),
    (TF, 'geometry_msgs/msg/TransformStamped', 'header child_frame_id transform'),
    (TF, 'geometry_msgs/msg/Transform', 'translation rotation'),
    (TF, 'geometry_msgs/msg/Quaternion', 'x y z w'),
    (TF, 'std_msgs/msg/Header', 'stamp frame_id'),
    (ODOMETRY, ODOMETRY, 'header child_frame_id pose'),
    (ODOMETRY, 'geometry_msgs/msg/PoseWithCovariance', 'pose covariance'),
    (ODOMETRY, 'geometry_msgs/msg/Point', 'x y z')]
FIELDS = [(kind, part, name) for kind, part, names in READ for name in names.split()]


def changed(definitions, part, name, other=None):
    """Return definitions of which one field is missing, or of another type."""
    constants, fields = definitions[part]
    there = [field for field, _ in fields if field.lower() == name]
    assert there, (part, name)
    fields = [(field, other if field in there else kind) for field, kind in fields
              if field not in there or other is not None]
    return {**definitions, part: (constants, fields)}


def with_definition(part, name, other=None, ros1=False):
    """Return a typestore that has another definition of a type."""
    store = typestore(ros1)
    store.fielddefs = changed(store.fielddefs, part, name, other)
    return store


def write_bag(folder, storage, items, stores=None):
    """Write (topic, type, log time, message) with other definitions of some types."""
    from rosbags import rosbag1, rosbag2
    plain, connections = typestore(storage == 'ros1'), {}
    if storage == 'ros1':
        path, writer = folder / 'a.bag', rosbag1.Writer(folder / 'a.bag')
    else:
        path = folder / 'bag'
        writer = rosbag2.Writer(path, version=9, storage_plugin=rosbag2.StoragePlugin[storage])
    with writer:
        for topic, kind, log, message in items:
            if topic not in connections:
                store = (stores or {}).get(kind, plain)
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            data = (plain.serialize_ros1 if storage == 'ros1' else plain.serialize_cdr)(
                message, kind)
            writer.write(connections[topic], log, data)
    return path


def readable(path, hints=None):
    """Return a recording's source, and how many of its images can be read."""
    source = open_source(path, hints=hints)
    return source, len(list(source.frames()))


# Definitions -------------------------------------------------------------------------------------

@pytest.mark.parametrize('ros1', [False, True])
def test_the_definitions_of_ros_have_all_that_is_read(ros1):
    known = typestore(ros1).fielddefs
    for kind in (IMAGE, PICTURE, INFOS, TF, ODOMETRY, *DEFINITIONS):
        assert definition_fault(known, kind) == ''


@pytest.mark.parametrize('kind, part, name', FIELDS)
def test_a_field_that_is_missing_or_of_another_type_is_named(kind, part, name):
    known = typestore().fielddefs
    before = dict(known[part][1])[name]
    told = definition_fault(changed(known, part, name), kind)
    assert told.startswith('it has no field ') and told.endswith(name)
    for other in (STRING, FLOATS) if before != STRING else (FLOATS,):
        told = definition_fault(changed(known, part, name, other), kind)
        if other == FLOATS and name in ('d', 'k', 'r', 'p'):
            assert told == ''
        else:
            assert f'{name} is {"string" if other == STRING else "float64[]"}, not a' in told


@pytest.mark.parametrize('other, fits', [
    ((1, ('int32', 0)), False), ((1, ('uint64', 0)), False), ((1, ('uint16', 0)), True)])
def test_sizes_are_numbers_of_32_bits_that_are_never_negative(other, fits):
    told = definition_fault(changed(typestore().fielddefs, IMAGE, 'width', other), IMAGE)
    assert told == ('' if fits else f'its field width is {other[1][0]}, not a whole number that '
                                    'is never negative, of at most 32 bits')


@pytest.mark.parametrize('text, words', [
    ('a/Image image\n' + '=' * 80 + '\nMSG: a/Image\na/Image image\n', 'a/msg/Image is a part of'),
    ('string[1000000000] names\n', 'has a list names of 1000000000'),
    ('uint8[-5] data\n', 'has a list data of -5'),
    ('a/Nothing[] all\n' + '=' * 80 + '\nMSG: a/Nothing\n', 'a/msg/Nothing, which is empty'),
    ('a/Unknown one\n', 'a/msg/Unknown is not defined, which'),
    ('float64 X=1e999\n', 'cannot be read'), ('uint8 a\nuint8 a\n', 'cannot be read'),
    ('{what is this', 'cannot be read'), ('uint8[' + '9' * 5000 + '] a\n', 'cannot be read')])
@pytest.mark.parametrize('encoding', ['cdr', 'ros1'])
def test_definitions_without_end_or_sense_are_refused(text, words, encoding):
    with pytest.raises(BagError, match='the definition of sensor_msgs/msg/Image in the file') as e:
        MessageTypes().decoder(IMAGE, text, 'msg', encoding)(b'\0\1\0\0' + b'\xff' * 60)
    assert words in str(e.value)


# Bags --------------------------------------------------------------------------------------------

@pytest.mark.parametrize('storage', ['MCAP', 'SQLITE3', 'ros1'])
@pytest.mark.parametrize('name, other, words', [
    ('step', None, 'it has no field step'),
    ('width', STRING, 'its field width is string, not a whole number'),
    ('data', FLOATS, r'its field data is float64\[\], not a list of bytes')])
def test_images_of_another_definition_are_one_line(tmp_path, storage, name, other, words):
    ros1 = storage == 'ros1'
    path = write_bag(tmp_path, storage, image_items(Messages(ros1), IMAGES, STAMPS)[1:],
                     {IMAGE: with_definition(IMAGE, name, other, ros1)})
    with pytest.raises(ToolError, match=f'none of the 3 messages on {TOPIC} can be read as an '
                                        f'image.*the definition of {IMAGE} in the file .*{words}'):
        open_source(path)


@pytest.mark.parametrize('kind, name', [(PICTURE, 'data'), (PICTURE, 'format'), (VIDEO, 'data'),
                                        (VIDEO, 'timestamp')])
def test_pictures_and_video_of_another_definition_are_one_line(tmp_path, kind, name):
    messages = Messages()
    made = ([messages.picture(image, stamp) for image, stamp in zip(IMAGES, STAMPS)]
            if kind == PICTURE else messages.packets(IMAGES, STAMPS))
    path = write_bag(tmp_path, 'MCAP', [(TOPIC, kind, stamp, message)
                                        for stamp, message in zip(STAMPS, made)],
                     {kind: with_definition(kind, name)})
    with pytest.raises(ToolError, match=f'on {TOPIC} can be read.*it has no field {name}'):
        open_source(path)


@pytest.mark.parametrize('name, other, words', [
    ('distortion_model', None, 'it has no field distortion_model'),
    ('width', STRING, 'its field width is string'), ('k', STRING, 'its field k is string')])
def test_a_calibration_of_another_definition_is_told_and_not_used(
        tmp_path, caplog, name, other, words):
    path = write_bag(tmp_path, 'MCAP', image_items(Messages(), IMAGES, STAMPS),
                     {INFOS: with_definition(INFOS, name, other)})
    source, count = readable(path)
    assert source.calibration is None and count == len(IMAGES)
    assert f'{INFO}: is not used: the definition of {INFOS} in the file' in caplog.text
    assert words in caplog.text


@pytest.mark.parametrize('changes, told', [
    ({ODOMETRY: ('geometry_msgs/msg/Point', 'y', STRING)}, '/odom'),
    ({ODOMETRY: ('geometry_msgs/msg/PoseWithCovariance', 'covariance', FLOATS)}, '/odom'),
    ({TF: ('geometry_msgs/msg/Transform', 'rotation', None)}, '/tf_static'),
    ({TF: (TF, 'transforms', STRING)}, '/tf')])
def test_what_comes_beside_images_is_left_out_by_its_definition(tmp_path, caplog, changes, told):
    messages = Messages()
    items = image_items(messages, IMAGES, STAMPS)
    for stamp in (START - 10 ** 9, *STAMPS, START + 10 ** 9):
        items.append(('/odom', ODOMETRY, stamp, odometry_message(messages, stamp, np.eye(4))))
        items.append(('/tf', TF, stamp, tf_message(messages, stamp, 'a', 'b', np.eye(4))))
    items.append(('/tf_static', TF, START,
                  tf_message(messages, START, 'base_link', 'camera', np.eye(4))))
    stores = {kind: with_definition(*change) for kind, change in changes.items()}
    path = write_bag(tmp_path, 'MCAP', sorted(items, key=lambda item: item[2]), stores)
    source, count = readable(path, HintChoice('auto'))
    assert count == len(IMAGES)
    assert f'{told}: messages of it are left out, such as one at' in caplog.text
    assert f'the definition of {next(iter(changes))} in the file cannot be used' in caplog.text
    places = [frame.hints.position for frame in source.frames()]
    assert all((place is None) == (ODOMETRY in changes) for place in places)


def test_a_topic_of_two_types_is_read_as_far_as_it_is_of_its_own(tmp_path):
    store, messages = typestore(), Messages()
    with open(tmp_path / 'a.mcap', 'wb') as file:
        writer = mcap_writer.Writer(file)
        writer.start('ros2')
        for kind, made in ((IMAGE, messages.image(IMAGES[0], STAMPS[0])),
                           (PICTURE, messages.picture(IMAGES[1], STAMPS[1])),
                           (ODOMETRY, odometry_message(messages, STAMPS[2], np.eye(4)))):
            schema = writer.register_schema(
                kind, 'ros2msg', store.generate_msgdef(kind, ros_version=2)[0].encode())
            channel = writer.register_channel(TOPIC, 'cdr', schema)
            writer.add_message(channel, STAMPS[0], bytes(store.serialize_cdr(made, kind)),
                               STAMPS[0])
        writer.finish()
    source, count = readable(tmp_path / 'a.mcap')
    assert count == 1 and len(source.skipped) == 2
    assert f'a message of type {PICTURE} on a topic of {IMAGE}' in source.describe_skipped()
