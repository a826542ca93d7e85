"""A frame of a stream, wherever it comes from. No ROS."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Motion:
    """What is known of the camera's motion in the synthetic world at a frame."""

    world_from_camera: np.ndarray   # [4, 4], optical frame
    linear: np.ndarray              # m/s, in the optical frame
    angular: np.ndarray             # rad/s, in the optical frame


@dataclass(frozen=True)
class FrameHints:
    """
    What else a recording knows at the time of a picture, each None if it does not.

    depth: metres, float32 [h, w], of the picture's camera at any size, NaN where unknown.
    position: the camera's [3] in metres in a frame of its own, and the number of the piece within
    which that is continuous. base_from_camera: [4, 4], lengths in metres.
    """

    depth: np.ndarray | None = None
    position: tuple[np.ndarray, int] | None = None
    base_from_camera: np.ndarray | None = None


@dataclass(frozen=True)
class SourceFrame:
    """One picture and when it is due."""

    pixels: np.ndarray              # [H, W, 3] uint8 RGB, or [H, W] uint8 grey
    offset_ns: int                  # after the first frame
    stamp_ns: int | None = None     # its own time, if it has one
    motion: Motion | None = None
    hints: FrameHints | None = None
