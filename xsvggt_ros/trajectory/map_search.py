"""Where a keyframe is in a saved map: features that match, one pose for all of them, one scale."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from xsvggt_ros.geometry.similarity import inverse_similarity
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.keyframe import Keyframe
from xsvggt_ros.trajectory.keyframe_database import KeyframeDatabase
from xsvggt_ros.trajectory.landmark_map import LandmarkMap
from xsvggt_ros.trajectory.loop_check import depths_agree, scale_between
from xsvggt_ros.trajectory.matching import Features, Matcher
from xsvggt_ros.trajectory.pose import find_pose, fit_pose, PoseFit
from xsvggt_ros.trajectory.projection import NEAREST, project, to_camera

_RATIO, _FARTHEST = 0.85, 64    # as for loops, see `matching`
_SIZES = (1.0, 0.7, 1.4)        # of the picture: the map may be from nearer, or from farther
_RANSAC_PIXELS = 3.0            # at 320 pixels
_FEWEST = 12                    # matches with one keyframe that are worth a guess
_GUESSES = 5                    # that are compared with all matches, and one elsewhere
_ROUNDS = 2                     # of a fit to the matches that agree with it
_BESIDE = 8.0                   # pixels, at 320, in which a landmark has to be seen again
_TURNED, _MOVED = 0.2, 0.25     # rad and depths by which two poses are two
_CLOSER = 12                    # keyframes that are compared at all sizes
_MOST = 120                     # matches that a sighting keeps
_DEPTH = 0.04                   # of log depth, by which landmarks are off that seem surer
_NEAR = 8                       # keyframes in which a pose is looked for that is known about


@dataclass(frozen=True)
class SeenLandmarks:
    """
    Landmarks of a map that a keyframe sees.

    points, along [m, 3]: in the map's frame, and from the camera that saw them, in which
    direction they move by a change of their log depth, of variance [m]. pixels [m, 2]: where the
    keyframe sees them. depths [m]: of the features by the keyframe, NaN where there is none.
    weight [m]: less for a feature that matches several. camera [3, 3]; pixel: size of a pixel of
    320 in its.
    """

    points: np.ndarray
    along: np.ndarray
    variance: np.ndarray
    pixels: np.ndarray
    depths: np.ndarray
    weight: np.ndarray
    camera: np.ndarray
    pixel: float


@dataclass(frozen=True)
class MapMatch:
    """
    A keyframe of the stream that is recognised.

    map_from_keyframe [4, 4]: a similarity, in the saved map, whose scale is of the keyframe's
    unit. depth: of what is seen, in the saved map's unit. inliers: features that agree; share: of
    those that lie where a landmark should be seen, how many look like it; second: features that
    agree with the next best pose.
    """

    keyframe: int
    map_from_keyframe: np.ndarray
    depth: float
    inliers: int
    share: float
    second: int
    seen: SeenLandmarks


@dataclass(frozen=True)
class _Matches:
    """Features [m] and the landmarks that look like them, in the map's frame."""

    feature: np.ndarray
    keyframe: np.ndarray
    points: np.ndarray     # [m, 3]
    along: np.ndarray      # [m, 3], from the camera that saw it
    variance: np.ndarray


