"""The trajectory of a stream by tracks and adjustment, on what a network said about it."""

from dataclasses import replace
import time

import numpy as np

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.evaluation.eval_streams import EvalStream
from xsvggt_ros.evaluation.evaluation import Prediction
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.frame import Frame
from xsvggt_ros.trajectory.history import History
from xsvggt_ros.trajectory.odometry import Odometry


def track(predicted: Prediction, stream: EvalStream, mode: str,
          focal_known: bool, correct_depth: bool = True) -> tuple[Prediction, Prediction]:
    """
    Return a prediction with the poses that `mode` makes of it: final ones, and live ones.

    mode: 'tracked' or 'optimized'. correct_depth: see `Odometry.depth_factors`.
    Without a known focal length it begins with the network's of the first frame. Raises
    ToolError for a stream whose camera is not known though it should be.
    """
    model_from_source, confidences = stream.model_from_source, predicted.confidences
    assert model_from_source is not None and confidences is not None   # prepared for tracking
    camera = first_camera(predicted, stream, focal_known)
    height, width = stream.greys[0].shape
    config = TrajectoryConfig(optimize=mode == 'optimized', correct_depth=correct_depth)
    odometry = Odometry(camera, (width, height), focal_known, config)
    history, seconds, live_cameras = History(config), predicted.seconds.copy(), []
    depths = np.empty_like(predicted.depths)
    for index, grey in enumerate(stream.greys):
        start = time.perf_counter()
        frame = Frame(grey, predicted.depths[index], confidences[index],
                      predicted.world_from_camera[index], model_from_source,
                      predicted.error_of(index))
        estimate = odometry.step(frame)
        depths[index] = frame.depth * odometry.depth_factors(frame)
        history.add(estimate, odometry)
        seconds[index] += time.perf_counter() - start
        live_cameras.append(model_from_source @ odometry.camera)
    history.finish(odometry)
    live = replace(predicted, depths=depths, world_from_camera=np.array(history.live),
                   intrinsics=np.array(live_cameras), seconds=seconds)
    scaled = depths * history.scales().astype(depths.dtype)[:, None, None]
    final = replace(live, depths=scaled, world_from_camera=history.final(), intrinsics=np.tile(
        live_cameras[-1], (len(live_cameras), 1, 1)))
    return final, live


def first_camera(predicted: Prediction, stream: EvalStream, focal_known: bool) -> np.ndarray:
    """
    Return the camera matrix [3, 3] of the tracked pictures with which a trajectory begins.

    The true one, or the network's of the first frame. Raises ToolError where it is not known.
    """
    model_from_source = stream.model_from_source
    assert model_from_source is not None   # prepared for tracking
    camera = np.linalg.inv(model_from_source) @ (
        stream.intrinsics[0] if focal_known else predicted.intrinsics[0].astype(np.float64))
    if not np.isfinite(camera).all():
        raise ToolError(f'{stream.name}: its focal length is not known; add --focal unknown')
    return camera
