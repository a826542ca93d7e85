"""The trajectory of a stream by tracks and adjustment, on what a network said about it."""

from collections.abc import Iterator
from dataclasses import replace
import time

import numpy as np
import torch

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.evaluation.eval_streams import EvalSource, EvalStream, prepare
from xsvggt_ros.evaluation.evaluation import EvalSetting, predict, Prediction
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model.checkpoint import LoadedModel
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.frame import Frame
from xsvggt_ros.trajectory.history import History
from xsvggt_ros.trajectory.odometry import Odometry


def track(predicted: Prediction, stream: EvalStream, mode: str,
          focal_known: bool, correct_depth: bool = True) -> tuple[Prediction, Prediction]:
    """
    Return a prediction with the poses that `mode` makes of it: final ones, and live ones.

    Live ones are in the map, as it was then; their steps from frame to frame are of the odometry.
    mode: 'tracked' or 'optimized'. correct_depth: see `Odometry.depth_factors`.
    Without a known focal length it begins with the network's of the first frame. Raises
    ToolError for a stream whose camera is not known though it should be.
    """
    config = TrajectoryConfig(optimize=mode == 'optimized', correct_depth=correct_depth)
    odometry = begin_odometry(predicted, stream, focal_known, config)
    history, seconds = History(config), predicted.seconds.copy()
    odometry_poses, live_cameras = [], []
    depths = np.empty_like(predicted.depths)
    for index, frame in enumerate(tracked_frames(predicted, stream)):
        start = time.perf_counter()
        estimate = odometry.step(frame)
        depths[index] = frame.depth * odometry.depth_factors(frame)
        history.add(estimate, odometry)
        seconds[index] += time.perf_counter() - start
        odometry_poses.append(estimate.odom_from_camera)
        live_cameras.append(frame.depth_from_image @ odometry.camera)
    history.finish(odometry)
    live = replace(predicted, depths=depths, world_from_camera=np.array(history.live),
                   odom_from_camera=np.array(odometry_poses),
                   intrinsics=np.array(live_cameras), seconds=seconds)
    scaled = depths * history.scales().astype(depths.dtype)[:, None, None]
    final = replace(live, depths=scaled, world_from_camera=history.final(), odom_from_camera=None,
                    intrinsics=np.tile(live_cameras[-1], (len(live_cameras), 1, 1)))
    return final, live


def predict_tracked(source: EvalSource, loaded: LoadedModel) -> tuple[EvalStream, Prediction]:
    """Return all of a stream, to be tracked, and what the network says of it; raise ToolError."""
    stream = prepare(source, len(source), 1, loaded.config.img_size, loaded.config.patch_size,
                     lambda: None, tracked=True)
    cache = CacheConfig()
    return stream, predict(loaded, EvalSetting(cache.policy, cache.quantization), stream,
                           torch.device('cpu'), 'auto', lambda: None)


def tracked_frames(predicted: Prediction, stream: EvalStream) -> Iterator[Frame]:
    """Return what an odometry is given of each frame."""
    model_from_source, confidences = stream.model_from_source, predicted.confidences
    assert model_from_source is not None and confidences is not None   # prepared for tracking
    for index, grey in enumerate(stream.greys):
        yield Frame(grey, predicted.depths[index], confidences[index],
                    predicted.world_from_camera[index], model_from_source,
                    predicted.error_of(index))


def begin_odometry(predicted: Prediction, stream: EvalStream, focal_known: bool,
                   config: TrajectoryConfig) -> Odometry:
    """
    Return an odometry before a stream's first frame.

    It begins with the true camera, or the network's of the first frame. Raises ToolError where
    that is not known.
    """
    model_from_source = stream.model_from_source
    assert model_from_source is not None   # prepared for tracking
    camera = np.linalg.inv(model_from_source) @ (
        stream.intrinsics[0] if focal_known else predicted.intrinsics[0].astype(np.float64))
    if not np.isfinite(camera).all():
        raise ToolError(f'{stream.name}: its focal length is not known; add --focal unknown')
    height, width = stream.greys[0].shape
    return Odometry(camera, (width, height), focal_known, config)