class MapSearch:
    """Looks for keyframes in a saved map, which is only read."""

    def __init__(self, landmarks: LandmarkMap, config: TrajectoryConfig) -> None:
        """Take a map; config: the odometry's."""
        self._map, self._config = landmarks, config
        self._matcher = Matcher(1)
        self._database = KeyframeDatabase()
        for keyframe in landmarks.keyframes:
            self._database.add(keyframe)
        self._world = [pose[:3, :3] @ keyframe.points.T + pose[:3, 3:]
                       for keyframe, pose in zip(landmarks.keyframes, landmarks.poses)]

    def find(self, new: Keyframe, image: np.ndarray, about: np.ndarray | None = None,
             ) -> MapMatch | str:
        """
        Return where a keyframe is in the map, or why it is not known.

        image: uint8 [h, w] that it is of. about [4, 4]: where it should be; then only there.
        """
        where = self._candidates(new, about)
        scale = self._config.scaled(new.size[0])
        matches = self._match(new.features, image, where)
        if len(np.unique(matches.feature)) < self._config.loop_inliers:
            return 'few matches'
        fits = self._fits(new, matches, scale)
        if not fits:
            return 'no pose'
        fit, inliers = fits[0]
        second = next((count for other, count in fits[1:] if _differ(fit, other.pose, matches)),
                      0)
        if inliers < self._config.loop_inliers:
            return 'few inliers'
        return self._checked(new, matches, fit, inliers, second, scale)

    # Parts ---------------------------------------------------------------------------------------

    def _candidates(self, new: Keyframe, about: np.ndarray | None) -> np.ndarray:
        """Return rows of the keyframes to compare with."""
        if about is not None:
            return self._seen_from(about, new)[:_NEAR]
        _, scores = self._database.scores(new.thumbnail)
        return np.argsort(-scores, kind='stable')[:self._config.localize_candidates]

    def _seen_from(self, pose: np.ndarray, new: Keyframe) -> np.ndarray:
        """Return rows of keyframes that see the most of what is seen from a pose, most first."""
        poses = self._map.poses
        ahead = poses[:, :3, 2] @ pose[:3, 2]
        apart = np.linalg.norm(poses[:, :3, 3] - pose[:3, 3], axis=1)
        depth = np.array([np.median(keyframe.points[:, 2]) for keyframe in self._map.keyframes])
        cost = np.arccos(np.clip(ahead, -1, 1)) + apart / depth
        return np.argsort(cost, kind='stable')

    def _match(self, features: Features, image: np.ndarray, rows: np.ndarray) -> _Matches:
        """Return what looks the same in keyframes, at any of the sizes."""
        found: list[tuple[np.ndarray, ...]] = []
        count = len(features.ids)
        seen = [_described(self._matcher, features, image, size) for size in _SIZES]
        if len(rows) > _CLOSER:
            alike = [len(_nearest_both_ways(seen[:1], count, self._signs(row))[0])
                     for row in rows.tolist()]
            rows = rows[np.argsort(-np.array(alike), kind='stable')[:_CLOSER]]
        for row in rows.tolist():
            keyframe = self._map.keyframes[row]
            feature, landmark = _nearest_both_ways(seen, count, self._signs(row))
            points = self._world[row].T[landmark]
            found.append((feature, np.full(len(feature), row), points,
                          points - self._map.poses[row][:3, 3],
                          keyframe.variance[landmark] + _DEPTH ** 2))
        if not found:
            empty = np.empty((0, 3))
            return _Matches(np.empty(0, int), np.empty(0, int), empty, empty, np.empty(0))
        return _Matches(*(np.concatenate(parts) for parts in zip(*found)))

    def _signs(self, row: int) -> np.ndarray:
        """Return a keyframe's descriptors as signs; kept they would take 32 times the memory."""
        return _signs(self._map.keyframes[row].features.descriptors)

    def _fits(self, new: Keyframe, matches: _Matches, scale: float) -> list[tuple[PoseFit, int]]:
        """Return poses and how many features agree with each, best first."""
        pixels = new.features.pixels[matches.feature].astype(np.float64)
        fits: list[tuple[PoseFit, int]] = []
        for number, guess in enumerate(self._guesses(new, matches, pixels, scale)):
            if number >= _GUESSES and not _is_elsewhere(guess, fits, matches):
                continue
            fit = self._fit(guess, new, matches, pixels, scale)
            if fit is not None:
                fits.append((fit, len(np.unique(matches.feature[fit.inliers]))))
        return sorted(fits, key=lambda one: -one[1])

    def _guesses(self, new: Keyframe, matches: _Matches, pixels: np.ndarray,
                 scale: float) -> Iterable[np.ndarray]:
        """Return a pose [4, 4] by each keyframe, those first with which most features agree."""
        guesses: list[tuple[int, np.ndarray]] = []
        for row in np.unique(matches.keyframe).tolist():
            of_keyframe = matches.keyframe == row
            if of_keyframe.sum() < _FEWEST:
                continue
            pose = find_pose(matches.points[of_keyframe], pixels[of_keyframe], new.camera,
                             _RANSAC_PIXELS * scale)
            if pose is not None:
                agree = _agreeing(pose, matches, pixels, new.camera, scale)
                guesses.append((len(np.unique(matches.feature[agree])), pose))
        guesses.sort(key=lambda one: -one[0])
        return (pose for _, pose in guesses)

    def _fit(self, pose: np.ndarray, new: Keyframe, matches: _Matches, pixels: np.ndarray,
             scale: float) -> PoseFit | None:
        """
        Return a pose [4, 4] fitted to the matches that agree with it; None if that cannot be.

        To these alone: where the map holds a place twice each feature has a match in the other
        one, too, and half of all would draw the pose away from where it is.
        """
        config, fit = self._config, None
        inliers = np.zeros(len(matches.feature), bool)
        for _ in range(_ROUNDS):
            near = np.flatnonzero(_agreeing(pose, matches, pixels, new.camera, scale))
            fit = fit_pose(matches.points[near], matches.along[near], matches.variance[near],
                           pixels[near], new.camera, pose, config.pixel_sigma * scale,
                           config.huber, config.outlier)
            if fit is None:
                return None
            pose, inliers[:] = fit.pose, False
            inliers[near] = fit.inliers
        return None if fit is None else replace(fit, inliers=inliers)

    def _checked(self, new: Keyframe, matches: _Matches, fit: PoseFit, inliers: int, second: int,
                 scale: float) -> MapMatch | str:
        local = to_camera(matches.points[fit.inliers], fit.pose)[:, 2]
        told = scale_between(local, new.points[matches.feature[fit.inliers], 2])
        if told is None:
            return 'no scale'
        similarity = fit.pose.copy()
        similarity[:3, :3] *= np.exp(told[0])
        row = int(np.bincount(matches.keyframe[fit.inliers]).argmax())
        old_from_new = inverse_similarity(self._map.poses[row]) @ similarity
        if not depths_agree(self._map.keyframes[row], new, old_from_new):
            return 'depths disagree'
        share = self._share(new, fit.pose, scale)
        return MapMatch(new.id, similarity, float(np.median(local)), inliers, share, second,
                        _seen(new, matches, fit.inliers, scale))

    def _share(self, new: Keyframe, pose: np.ndarray, scale: float) -> float:
        """Return how many of the landmarks that should be seen from a pose look like that."""
        rows = self._seen_from(pose, new)[:_NEAR]
        points = np.concatenate([self._world[row].T for row in rows.tolist()])
        descriptors = np.concatenate([self._map.keyframes[row].features.descriptors
                                      for row in rows.tolist()])
        local = to_camera(points, pose)
        pixels = project(local, new.camera)
        inside = (local[:, 2] > NEAREST) & (pixels >= 0).all(1) & (
            pixels < np.array(new.size)).all(1)
        pixels, descriptors = pixels[inside], descriptors[inside]
        if not len(pixels) or not len(new.features.ids):
            return 0.0
        apart = np.linalg.norm(new.features.pixels[:, None] - pixels[None], axis=2)
        bits = _different_bits(_signs(new.features.descriptors), _signs(descriptors))
        beside = apart < _BESIDE * scale
        expected = beside.any(1)
        agrees = (beside & (bits <= _FARTHEST)).any(1)
        return float(agrees.sum() / max(1, expected.sum()))


