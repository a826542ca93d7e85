"""One short recording, written as a folder, videos and bags of every kind."""

from fractions import Fraction
import io
from pathlib import Path

import numpy as np
from PIL import Image

from xsvggt_ros.world.synthetic_world import SyntheticWorld

SIZE = 112, 84
START = 1_700_000_000_123_456_789   # ns
STEPS_MS = (0, 100, 190, 310, 400, 505, 600, 707)   # no constant rate
TOPIC, INFO = '/camera/image_raw', '/camera/camera_info'
IMAGE, PICTURE = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
VIDEO, PACKET = 'foxglove_msgs/msg/CompressedVideo', 'ffmpeg_image_transport_msgs/msg/FFMPEGPacket'
DEFINITIONS = {
    VIDEO: 'builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n',
    PACKET: 'std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\n'
            'uint8 flags\nbool is_bigendian\nuint8[] data\n'}


def make_frames(count=len(STEPS_MS), size=SIZE):
    """Return images of a world, and their stamps."""
    world = SyntheticWorld(3, *size)
    images = [world.frame(0.001 * ms).image for ms in STEPS_MS[:count]]
    return images, [START + 10 ** 6 * ms for ms in STEPS_MS[:count]]


def camera_matrix(size=SIZE):
    """Return the matrix of the world's camera."""
    return np.array(SyntheticWorld(3, *size).intrinsics.matrix(), np.float64)


def psnr(first, second):
    """Return how like two images are, in dB."""
    error = np.mean((first.astype(float) - second.astype(float)) ** 2)
    return 99.0 if error == 0 else 10 * np.log10(255 ** 2 / error)


# Folders and videos ------------------------------------------------------------------------------

def write_folder(folder, images, stamps):
    folder.mkdir()
    for image, stamp in zip(images, stamps):
        Image.fromarray(image).save(folder / f'{stamp}.png')
    return folder


def write_video(path, images, times_ms, codec='libx264', options=None, **fields):
    """Write a video with these times; fields: of the codec context, such as colorspace."""
    import av
    with av.open(str(path), 'w') as container:
        height, width = images[0].shape[:2]
        stream = container.add_stream(codec, rate=10, options=options or {
            'crf': '1', 'preset': 'ultrafast'})
        stream.width, stream.height = width, height
        stream.pix_fmt = fields.pop('pix_fmt', 'yuv444p')
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        how = fields.pop('reformat', {})
        for name, value in fields.items():
            setattr(stream.codec_context, name, value)
        for image, time in zip(images, times_ms):
            frame = av.VideoFrame.from_ndarray(image, format='rgb24').reformat(
                format=stream.pix_fmt, **how)
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def rotate_video(path, degrees):
    """Let an MP4 ask for being shown turned clockwise, as telephones write it."""
    data = bytearray(path.read_bytes())
    at = data.index(b'tkhd') + 4
    at += (40 if data[at] == 0 else 52)   # version, flags, times, track, layer, volume
    turns = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    a, b, c, d = (value * 65536 for value in turns)
    matrix = np.array((a, b, 0, c, d, 0, 0, 0, 1 << 30), '>i4').tobytes()
    data[at:at + 36] = matrix
    path.write_bytes(data)


# Messages ----------------------------------------------------------------------------------------

def typestore(ros1=False):
    from rosbags.typesys import get_types_from_msg, get_typestore, Stores
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_JAZZY)
    known = {'tf2_msgs/msg/TFMessage': 'geometry_msgs/TransformStamped[] transforms\n'}
    for name, text in (DEFINITIONS | (known if ros1 else {})).items():
        store.register(get_types_from_msg(text, name))
    return store


