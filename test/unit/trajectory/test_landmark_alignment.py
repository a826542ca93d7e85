"""A stream comes to lie where its keyframes see a map's landmarks, in the map's unit."""

from dataclasses import replace

import numpy as np
import pytest
from test_localizer import HERE, node_of, sighting

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.landmark_alignment import align_landmarks
from xsvggt_ros.trajectory.pose_graph import difference, similarity_of

NODES = np.array([node_of(number) for number in range(1, 6)])
OFF = similarity_of(np.array([0.02, -0.03, 0.01, 0.05, -0.04, 0.03, 0.04]))


def seen_by(count=5, **changes):
    return [replace(sighting(number, HERE).seen, **changes) for number in range(1, count + 1)]


def changed(seen, **changes):
    """Return sightings with arrays that functions have made of theirs."""
    return [replace(one, **{name: change(getattr(one, name).copy())
                            for name, change in changes.items()}) for one in seen]


def aligned(seen, guess=None):
    guess = HERE @ OFF if guess is None else guess
    return align_landmarks(guess, NODES[:len(seen)], seen, TrajectoryConfig())


def miss(found):
    return np.linalg.norm(difference(np.linalg.inv(HERE) @ found))


@pytest.mark.parametrize('count', [1, 5])
def test_the_exact_similarity_is_found(count):
    assert miss(HERE @ OFF) > 0.05 and miss(aligned(seen_by(count))) < 1e-6


def test_the_way_between_keyframes_tells_the_scale_where_no_depth_is_known():
    assert miss(aligned(seen_by(depths=np.full(40, np.nan)))) < 1e-6


def test_wrong_matches_do_little_harm_and_none_without_weight():
    def elsewhere(pixels):
        pixels[:12] = pixels[:12][::-1]
        return pixels

    def weightless(weight):
        weight[:12] = 0
        return weight

    wrong = changed(seen_by(), pixels=elsewhere)
    assert miss(aligned(wrong)) < 0.1 * miss(HERE @ OFF)
    assert miss(aligned(changed(wrong, weight=weightless))) < 1e-6


def test_landmarks_of_unsure_depth_are_believed_across_it_only():
    rng = np.random.default_rng(2)
    aside = (HERE @ node_of(-30))[:3, 3]    # of the camera that saw them
    shifted = []
    for one in seen_by():
        along = one.points - aside
        points = one.points + rng.normal(0, 0.05, (len(along), 1)) * along
        shifted.append(replace(one, points=points, along=along))
    sure, unsure = ([replace(one, variance=np.full(40, variance)) for one in shifted]
                    for variance in (1e-8, 0.05 ** 2))
    assert miss(aligned(unsure)) < 0.5 * miss(aligned(sure))


def test_where_nothing_is_seen_the_guess_stays():
    guess = HERE @ OFF
    one, = seen_by(1)
    names = ('points', 'along', 'variance', 'pixels', 'depths', 'weight')
    for seen in ([], [replace(one, **{name: getattr(one, name)[:0] for name in names})],
                 changed([one], weight=lambda weight: 0 * weight),
                 changed([one], points=lambda points: points - 20 * one.along)):   # behind
        assert np.allclose(aligned(seen, guess), guess, atol=1e-12)


def test_a_step_to_another_scale_altogether_is_not_taken():
    # One keyframe: where things are seen is the same at every scale about its camera.
    about = NODES[0] @ similarity_of(np.array([0, 0, 0, 0, 0, 0, 1.5])) @ np.linalg.inv(NODES[0])
    assert np.array_equal(aligned(seen_by(1), HERE @ about), HERE @ about)
    half = NODES[0] @ similarity_of(np.array([0, 0, 0, 0, 0, 0, 0.7])) @ np.linalg.inv(NODES[0])
    assert miss(aligned(seen_by(1), HERE @ half)) < 1e-5
