"""Finds a frame's pose: by its tracks, by tracks from where they should be, by matching."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.local_map import LocalMap
from xsvggt_ros.trajectory.matching import Features, Matcher
from xsvggt_ros.trajectory.pose import find_pose, fit_pose
from xsvggt_ros.trajectory.projection import project, to_camera
from xsvggt_ros.trajectory.tracker import Tracker, Tracks
from xsvggt_ros.trajectory.turn_only import find_turn
from xsvggt_ros.trajectory.two_motions import find_two_motions, spanned_area

_FEWEST_TRACKS = 12
_PLENTY = 0.4            # share of the tracks with which no other way is tried
_PRECISE = 2.0           # pixels of error above which another way is tried, too
_RANSAC_PIXELS = 2.0     # at 320 pixels
_TOGETHER = 0.6          # of the tracks of one motion, that agree with one pose, at least
_MUCH_BETTER = 0.25      # of the error, below which a camera that only turned is believed


@dataclass(frozen=True)
class PoseMeasurement:
    """
    A frame's pose [4, 4] and the tracks it is from.

    source: 'first', 'tracks', 'matches', 'odometry', 'network', 'motion' or 'hold'; error: pixels;
    information: [6, 6] of a small motion, None for a pose that is a guess; outliers: tracks that
    do not agree.
    """

    pose: np.ndarray
    tracks: Tracks
    source: str
    error: float
    information: np.ndarray | None
    outliers: Tracks = field(default_factory=Tracks.none)


class FrameTracker:
    """Tracks landmarks, and looks for those of the last keyframes when tracks are lost."""

    def __init__(self, config: TrajectoryConfig, pixel_scale: float) -> None:
        """Begin without an image; pixel_scale: as TrajectoryConfig.scaled."""
        self._config, self._scale = config, pixel_scale
        self._tracker = Tracker(config)
        self._matcher = Matcher(config.matching_keyframes)
        self._begun: tuple[np.ndarray, PoseMeasurement | None] | None = None

    def begin(self, image: np.ndarray, local_map: LocalMap,
              last: np.ndarray) -> PoseMeasurement | None:
        """
        Do the part of `track` that needs no guess; it goes on from there with this image.

        Returns what it is likely to return, the very object; None if that is not known.
        """
        self._forget_bad(local_map)
        measured = self._follow(image, local_map, last, None)
        self._begun = image, measured
        return measured

    def track(self, image: np.ndarray, local_map: LocalMap, last: np.ndarray,
              guesses: Iterable[np.ndarray], moving: np.ndarray) -> PoseMeasurement | None:
        """
        Return the pose of a grey image after one at `last`; None if lost.

        guesses: where it may be, likeliest first; asked for while few tracks are found. moving:
        pixels [m, 2] of the last image of what is known to move.
        """
        if not len(self._tracker.tracks):
            self._begun = None
            return self._by_matching(image, local_map, last)
        best, is_plain = self._best_guess(image, local_map, last, guesses)
        if best is not None:
            best = self._or_scene(image, best, is_plain, local_map, last, moving)
            best = self._or_turned(best, local_map, last, moving)
        matched = None
        if best is None or not is_plain and len(best.tracks) < 2 * self._config.matching_inliers:
            matched = self._by_matching(image, local_map, last)
        if matched is None or best is not None and len(best.tracks) >= len(matched.tracks):
            return best
        return matched

    def is_sure(self, image: np.ndarray) -> bool:
        """Return whether `track` needs no guess for an image that was begun."""
        if self._begun is None or self._begun[0] is not image or self._begun[1] is None:
            return False
        return self._is_plain(self._begun[1], len(self._tracker.tracks))

    def _is_plain(self, measured: PoseMeasurement, asked: int) -> bool:
        """Return whether so many tracks agree with a pose that no other counts."""
        return (len(measured.tracks) > _PLENTY * asked
                and measured.error < _PRECISE * self._scale)

    @property
    def tracks(self) -> Tracks:
        """Return what is tracked in the last image."""
        return self._tracker.tracks

    def keep(self, image: np.ndarray, tracks: Tracks) -> None:
        """Make `image`, and what is tracked in it, the last one."""
        self._tracker.keep(image, tracks)

    def corners(self, image: np.ndarray, tracks: Tracks, others: np.ndarray) -> np.ndarray:
        """Return corners [n, 2] that fill the tracks up, away from pixels `others` [m, 2], too."""
        return self._tracker.corners(image, np.concatenate([tracks.pixels, others]),
                                     self._config.corners - len(tracks))

    def begin_keyframe(self, image: np.ndarray, tracks: Tracks, keyframe: int) -> Features:
        """Keep the image, and remember what a keyframe is recognised by."""
        self._tracker.keep(image, tracks)
        features = self._matcher.describe(image, tracks.pixels, tracks.ids, keyframe)
        if len(features.ids) >= self._config.matching_inliers:
            self._matcher.recent.append(features)
        return features

    def _forget_bad(self, local_map: LocalMap) -> None:
        tracks = self._tracker.tracks
        known = local_map.known(tracks.ids)
        if not known.all():
            self._tracker.tracks = tracks.chosen(known)

    def _best_guess(self, image: np.ndarray, local_map: LocalMap, last: np.ndarray,
                    guesses: Iterable[np.ndarray]) -> tuple[PoseMeasurement | None, bool]:
        """Return the pose with most tracks, and whether they are so many that no other counts."""
        if self._begun is None or self._begun[0] is not image:
            self.begin(image, local_map, last)
        assert self._begun is not None
        (_, measured), self._begun = self._begun, None
        asked = len(self._tracker.tracks)
        best: PoseMeasurement | None = None
        for guess in chain((None,), guesses):
            if guess is not None:
                measured = self._follow(image, local_map, guess, self._expected(local_map, guess))
            if measured is not None and (best is None or len(measured.tracks) > len(best.tracks)):
                best = measured
            if best is not None and self._is_plain(best, asked):
                return best, True
        return best, False

    def _or_scene(self, image: np.ndarray, best: PoseMeasurement, is_plain: bool,
                  local_map: LocalMap, last: np.ndarray, moving: np.ndarray) -> PoseMeasurement:
        """
        Return `best`, or the pose by that of two motions which spans more of the image.

        Looked for while it is not known what moves, before anything is said to.
        """
        config = self._config
        few = config.dynamic_share * (len(best.tracks) + len(best.outliers))
        is_sure = is_plain and best.error < config.doubt * self._scale
        if config.many_move(len(moving)) or is_sure and len(best.outliers) < few:
            return best
        found = [self._alone(image, part, local_map, last)
                 for part in self._motions(best.tracks.joined(best.outliers), local_map)]
        if len(found) < 2 or found[0] is None or found[1] is None:
            return best
        return max((one for one in found if one is not None),
                   key=lambda one: spanned_area(one.tracks.pixels, self._tracker.shape))

    def _motions(self, now: Tracks, local_map: LocalMap) -> list[Tracks]:
        """Return the tracks of each of two motions since the last image; none if it is one."""
        two = find_two_motions(self._before(now), now.pixels, local_map.camera,
                               self._tracker.shape, self._scale)
        return [] if two is None else [now.chosen(mask) for mask in two]

    def _alone(self, image: np.ndarray, part: Tracks, local_map: LocalMap,
               last: np.ndarray) -> PoseMeasurement | None:
        """Return the pose by tracks that move together, and by what is found from there."""
        alone = self._fit(part, local_map, last, 'tracks', _TOGETHER)
        if alone is None:
            return None
        again = self._tracker.track(image, self._expected(local_map, alone.pose))
        of_it = max(self._motions(again, local_map), default=None,
                    key=lambda one: np.isin(one.ids, part.ids).sum())
        better = None if of_it is None else self._fit(of_it, local_map, alone.pose, 'tracks',
                                                      _TOGETHER)
        alone = better or alone
        return replace(alone, outliers=again.chosen(~np.isin(again.ids, alone.tracks.ids)))

    def _before(self, now: Tracks) -> np.ndarray:
        """Return where tracks were in the last image, pixels [n, 2]."""
        before = self._tracker.tracks
        order = np.argsort(before.ids)   # matches are in the order of what they were matched with
        return before.pixels[order[np.searchsorted(before.ids, now.ids, sorter=order)]]

    def _or_turned(self, best: PoseMeasurement, local_map: LocalMap, last: np.ndarray,
                   moving: np.ndarray) -> PoseMeasurement:
        """Return `best`, or the pose of a camera that only turned, where that is much better."""
        if best.error < self._config.doubt * self._scale:
            return best
        now = best.tracks.joined(best.outliers)
        turn = find_turn(self._before(now), now.pixels, moving, local_map.camera,
                         self._tracker.shape, self._scale)
        if turn is None:
            return best
        pose = last.copy()
        pose[:3, :3] = last[:3, :3] @ turn.last_from_camera
        alone = self._fit(now.chosen(turn.agrees), local_map, pose, 'tracks')
        if alone is None or alone.error > _MUCH_BETTER * best.error:
            return best
        return replace(alone, outliers=now.chosen(~np.isin(now.ids, alone.tracks.ids)))

    def _follow(self, image: np.ndarray, local_map: LocalMap, initial: np.ndarray,
                start: np.ndarray | None) -> PoseMeasurement | None:
        return self._fit(self._tracker.track(image, start), local_map, initial, 'tracks')

    def _expected(self, local_map: LocalMap, pose: np.ndarray) -> np.ndarray:
        """Return where the tracks' landmarks are seen from `pose`; those behind it: as before."""
        tracks = self._tracker.tracks
        local = to_camera(local_map.points(tracks.ids)[0], pose)
        pixels = project(local, local_map.camera)
        return np.where(local[:, 2:] > 0.01, pixels, tracks.pixels)

    def _fit(self, tracks: Tracks, local_map: LocalMap, initial: np.ndarray,
             source: str, share: float | None = None) -> PoseMeasurement | None:
        """Return the pose that `share` of the tracks, at least, agree with; None if none."""
        config = self._config
        share = config.inlier_share if share is None else share
        if len(tracks) < _FEWEST_TRACKS:
            return None
        points, along, variance = local_map.points(tracks.ids)
        fit = fit_pose(points, along, variance, tracks.pixels.astype(np.float64),
                       local_map.camera, initial, config.pixel_sigma * self._scale,
                       config.huber, config.outlier)
        fewest = config.fewest_inliers if source == 'tracks' else config.matching_inliers
        if fit is None or fit.inliers.sum() < max(fewest, share * len(tracks)):
            return None
        return PoseMeasurement(fit.pose, tracks.chosen(fit.inliers), source, fit.error,
                               fit.information, tracks.chosen(~fit.inliers))

    def _by_matching(self, image: np.ndarray, local_map: LocalMap,
                     last: np.ndarray) -> PoseMeasurement | None:
        """Return the pose that the features of the last keyframes give."""
        if not self._matcher.recent:
            return None
        corners = self._tracker.corners(image, np.empty((0, 2)), self._config.corners)
        features = self._matcher.describe(image, corners)
        best: PoseMeasurement | None = None
        for known in reversed(self._matcher.recent):
            here, there = self._matcher.match(features, known)
            tracks = Tracks(known.ids[there], features.pixels[here])
            tracks = tracks.chosen(local_map.known(tracks.ids))
            if len(tracks) < self._config.matching_inliers:
                continue
            measured = self._fit_matches(tracks, local_map)
            if measured is not None and (best is None or len(measured.tracks) > len(best.tracks)):
                best = measured
            if best is not None and len(best.tracks) > 3 * self._config.matching_inliers:
                break
        return best

    def _fit_matches(self, tracks: Tracks, local_map: LocalMap) -> PoseMeasurement | None:
        points = local_map.points(tracks.ids)[0]
        pose = find_pose(points, tracks.pixels.astype(np.float64), local_map.camera,
                         _RANSAC_PIXELS * self._scale)
        return None if pose is None else self._fit(tracks, local_map, pose, 'matches')
