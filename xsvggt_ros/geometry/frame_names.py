"""Names of frames and stamps, as the headers of messages have them."""

from typing import Any


def frame_name(frame_id: str) -> str:
    """Return a frame's name as TF knows it: tf2 has none with a slash at its front."""
    return frame_id.lstrip('/')


def nanoseconds(header: Any) -> int:
    """Return the stamp of a header in nanoseconds."""
    return int(header.stamp.sec) * 10 ** 9 + int(header.stamp.nanosec)
