"""Two parts of a frame at the same time, on a device that can do that."""

from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch

First = TypeVar('First')
Second = TypeVar('Second')


def side_by_side(
    first: Callable[[], First], second: Callable[[], Second], device: torch.device,
) -> tuple[First, Second]:
    """
    Return what two functions return that do not need each other's results.

    They are called in this order. On a CUDA device the work of the second one runs on a stream
    of its own, beside the first one's: it pays where one waits for memory and the other
    computes. Elsewhere one comes after the other. Has not run on a GPU yet.
    """
    if device.type != 'cuda':
        return first(), second()
    current, side = torch.cuda.current_stream(device), _side_stream(device)
    begin = current.record_event()
    one = first()
    side.wait_event(begin)
    try:
        with torch.cuda.stream(side):
            return one, second()
    finally:
        # What either one allocated is freed after this, in the order of the stream it came from;
        # the next frame's second part waits for all that the current one did with this one's.
        current.wait_stream(side)


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
