"""
Reconstruct a folder of images with the engine: no ROS, no command, a loop of your own.

It prints where the camera was in each image, and writes what it saw as one PLY file:

    python3 examples/1_engine_on_a_folder.py FOLDER [CLOUD.ply] [CHECKPOINT]
"""

import argparse
from pathlib import Path
import sys

import numpy as np
import torch

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.engine.factory import build_engine, EngineOptions
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.geometry.se3 import invert_transform
from xsvggt_ros.mapping.map_files import cloud_from_packed, write_ply
from xsvggt_ros.mapping.point_cloud import CloudOptions, pack_cloud
from xsvggt_ros.mapping.point_map import PointMap
from xsvggt_ros.model.checkpoint import CheckpointError, load_model
from xsvggt_ros.recordings.image_folder import ImageFolder

SURE = CloudOptions(confidence_percentile=20.0)  # without the fifth that is least sure


def reconstruct(folder: ImageFolder, engine: StreamEngine) -> PointMap:
    """Return the map of a folder's images, in the frame of the first camera (optical axes)."""
    points = PointMap(max_points=200_000)
    camera = folder.calibration.camera() if folder.calibration is not None else None
    for frame in folder.frames():
        pixels = frame.pixels
        if pixels.ndim == 2:  # grey
            pixels = np.repeat(pixels[:, :, None], 3, axis=2)
        result = engine.step(pixels, camera)
        world_from_camera = invert_transform(result.camera_from_world)
        points.add(pack_cloud(result, SURE), world_from_camera)
        x, y, z = world_from_camera[:3, 3].tolist()
        print(f'{frame.path.name}: x {x:+.3f} y {y:+.3f} z {z:+.3f}')
    return points


def main(arguments: list[str] | None = None) -> None:
    """Reconstruct; what is wrong with the folder or the checkpoint is said in one line."""
    parser = argparse.ArgumentParser(description=__doc__.split(':')[0])
    parser.add_argument('folder')
    parser.add_argument('cloud', nargs='?', type=Path, default='cloud.ply')
    parser.add_argument('checkpoint', nargs='?', default='small')
    options = parser.parse_args(arguments)
    try:
        folder, loaded = ImageFolder(options.folder), load_model(options.checkpoint)
    except (ToolError, CheckpointError) as error:
        sys.exit(str(error))
    cpu = torch.device('cpu')
    engine = build_engine(loaded, EngineOptions(), cpu)  # cache, precision, threads: the node's
    engine.want_points(False)  # depth and pose are enough
    cloud = cloud_from_packed(reconstruct(folder, engine).points().numpy())
    write_ply(options.cloud, cloud, 'x right, y down, z forward at the first camera')
    print(f'{len(cloud)} points in {options.cloud}')


if __name__ == '__main__':
    main()