class Messages:
    """Makes messages of one typestore."""

    def __init__(self, ros1=False):
        self.store = typestore(ros1)
        self.ros1 = ros1

    def make(self, name, **fields):
        return self.store.types[name](**fields)

    def time(self, stamp):
        return self.make('builtin_interfaces/msg/Time', sec=stamp // 10 ** 9,
                         nanosec=stamp % 10 ** 9)

    def header(self, stamp, frame='camera'):
        more = {'seq': 0} if self.ros1 else {}
        return self.make('std_msgs/msg/Header', stamp=self.time(stamp), frame_id=frame, **more)

    def image(self, pixels, stamp, encoding='rgb8', padding=0):
        rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1).view(np.uint8)
        rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
        return self.make(IMAGE, header=self.header(stamp), height=pixels.shape[0],
                         width=pixels.shape[1], encoding=encoding, is_bigendian=0,
                         step=rows.shape[1], data=rows.ravel())

    def picture(self, pixels, stamp, kind='PNG', **how):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, **how)
        return self.make(PICTURE, header=self.header(stamp), format=kind.lower(),
                         data=np.frombuffer(file.getvalue(), np.uint8))

    def info(self, stamp, size=SIZE, matrix=None):
        k = camera_matrix(size) if matrix is None else matrix
        p = np.hstack([k, np.zeros((3, 1))])
        letters = dict(d=np.zeros(5), k=k.ravel(), r=np.eye(3).ravel(), p=p.ravel())
        if self.ros1:
            letters = {name.upper(): value for name, value in letters.items()}
        roi = self.make('sensor_msgs/msg/RegionOfInterest', x_offset=0, y_offset=0, height=0,
                        width=0, do_rectify=False)
        return self.make('sensor_msgs/msg/CameraInfo', header=self.header(stamp), width=size[0],
                         height=size[1], distortion_model='plumb_bob', binning_x=0, binning_y=0,
                         roi=roi, **letters)

    def packets(self, images, stamps, codec='libx264', kind=VIDEO, b_frames=0, name='h264'):
        """Return messages of a video, each with its stamp and the time at which it is sent."""
        import av
        context = av.CodecContext.create(codec, 'w')
        height, width = images[0].shape[:2]
        context.width, context.height, context.pix_fmt = width, height, 'yuv444p'
        context.time_base, context.framerate = Fraction(1, 1000), 10
        context.options = {'crf': '1', 'preset': 'ultrafast', 'bf': str(b_frames), 'g': '4',
                           'x265-params': 'log-level=none'}
        packets = []
        for number, image in enumerate([*images, None]):
            frame = None
            if image is not None:
                frame = av.VideoFrame.from_ndarray(image, format='rgb24')
                frame.pts, frame.time_base = number, Fraction(1, 1000)
            packets += context.encode(frame)
        made = []
        for packet in packets:
            stamp, data = stamps[packet.pts], np.frombuffer(bytes(packet), np.uint8)
            made.append(self.make(VIDEO, timestamp=self.time(stamp), frame_id='camera', data=data,
                                  format=name) if kind == VIDEO else self.make(
                PACKET, header=self.header(stamp), width=width, height=height, encoding=name,
                pts=packet.pts, flags=int(packet.is_keyframe), is_bigendian=False, data=data))
        return made


# Bags --------------------------------------------------------------------------------------------

def write_ros2(folder, items, storage='MCAP', compression=None):
    """Write a bag of ROS 2 from (topic, type, log time, message)."""
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
    store, connections = typestore(), {}
    writer = Writer(folder, version=9, storage_plugin=StoragePlugin[storage])
    if compression is not None:
        writer.set_compression(CompressionMode[compression], CompressionFormat.ZSTD)
    with writer:
        for topic, kind, log, message in items:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], log, store.serialize_cdr(message, kind))
    return folder


def write_ros1(path, items, compression=None):
    """Write a bag of ROS 1 from (topic, type, log time, message)."""
    from rosbags.rosbag1 import Writer
    store, connections = typestore(ros1=True), {}
    writer = Writer(path)
    if compression is not None:
        writer.set_compression(Writer.CompressionFormat[compression])
    with writer:
        for topic, kind, log, message in items:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], log, store.serialize_ros1(message, kind))
    return path


