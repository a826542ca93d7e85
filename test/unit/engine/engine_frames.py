"""Frames for tests of the engine."""

import pytest
from tiny_stream import CASE

WITH_POINTS = pytest.mark.parametrize('model', ['streamvggt'], indirect=True)  # a head for them


def frames(count=None):
    return [CASE.rgb(i) for i in range(count or len(CASE.frames))]
