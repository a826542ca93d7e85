"""An MCAP with the node's topics, beside the recording's stamps, for RViz and Foxglove. No ROS."""

from collections.abc import Iterable
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from xsvggt_ros.console.optional import need
from xsvggt_ros.mapping.map_files import pack
from xsvggt_ros.mapping.point_cloud import COLUMNS
from xsvggt_ros.mapping.trajectory import StampedPose
from xsvggt_ros.recordings.exports.export import ExportOptions, FrameOutput
from xsvggt_ros.recordings.inputs.bag_types import need_rosbags
from xsvggt_ros.recordings.recording import Recording

FILE = 'recording.mcap'
ODOM, CAMERA = 'xsvggt_odom', 'camera_optical_frame'
PREFIX = '/xsvggt/'    # topics are those of the node
UNKNOWN_VARIANCE = 1e4
_FLOAT32 = 7           # of sensor_msgs/PointField
_CHUNK = 4 * 2 ** 20   # bytes
_AT_THE_END = (f'{PREFIX}map_points', f'{PREFIX}path')


class McapExport:
    """
    Writes recording.mcap while the run goes on; map and path come at its end.

    Images are 8-bit colours, depths and confidences 32FC1, as the node sends them.
    """

    name = 'mcap'

    def __init__(self, options: ExportOptions) -> None:
        """Take the libraries; raises ToolError if one lacks. The file comes with a frame."""
        need('mcap.writer', '--export mcap', 'mcap', 'recordings')
        need_rosbags()
        self._options, self._copies = options, False
        self._path, self._base_frame = options.folder / FILE, options.base_frame
        self._messages = _Messages()
        self._file: BinaryIO | None = None
        self._writer: Any = None
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self._last_ns = 0
        self.notes: dict[str, Any] = {'topics': [], 'storage': 'mcap, chunks packed with zstd'}

    def add(self, frame: FrameOutput) -> None:
        """Write the messages of a frame, under its stamp."""
        self._begin()
        make, stamp = self._messages, frame.stamp_ns
        self._last_ns = stamp
        optical, odom = make.header(stamp, CAMERA), make.header(stamp, ODOM)
        height, width = frame.depth.shape
        info = make.camera_info(optical, width, height, frame.intrinsics)
        body, pose = CAMERA, frame.pose
        edges = [make.transform(odom, body, pose)]
        if self._base_frame and frame.base_from_camera is not None:
            on_base = StampedPose.from_matrix(stamp, frame.base_from_camera)
            body, pose = self._base_frame, StampedPose.from_matrix(
                stamp, frame.pose.matrix() @ np.linalg.inv(frame.base_from_camera))
            edges = [make.transform(odom, body, pose),
                     make.transform(make.header(stamp, body), CAMERA, on_base)]
        self._write('/tf', 'tf2_msgs/msg/TFMessage', make.transforms(edges))
        self._write(f'{PREFIX}odometry', 'nav_msgs/msg/Odometry',
                    make.odometry(odom, body, pose))
        self._write(f'{PREFIX}rgb/image_rect_color', 'sensor_msgs/msg/Image',
                    make.image(optical, frame.image, 'rgb8'))
        self._write(f'{PREFIX}rgb/camera_info', 'sensor_msgs/msg/CameraInfo', info)
        self._write(f'{PREFIX}depth/image_rect', 'sensor_msgs/msg/Image',
                    make.image(optical, frame.depth.astype(np.float32), '32FC1'))
        self._write(f'{PREFIX}depth/camera_info', 'sensor_msgs/msg/CameraInfo', info)
        self._write(f'{PREFIX}confidence', 'sensor_msgs/msg/Image',
                    make.image(optical, frame.confidence.astype(np.float32), '32FC1'))
        self._write(f'{PREFIX}points', 'sensor_msgs/msg/PointCloud2',
                    make.cloud(optical, frame.cloud.numpy()))

    def finish(self, recording: Recording) -> list[Path]:
        """Write the map and the path, and end the file."""
        self._begin()
        odom = self._messages.header(self._last_ns, ODOM)
        self._write(f'{PREFIX}map_points', 'sensor_msgs/msg/PointCloud2',
                    self._messages.cloud(odom, pack(recording.cloud())))
        self._write(f'{PREFIX}path', 'nav_msgs/msg/Path',
                    self._messages.path(odom, recording.poses if recording.base_poses is None
                                        else recording.base_poses))
        self._writer.finish()
        assert self._file is not None
        self._file.close()
        self.notes['topics'] = sorted(self._channels)
        return [self._path]

    def __getstate__(self) -> dict[str, Any]:
        """Return what a run that goes on needs: the file so far is copied then."""
        return {'options': self._options, 'last_ns': self._last_ns, 'has_file': bool(self._file)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state['options'])   # type: ignore[misc]
        self._last_ns = state['last_ns']
        self._copies = state['has_file']

    def _copy(self, part: Path) -> None:
        """Take over the messages of the frames that an interrupted run has written."""
        from mcap.reader import NonSeekingReader
        with open(part, 'rb') as stream:
            for schema, channel, message in NonSeekingReader(stream).iter_messages(
                    log_time_order=False):
                if (schema is not None and message.log_time <= self._last_ns
                        and channel.topic not in _AT_THE_END):
                    self._writer.add_message(self._channel(channel.topic, schema.name),
                                             message.log_time, message.data, message.log_time)

    def _begin(self) -> None:
        if self._file is None:
            from mcap.writer import CompressionType, Writer
            part = self._path.with_suffix('.mcap.part')
            if self._copies:
                os.replace(self._path, part)
            self._file = open(self._path, 'wb')  # noqa: SIM115 is closed by `finish`
            self._writer = Writer(self._file, chunk_size=_CHUNK, compression=CompressionType.ZSTD)
            self._writer.start(profile='ros2', library='xsvggt_ros')
            if self._copies:
                self._copy(part)
                part.unlink()

    def _write(self, topic: str, kind: str, message: Any) -> None:
        data = self._messages.serialized(kind, message)
        self._writer.add_message(self._channel(topic, kind), self._last_ns, data, self._last_ns)

    def _channel(self, topic: str, kind: str) -> int:
        channel = self._channels.get(topic)
        if channel is None:
            schema = self._schemas.get(kind)
            if schema is None:
                schema = self._schemas[kind] = self._writer.register_schema(
                    kind, 'ros2msg', self._messages.definition(kind).encode())
            channel = self._channels[topic] = self._writer.register_channel(topic, 'cdr', schema)
        return channel


