"""What is seen in a frame: its cloud and its maps, made for those who subscribe to them."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from rclpy.lifecycle import LifecyclePublisher
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
import torch
from torch import Tensor

from xsvggt_ros.engine.host_copy import Maker, PendingCopy
from xsvggt_ros.engine.stream_engine import FrameResult
from xsvggt_ros.mapping.point_cloud import CloudOptions, COLUMNS, lay_out_cloud
from xsvggt_ros.node import messages
from xsvggt_ros.node.outputs.publishers import Publishers
from xsvggt_ros.node.settings import CloudSettings

Output = tuple[LifecyclePublisher, Image | CameraInfo | PointCloud2]
LEAST_LEFT = 0.05  # share of a cloud's points of which less is next to nothing
TOPICS = ('points', 'depth', 'depth_info', 'rgb', 'rgb_info', 'confidence')


def wanted_topics(publishers: Publishers, cloud_is_due: bool) -> list[str]:
    """Return which of `TOPICS` somebody subscribes to; no points unless they are due."""
    return [topic for topic in TOPICS if getattr(publishers, topic).get_subscription_count()
            and (cloud_is_due or topic != 'points')]


def host_makers(
    results: Sequence[FrameResult], reference_from_camera: Sequence[np.ndarray],
    settings: CloudSettings, topics: Sequence[str], fills_map: bool,
) -> dict[str, Maker]:
    """
    Return what must come to the host of a set of images, by name, as `HostCopy.start` takes it.

    The cloud, chosen by the parameters `cloud.*`, has what all cameras of the rig see:
    transforms [4, 4] bring it into the frame of the first one, which alone has the other outputs.
    fills_map: whether the map needs it as well.
    """
    result = results[0]
    # The parameter may have changed since the network was asked for points, or not.
    source = settings.source if result.points is not None else 'depth'
    options = CloudOptions(
        source=source, stride=settings.stride, max_range=settings.max_range,
        confidence_percentile=settings.confidence_percentile, max_error=settings.max_error,
        organized=settings.organized and 'points' in topics)

    @cache
    def cloud() -> tuple[Tensor, Tensor]:
        return lay_out_cloud(
            results, [torch.from_numpy(matrix) for matrix in reference_from_camera], options)

    makers = {
        'intrinsics': lambda: result.intrinsics,
        'predicted_intrinsics': lambda: result.predicted_intrinsics,
        'mean_confidence': result.mean_confidence, 'typical_error': result.typical_error}
    if 'points' in topics or fills_map:
        makers |= {'cloud': lambda: cloud()[0], 'cloud_size': lambda: cloud()[1]}
    maps = {'depth': lambda: result.depth, 'rgb': lambda: result.image,
            'confidence': lambda: result.depth_confidence}
    return makers | {name: make for name, make in maps.items() if name in topics}


def frame_outputs(
    publishers: Publishers, header: Header, host: PendingCopy, size: tuple[int, int],
    topics: Sequence[str],
) -> list[Output]:
    """
    Return cloud, colour, depth, confidence and camera, with the topics they go to.

    host: what `host_makers` named; size: height and width of the maps.
    """
    def image(name: str, encoding: str) -> Image:
        return messages.image(header, host[name].numpy(), encoding)

    def camera() -> CameraInfo:
        return messages.camera_info(header, *size, host['intrinsics'].double().numpy())

    makers = {
        'points': lambda: messages.point_cloud(header, cloud_of(host)),
        'depth': lambda: image('depth', '32FC1'), 'depth_info': camera,
        'rgb': lambda: image('rgb', 'rgb8'), 'rgb_info': camera,
        'confidence': lambda: image('confidence', '32FC1')}
    return [(getattr(publishers, topic), makers[topic]()) for topic in topics]


def cloud_of(host: PendingCopy) -> np.ndarray:
    """Return the cloud [N, 5], or [H, W, 5] if it is organised; a view of what was copied."""
    rows = host['cloud'].numpy()
    return rows if rows.ndim == 3 else rows[:int(host['cloud_size'])]


def cloud_fault(host: PendingCopy, settings: CloudSettings) -> str:
    """
    Return that `cloud.max_error` leaves next to nothing of a frame's cloud; empty if it does not.

    It does if the cloud has hardly any of its points, and the depth of most is expected to be
    off by more.
    """
    if 'cloud' not in host or settings.max_error <= 0:
        return ''
    error = float(host['typical_error'])
    if error <= settings.max_error:
        return ''
    count, kept = int(host['cloud_size']), 1 - settings.confidence_percentile / 100
    if count > LEAST_LEFT * kept * host['cloud'].numel() / len(COLUMNS):
        return ''
    return (
        f'cloud.max_error, {100 * settings.max_error:.0f} %, leaves out all but {count} points of '
        f'the newest cloud: the network expects its depth to be off by {100 * error:.0f} %, so '
        'there is next to nothing in ~/points, ~/map_points and ~/occupancy. Show the camera '
        'more than a bare surface, take other weights (model.checkpoint), raise '
        'cloud.max_error, or set it to 0 to keep all')


def without_gaps(cloud: np.ndarray) -> np.ndarray:
    """Return the points [N, 5] of a cloud that may be organised."""
    return cloud if cloud.ndim == 2 else cloud[np.isfinite(cloud[..., 0])]
