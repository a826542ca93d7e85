"""Features of keyframes find their like in another view, and nothing elsewhere."""

import numpy as np
import pytest
from test_tracker import picture, shifted, tracking

from xsvggt_ros.trajectory.matching import Matcher


def test_a_shifted_view_is_matched():
    image = picture()
    _, corners = tracking(image)
    matcher = Matcher(3)
    known = matcher.describe(image, corners, np.arange(len(corners)), 5)
    moved = shifted(image, 41, -17)
    _, there = tracking(moved)
    here, which = matcher.match(matcher.describe(moved, there), known)
    assert known.keyframe == 5 and len(here) > 30
    off = matcher.describe(moved, there).pixels[here] - known.pixels[which]
    assert (np.abs(off - (41, -17)).max(1) < 2).mean() > 0.9


def test_another_place_matches_little():
    matcher = Matcher(3)
    views = []
    for seed in (1, 2):
        image = picture(seed=seed)
        views.append(matcher.describe(image, tracking(image)[1]))
    assert len(matcher.match(*views)[0]) < 15


@pytest.mark.parametrize('size', [(1, 1), (40, 320), (61, 61)])
def test_what_has_no_features_matches_nothing(size):
    matcher = Matcher(3)
    none = matcher.describe(np.zeros(size, np.uint8), np.ones((4, 2), np.float32))
    image = picture()
    known = matcher.describe(image, tracking(image)[1])
    assert len(none.ids) == 0
    for pair in ((none, known), (known, none), (none, none)):
        assert len(matcher.match(*pair)[0]) == 0