class _Messages:
    """Makes messages of ROS 2 from plain numbers, and their bytes."""

    def __init__(self) -> None:
        from rosbags.typesys import get_typestore, Stores

        self._store = get_typestore(Stores.ROS2_JAZZY)
        self._types = self._store.types

    def definition(self, kind: str) -> str:
        """Return the text of a type and of those in it."""
        return self._store.generate_msgdef(kind, ros_version=2)[0]

    def serialized(self, kind: str, message: Any) -> bytes:
        """
        Return the bytes of a message.

        rosbags writes the bits of an array as they are: every one here has its field's type.
        """
        return bytes(self._store.serialize_cdr(message, kind))

    def _make(self, package: str, kind: str, /, **fields: Any) -> Any:
        return self._types[f'{package}/msg/{kind}'](**fields)

    def header(self, stamp_ns: int, frame: str) -> Any:
        """Return a header."""
        stamp = self._make('builtin_interfaces', 'Time', sec=stamp_ns // 10 ** 9,
                           nanosec=stamp_ns % 10 ** 9)
        return self._make('std_msgs', 'Header', stamp=stamp, frame_id=frame)

    def image(self, header: Any, pixels: np.ndarray, encoding: str) -> Any:
        """Return pixels [H, W] or [H, W, channels] without padding."""
        pixels = np.ascontiguousarray(pixels)
        height, width = pixels.shape[:2]
        return self._make('sensor_msgs', 'Image', header=header, height=height, width=width,
                          encoding=encoding, is_bigendian=0, step=pixels.nbytes // height,
                          data=pixels.reshape(-1).view(np.uint8))

    def camera_info(self, header: Any, width: int, height: int, matrix: np.ndarray) -> Any:
        """Return a pinhole camera with this matrix [3, 3]."""
        window = self._make('sensor_msgs', 'RegionOfInterest', x_offset=0, y_offset=0, height=0,
                            width=0, do_rectify=False)
        k = np.ascontiguousarray(matrix, np.float64)
        return self._make(
            'sensor_msgs', 'CameraInfo', header=header, height=height, width=width,
            distortion_model='plumb_bob', d=np.zeros(5), k=k.reshape(-1), r=np.eye(3).reshape(-1),
            p=np.hstack([k, np.zeros((3, 1))]).reshape(-1), binning_x=0, binning_y=0, roi=window)

    def cloud(self, header: Any, packed: np.ndarray) -> Any:
        """Return a packed cloud [N, 5], float32."""
        fields = [self._make('sensor_msgs', 'PointField', name=name, offset=4 * number,
                             datatype=_FLOAT32, count=1) for number, name in enumerate(COLUMNS)]
        packed = np.ascontiguousarray(packed, np.float32)
        step = 4 * len(COLUMNS)
        return self._make(
            'sensor_msgs', 'PointCloud2', header=header, height=1, width=len(packed),
            fields=fields, is_bigendian=False, point_step=step, row_step=step * len(packed),
            data=packed.reshape(-1).view(np.uint8), is_dense=True)

    def transform(self, header: Any, child: str, pose: StampedPose) -> Any:
        """Return the child's pose in the header's frame as an edge of TF."""
        translation = self._make('geometry_msgs', 'Vector3', **_xyz(pose.position))
        return self._make('geometry_msgs', 'TransformStamped', header=header,
                          child_frame_id=child,
                          transform=self._make('geometry_msgs', 'Transform',
                                               translation=translation,
                                               rotation=self._rotation(pose)))

    def transforms(self, edges: list[Any]) -> Any:
        """Return edges of TF as one message."""
        return self._make('tf2_msgs', 'TFMessage', transforms=edges)

    def odometry(self, header: Any, child: str, pose: StampedPose) -> Any:
        """Return the child's pose; covariance and twist are not known."""
        zero = self._make('geometry_msgs', 'Vector3', x=0.0, y=0.0, z=0.0)
        unknown = (np.eye(6) * UNKNOWN_VARIANCE).reshape(-1)
        twist = self._make('geometry_msgs', 'TwistWithCovariance', covariance=unknown,
                           twist=self._make('geometry_msgs', 'Twist', linear=zero, angular=zero))
        place = self._make('geometry_msgs', 'PoseWithCovariance', pose=self._pose(pose),
                           covariance=np.zeros(36))
        return self._make('nav_msgs', 'Odometry', header=header, child_frame_id=child, pose=place,
                          twist=twist)

    def path(self, header: Any, poses: Iterable[StampedPose]) -> Any:
        """Return the whole trajectory."""
        frame = header.frame_id
        return self._make('nav_msgs', 'Path', header=header, poses=[
            self._make('geometry_msgs', 'PoseStamped', header=self.header(pose.stamp_ns, frame),
                       pose=self._pose(pose)) for pose in poses])

    def _pose(self, pose: StampedPose) -> Any:
        position = self._make('geometry_msgs', 'Point', **_xyz(pose.position))
        return self._make('geometry_msgs', 'Pose', position=position,
                          orientation=self._rotation(pose))

    def _rotation(self, pose: StampedPose) -> Any:
        x, y, z, w = map(float, pose.quaternion)
        return self._make('geometry_msgs', 'Quaternion', x=x, y=y, z=z, w=w)


def _xyz(values: Iterable[float]) -> dict[str, float]:
    return dict(zip('xyz', map(float, values)))
