"""What other threads hear of a stream's keyframes: snapshots, with what joins each to the last."""

from dataclasses import replace

import numpy as np

from xsvggt_ros.trajectory.frame import Frame
from xsvggt_ros.trajectory.frame_tracker import PoseMeasurement
from xsvggt_ros.trajectory.gaps import Gap, GapWatch
from xsvggt_ros.trajectory.keyframe import Keyframe, KeyframeBuilder, Snapshot
from xsvggt_ros.trajectory.local_map import LocalMap
from xsvggt_ros.trajectory.matching import Features
from xsvggt_ros.trajectory.odometry_support import OdometrySupport


class Snapshots:
    """Makes the snapshots of a local map's keyframes, and watches the gaps between them."""

    def __init__(self, window: int, local_map: LocalMap, support: OdometrySupport | None) -> None:
        """Begin without a keyframe; window: as of `KeyframeBuilder`."""
        self._map, self._support = local_map, support
        self._builder = KeyframeBuilder(window)
        self._gaps = GapWatch()
        self._newest: Snapshot | None = None

    @property
    def newest(self) -> Snapshot:
        """Return what the newest keyframe changes."""
        assert self._newest is not None   # there was a keyframe
        return self._newest

    def settled(self) -> list[Keyframe]:
        """Return the newest keyframes as they are now."""
        return self._builder.settle(self._map)

    def take(self, frame: Frame, scale: float, features: Features,
             measured: PoseMeasurement) -> None:
        """Make the snapshot of the map's newest keyframe; scale: of its depth."""
        keyframe = int(self._map.keyframes[-1])
        snapshot = self._builder.snapshot(
            frame.grey, frame.depth * scale, frame.depth_from_image, features, self._map,
            measured.information is None and keyframe > 0)
        if measured.source != 'odometry' or self._support is None:
            self._newest = replace(snapshot, gap=self._gap())
            return
        gap = self._support.gap(keyframe, self._map.pose(keyframe - 1), self._map.pose(keyframe))
        # Not guessed, as far as loops are concerned, but less sure than a step that was tracked.
        new = snapshot.keyframe if gap is None else replace(snapshot.keyframe, guessed=False)
        self._newest = replace(snapshot, keyframe=new, gap=gap)

    def watch(self, frame: Frame, scale: float, pose: np.ndarray, measured: PoseMeasurement,
              is_keyframe: bool) -> None:
        """Take a frame at `pose`, and whether the map's newest keyframe is made of it."""
        if measured.information is None and measured.source != 'first':
            if not is_keyframe:
                return
            if measured.source != 'network':
                self._gaps.forget()
                return
            self._gaps.begin(int(self._map.keyframes[-1]))
        self._gaps.add(pose, frame.world_from_camera, scale)

    def _gap(self) -> Gap | None:
        """Return what is newly known of the last gap, as long as both of its sides are known."""
        sides = np.array([self._gaps.keyframe - 1, self._gaps.keyframe])
        if not np.isin(sides, self._map.keyframes).all():
            return None
        return self._gaps.gap(*(self._map.pose(side) for side in sides.tolist()))