def _described(matcher: Matcher, features: Features, image: np.ndarray,
               size: float) -> tuple[np.ndarray, np.ndarray]:
    """Return which features [n] have descriptors [n, 256] in the picture at another size."""
    if size == 1.0:
        # Those of the keyframe itself, whatever the picture.
        return np.arange(len(features.ids)), _signs(features.descriptors)
    if not image.size:
        return np.empty(0, int), np.empty((0, 256), np.float32)
    height, width = (round(size * side) for side in image.shape)
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if size < 1
                         else cv2.INTER_LINEAR)
    factor = np.array([width / image.shape[1], height / image.shape[0]], np.float32)
    pixels = factor * (features.pixels + 0.5) - 0.5
    seen = matcher.describe(resized, pixels.astype(np.float32), np.arange(len(pixels)))
    return seen.ids, _signs(seen.descriptors)


def _nearest_both_ways(seen: list[tuple[np.ndarray, np.ndarray]], count: int,
                       descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return features and landmarks [m] that look most like each other, by far."""
    nothing: np.ndarray = np.empty(0, int)
    if len(descriptors) < 2 or not count:
        return nothing, nothing
    bits = np.full((count, len(descriptors)), 256.0, np.float32)
    for which, described in seen:
        if len(which):
            bits[which] = np.minimum(bits[which], _different_bits(described, descriptors))
    rows, best, back = np.arange(count), bits.argmin(1), bits.argmin(0)
    least = bits[rows, best]
    bits[rows, best] = np.inf
    good = (least <= _FARTHEST) & (least < _RATIO * bits.min(1)) & (back[best] == rows)
    return rows[good], best[good]


def _different_bits(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return in how many bits [n, m] descriptors as signs [n, 256] and [m, 256] differ."""
    # A product: as quick as OpenCV's matcher, and all distances are there.
    bits: np.ndarray = (first.shape[1] - first @ second.T) / 2
    return bits


def _signs(descriptors: np.ndarray) -> np.ndarray:
    """Return the bits of descriptors [n, 32] as -1 and 1, float32 [n, 256]."""
    return 2 * np.unpackbits(descriptors, axis=1).astype(np.float32) - 1


def _seen(new: Keyframe, matches: _Matches, inliers: np.ndarray, scale: float) -> SeenLandmarks:
    """Return the matches that agree, the surest, at most _MOST."""
    rows = np.flatnonzero(inliers)
    times = np.bincount(matches.feature[rows], minlength=len(new.features.ids))
    rows = rows[np.argsort(matches.variance[rows], kind='stable')[:_MOST]]
    feature = matches.feature[rows]
    return SeenLandmarks(
        matches.points[rows], matches.along[rows], matches.variance[rows],
        new.features.pixels[feature].astype(np.float64), new.points[feature, 2],
        1 / times[feature], new.camera, scale)


def _agreeing(pose: np.ndarray, matches: _Matches, pixels: np.ndarray, camera: np.ndarray,
              scale: float) -> np.ndarray:
    """Return which matches [m] are seen from a pose [4, 4] about where they are: at pixels."""
    local = to_camera(matches.points, pose)
    off = np.linalg.norm(project(local, camera) - pixels, axis=1)
    agree: np.ndarray = (off < 2 * _RANSAC_PIXELS * scale) & (local[:, 2] > NEAREST)
    return agree


def _is_elsewhere(guess: np.ndarray, fits: list[tuple[PoseFit, int]], matches: _Matches) -> bool:
    """Return whether a pose is not the best one's, and none of the others is elsewhere."""
    if not fits:
        return False
    best = max(fits, key=lambda one: one[1])[0]
    return _differ(best, guess, matches) and not any(
        _differ(best, other.pose, matches) for other, _ in fits)


def _differ(fit: PoseFit, other: np.ndarray, matches: _Matches) -> bool:
    """Return whether another pose [4, 4] is not the one that was found."""
    turned = np.arccos(np.clip((np.trace(fit.pose[:3, :3].T @ other[:3, :3]) - 1) / 2, -1, 1))
    depth = float(np.median(to_camera(matches.points[fit.inliers], fit.pose)[:, 2]))
    moved = np.linalg.norm(fit.pose[:3, 3] - other[:3, 3])
    return bool(turned > _TURNED or moved > _MOVED * depth)