def write_mcap(path, items, chunk=1 << 16, others=(), **settings):
    """Write an MCAP in the order given; others: (topic, schema, encoding, time, bytes) to add."""
    from mcap.writer import Writer
    store, channels = typestore(), {}
    with open(path, 'wb') as file:
        writer = Writer(file, chunk_size=chunk, **settings)
        writer.start('ros2')
        for topic, kind, log, message in items:
            if topic not in channels:
                definition = store.generate_msgdef(kind, ros_version=2)[0]
                schema = writer.register_schema(kind, 'ros2msg', definition.encode())
                channels[topic] = writer.register_channel(topic, 'cdr', schema)
            writer.add_message(channels[topic], log, bytes(store.serialize_cdr(message, kind)),
                               log)
        for topic, schema_encoding, encoding, log, data in others:
            schema = writer.register_schema('other', schema_encoding, b'{}')
            writer.add_message(writer.register_channel(topic, encoding, schema), log, data, log)
        writer.finish()
    return Path(path)


def image_items(messages, images, stamps, encoding='rgb8', padding=0, delay=2_000_000):
    """Return the items of a camera with its calibration, logged a little after they were taken."""
    items = [(INFO, 'sensor_msgs/msg/CameraInfo', stamps[0] + delay, messages.info(stamps[0]))]
    for image, stamp in zip(images, stamps):
        pixels = image[..., ::-1] if encoding == 'bgr8' else image
        items.append((TOPIC, IMAGE, stamp + delay,
                      messages.image(pixels, stamp, encoding, padding)))
    return items


# What else a robot records -----------------------------------------------------------------------

def pose_numbers(matrix):
    """Return position and quaternion x, y, z, w of a transform [4, 4]."""
    from xsvggt_ros.geometry.quaternions import quaternion_from_matrix
    return matrix[:3, 3].tolist(), quaternion_from_matrix(matrix[:3, :3])


def odometry_message(messages, stamp, matrix, child='base_link', frame='odom'):
    """Return nav_msgs/Odometry of a body at odom_from_body [4, 4]."""
    (x, y, z), turn = pose_numbers(matrix)
    make = messages.make
    zero = make('geometry_msgs/msg/Vector3', x=0.0, y=0.0, z=0.0)
    pose = make('geometry_msgs/msg/Pose', position=make('geometry_msgs/msg/Point', x=x, y=y, z=z),
                orientation=make('geometry_msgs/msg/Quaternion', **dict(zip('xyzw', turn))))
    return make(
        'nav_msgs/msg/Odometry', header=messages.header(stamp, frame), child_frame_id=child,
        pose=make('geometry_msgs/msg/PoseWithCovariance', pose=pose, covariance=np.zeros(36)),
        twist=make('geometry_msgs/msg/TwistWithCovariance', covariance=np.zeros(36),
                   twist=make('geometry_msgs/msg/Twist', linear=zero, angular=zero)))


def tf_message(messages, stamp, parent, child, matrix):
    """Return tf2_msgs/TFMessage with one edge, parent_from_child [4, 4]."""
    (x, y, z), turn = pose_numbers(matrix)
    make = messages.make
    edge = make('geometry_msgs/msg/TransformStamped', header=messages.header(stamp, parent),
                child_frame_id=child, transform=make(
                    'geometry_msgs/msg/Transform',
                    translation=make('geometry_msgs/msg/Vector3', x=x, y=y, z=z),
                    rotation=make('geometry_msgs/msg/Quaternion', **dict(zip('xyzw', turn)))))
    return make('tf2_msgs/msg/TFMessage', transforms=[edge])


def depth_picture(messages, depth, stamp, kind='16UC1'):
    """Return depth in metres as image_transport's compressedDepth packs it."""
    import struct
    if kind == '16UC1':
        a = b = 0.0
        values = np.rint(np.nan_to_num(depth) * 1000).astype(np.uint16)
    else:   # inverse depth, quantized
        a, b = 10000.0, -99.0
        values = np.where(np.isfinite(depth), a / np.nan_to_num(depth, nan=1.0) + b, 0)
        values = np.rint(values).astype(np.uint16)
    file = io.BytesIO()
    Image.fromarray(values).save(file, 'PNG')
    data = np.frombuffer(struct.pack('<iff', 0, a, b) + file.getvalue(), np.uint8)
    return messages.make(PICTURE, header=messages.header(stamp), data=data,
                         format=f'{kind}; compressedDepth png')
