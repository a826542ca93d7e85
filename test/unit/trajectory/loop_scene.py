"""Snapshots of a camera that goes round in a room with landmarks, twice, for tests of loops."""

from dataclasses import replace

import cv2
import numpy as np
from scenes import CAMERA

from xsvggt_ros.trajectory.keyframe import _thumbnail, Keyframe, Snapshot
from xsvggt_ros.trajectory.matching import Features
from xsvggt_ros.trajectory.projection import motion, project, rotation, to_camera

SIZE = (320, 240)
WINDOW = 10
ROUND = 24       # keyframes of one round


def round_way(count, radius=1.0):
    """Return poses [count, 4, 4] on a circle, looking outwards."""
    angle = 2 * np.pi * np.arange(count) / ROUND
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = rotation(np.stack([0 * angle, angle, 0 * angle], -1))
    poses[:, :3, 3] = radius * np.stack([np.sin(angle), 0 * angle, np.cos(angle)], -1)
    return np.linalg.inv(poses[0]) @ poses


class Room:
    """Landmarks with descriptors on walls all around, and what a camera sees of them."""

    def __init__(self, seed=0, landmarks=3000):
        rng = np.random.default_rng(seed)
        angle, height = rng.uniform(0, 2 * np.pi, landmarks), rng.uniform(-1.5, 1.5, landmarks)
        radius = rng.uniform(3.0, 4.0, landmarks)
        self.points = np.stack([radius * np.sin(angle), height, radius * np.cos(angle) - 1], -1)
        self.descriptors = rng.integers(0, 256, (landmarks, 32), dtype=np.uint8)
        self._texture = cv2.GaussianBlur(
            rng.integers(0, 255, (240, 4000), dtype=np.uint8), (0, 0), 12)

    def keyframe(self, keyframe, pose, scale=1.0, guessed=False):
        """Return what is seen from a true pose; scale: of what the stream takes for a metre."""
        local = to_camera(self.points, pose)
        pixels = project(local, CAMERA)
        seen = np.flatnonzero((local[:, 2] > 0.1) & (pixels > 5).all(1)
                              & (pixels < np.array(SIZE) - 5).all(1))[:250]
        # The same landmark has another number when it is seen again later.
        ids = seen + 10_000 * (keyframe // ROUND)
        features = Features(keyframe, pixels[seen].astype(np.float32), self.descriptors[seen],
                            ids)
        angle = np.arctan2(pose[0, 2], pose[2, 2]) % (2 * np.pi)
        left = int(angle / (2 * np.pi) * 3600)
        return Keyframe(keyframe, features, scale * local[seen], np.full(len(seen), 1e-4),
                        _thumbnail(self._texture[:, left:left + 320]),
                        np.full((15, 20), scale * 2.8, np.float32), CAMERA, SIZE, guessed)


def snapshots(room, true, odometry, scale=None):
    """Yield the snapshots of a way; odometry: its poses as they are believed."""
    scale = np.ones(len(true)) if scale is None else scale
    keyframes = [room.keyframe(number, pose, scale[number]) for number, pose in enumerate(true)]
    for number, keyframe in enumerate(keyframes):
        settled = keyframes[number - WINDOW:number - WINDOW + 1] if number >= WINDOW else []
        recent = np.arange(max(0, number - WINDOW), number + 1)
        yield Snapshot(keyframe, recent, odometry[recent], tuple(settled))


def drifting(true, rng, turn=0.004, length=0.01, scale=0.003):
    """Return a way as odometry sees it, its unit growing, and the unit at each pose."""
    scales = np.exp(scale * np.arange(len(true)))
    poses = true.copy()
    for row in range(1, len(true)):
        step = np.linalg.inv(true[row - 1]) @ true[row]
        step[:3, 3] *= scales[row]
        noise = motion(np.r_[rng.normal(0, turn / 5, 3) + (0, turn, 0),
                             rng.normal(0, length, 3)])
        poses[row] = poses[row - 1] @ step @ noise
    return poses, scales


def wrong(keyframe, other):
    """Return a keyframe that looks like another one."""
    return replace(keyframe, thumbnail=other.thumbnail, features=replace(
        other.features, keyframe=keyframe.id, ids=other.features.ids + 50_000))
