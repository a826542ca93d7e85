"""What both Rerun's recordings and its live viewer are sent."""

from typing import Any

import numpy as np

from xsvggt_ros.recordings.exports.export import FrameOutput

TIMELINE = 'stamp'
_QUALITY = 85           # of the images' JPEG


def begin(rr: Any, stream: Any, source: str) -> None:
    """Say how the axes lie, what was recorded, and how the viewer shows it."""
    import rerun.blueprint as rrb

    stream.log('odom', rr.ViewCoordinates.FLU, static=True)
    stream.log('source', rr.TextDocument(source), static=True)
    stream.send_blueprint(rrb.Blueprint(
        rrb.Horizontal(
            # The depth image is a cloud without colours in 3D: the coloured ones are enough.
            rrb.Spatial3DView(origin='odom', name='reconstruction',
                              contents=['$origin/**', '- $origin/camera/image/depth']),
            rrb.Vertical(
                rrb.Spatial2DView(origin='odom/camera/image', name='image',
                                  contents=['$origin/rgb']),
                rrb.Spatial2DView(origin='odom/camera/image', name='depth',
                                  contents=['$origin/depth']),
                rrb.TimeSeriesView(origin='plots', name='cache',
                                   contents=['$origin/cache_occupancy']),
                rrb.TimeSeriesView(origin='plots', name='latency (ms)',
                                   contents=['$origin/latency_ms'])),
            column_shares=[3, 1]),
        collapse_panels=True))


def log_frame(rr: Any, stream: Any, frame: FrameOutput) -> None:
    """Log camera, images, cache and latency at the frame's stamp."""
    stream.set_time(TIMELINE, timestamp=np.datetime64(frame.stamp_ns, 'ns'))
    stream.set_time('frame', sequence=frame.number)
    matrix = frame.pose.matrix()
    stream.log('odom/camera', rr.Transform3D(translation=matrix[:3, 3], mat3x3=matrix[:3, :3]))
    height, width = frame.depth.shape
    stream.log('odom/camera/image', rr.Pinhole(
        image_from_camera=frame.intrinsics, width=width, height=height,
        camera_xyz=rr.ViewCoordinates.RDF))
    stream.log('odom/camera/image/rgb', rr.Image(frame.image).compress(_QUALITY))
    stream.log('odom/camera/image/depth',
               rr.DepthImage(np.nan_to_num(frame.depth.astype(np.float32)), meter=1.0))
    stream.log('plots/cache_occupancy', rr.Scalars(frame.cache.occupancy))
    stream.log('plots/cache_tokens', rr.Scalars(frame.cache.tokens_used))
    stream.log('plots/latency_ms', rr.Scalars(1e3 * frame.cache.latency))
