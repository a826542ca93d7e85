"""What is seen in a frame: its cloud and its maps, made for those who subscribe to them."""

from collections.abc import Mapping, Sequence

import numpy as np
from rclpy.lifecycle import LifecyclePublisher
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
import torch

from xsvggt_ros.engine.point_cloud import CloudOptions, COLUMNS, pack_cloud
from xsvggt_ros.engine.stream_engine import FrameResult
from xsvggt_ros.node import messages
from xsvggt_ros.node.parameters import Value
from xsvggt_ros.node.publishers import Publishers

Output = tuple[LifecyclePublisher, Image | CameraInfo | PointCloud2]


def frame_outputs(
    publishers: Publishers, header: Header, results: Sequence[FrameResult],
    reference_from_camera: Sequence[np.ndarray], values: Mapping[str, Value], cloud_is_due: bool,
) -> list[Output]:
    """
    Return cloud, colour, depth, confidence and camera, with the topics they go to.

    The cloud has what all cameras of the rig see, [4, 4] transforms bring it into the frame of the
    first one, which alone has the other outputs. It is left out unless it is due.
    """
    result = results[0]

    def image(pixels: torch.Tensor, encoding: str) -> Image:
        return messages.image(header, pixels.cpu().numpy(), encoding)

    def camera() -> CameraInfo:
        intrinsics = result.intrinsics.to('cpu', torch.float64).numpy()
        return messages.camera_info(header, *result.depth.shape, intrinsics)

    makers = (
        (publishers.points, lambda: messages.point_cloud(
            header, packed_cloud(results, reference_from_camera, values,
                                 values['cloud.organized']))),
        (publishers.depth, lambda: image(result.depth, '32FC1')),
        (publishers.depth_info, camera),
        (publishers.rgb, lambda: image(result.image, 'rgb8')),
        (publishers.rgb_info, camera),
        (publishers.confidence, lambda: image(result.depth_confidence, '32FC1')))
    return [(publisher, make()) for publisher, make in makers
            if publisher.get_subscription_count()
            and (cloud_is_due or publisher is not publishers.points)]


def packed_cloud(
    results: Sequence[FrameResult], reference_from_camera: Sequence[np.ndarray],
    values: Mapping[str, Value], organized: bool = False,
) -> np.ndarray:
    """
    Return the cloud [N, 5] of one set of images, chosen by the parameters `cloud.*`.

    organized: the cloud [H, W, 5] of a single image.
    """
    # The parameter may have changed since the network was asked for points, or not.
    source = values['cloud.source'] if results[0].points is not None else 'depth'
    options = CloudOptions(
        source=source, stride=values['cloud.stride'],
        confidence_percentile=values['cloud.confidence_percentile'],
        max_range=values['cloud.max_range'], organized=organized)
    clouds = [pack_cloud(result, options).numpy() for result in results]
    for cloud, transform in zip(clouds[1:], reference_from_camera[1:]):
        cloud[:, :3] = cloud[:, :3] @ transform[:3, :3].T + transform[:3, 3]
    return np.concatenate(clouds) if len(clouds) > 1 else clouds[0]


def cloud_of(
    outputs: list[Output], results: Sequence[FrameResult],
    reference_from_camera: Sequence[np.ndarray], values: Mapping[str, Value],
) -> np.ndarray:
    """Return a set's cloud [N, 5]: what is finite of the one among the outputs, or a new one."""
    for _, content in outputs:
        if isinstance(content, PointCloud2):
            cloud = np.frombuffer(content.data, np.float32).reshape(-1, len(COLUMNS))
            return cloud if content.is_dense else cloud[np.isfinite(cloud[:, 0])]
    return packed_cloud(results, reference_from_camera, values)


def points_in(outputs: list[Output]) -> int:
    """Return the points of the cloud among the outputs, 0 if there is none; not the NaN ones."""
    for _, content in outputs:
        if isinstance(content, PointCloud2):
            if content.is_dense:
                return content.width
            x = np.frombuffer(content.data, np.float32)[::len(COLUMNS)]
            return int(np.count_nonzero(np.isfinite(x)))
    return 0
