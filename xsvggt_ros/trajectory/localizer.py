"""A stream in a saved map: when it is believed to be there, and where its own map is in it."""

from collections import Counter, deque
from dataclasses import dataclass

import numpy as np

from xsvggt_ros.geometry.similarity import inverse_similarity, rotation_between, scales
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.keyframe import Snapshot
from xsvggt_ros.trajectory.landmark_alignment import align_landmarks
from xsvggt_ros.trajectory.landmark_map import LandmarkMap
from xsvggt_ros.trajectory.loop_closer import LoopCloser
from xsvggt_ros.trajectory.map_search import MapMatch, MapSearch
from xsvggt_ros.trajectory.pose_graph import difference, similarity_of

_KEPT = 60               # sightings, the newest
_AGREE = 0.15            # of the depth, by which a sighting may miss what is believed
_PATIENCE = 10           # keyframes that are not recognised, after which all places are tried
_ROUNDS = 15             # of a robust fit
# Of each sighting, in its camera's frame: points at the depth of what is seen.
_POINTS = np.array([[0, 0, 0], [1, 0, 1], [-1, 0, 1], [0, 1, 1], [0, -1, 1]], float)


# Why keyframes are not recognised, in words; the names are those of reports.
_REASONS = {
    'few matches': 'too few features look like the map',
    'no pose': 'their matches fit no pose',
    'few inliers': 'too few matches fit a pose',
    'no scale': 'depths do not tell the scale',
    'depths disagree': "depths are not the map's",
    'too little of what should be seen': "too little is seen of the map's landmarks",
    'ambiguous': 'several places fit',
}


@dataclass(frozen=True)
class LocalizationReport:
    """
    What is known of where a stream is in a saved map.

    is_localized: whether it is believed; confirmations: keyframes that agree with that; since:
    the keyframe from which it was; refused: keyframes that were not recognised, by reason.
    """

    is_localized: bool
    confirmations: int
    since: int | None
    refused: dict[str, int]


def describe_refusals(report: LocalizationReport) -> str:
    """Return in words why a stream is not believed to be in the map."""
    if not report.refused:
        return 'too few keyframes were recognised'
    often = sorted(report.refused.items(), key=lambda one: -one[1])
    return 'keyframes that were not recognised: ' + ', '.join(
        f'{count} ({_REASONS.get(reason, reason)})' for reason, count in often)


class Localizer:
    """
    Snapshots of keyframes in, the stream's place in a saved map out.

    All is called by one thread at a time; `map_from_stream`, a similarity [4, 4], None until it
    is believed, and `report` are replaced as a whole, so that others may read them.
    """

    def __init__(self, landmarks: LandmarkMap, config: TrajectoryConfig) -> None:
        """Begin without a sighting; config: the odometry's."""
        self._search, self._config = MapSearch(landmarks, config), config
        self._sightings: deque[MapMatch] = deque(maxlen=_KEPT)
        self._refused: Counter[str] = Counter()
        self._confirmations = self._unseen = 0
        self._since: int | None = None
        self.map_from_stream: np.ndarray | None = None
        self.report = LocalizationReport(False, 0, None, {})

    def add(self, snapshot: Snapshot, stream: LoopCloser) -> None:
        """Look for a stream's new keyframe in the map; `stream` has taken it already."""
        node = stream.node(snapshot.keyframe.id)
        if node is None:
            return
        believed = self.map_from_stream
        lost = self._unseen > _PATIENCE   # then it may be elsewhere than where it is believed
        about = None if believed is None or lost else believed @ node
        self.take(self._search.find(snapshot.keyframe, snapshot.image, about), stream)

    def take(self, found: MapMatch | str, stream: LoopCloser) -> None:
        """Take what was found of a keyframe, and believe what enough of them say."""
        if isinstance(found, MapMatch):
            found = self._gated(found)
        if isinstance(found, str):
            self._refused[found] += 1
            self._unseen += 1
            self._report()
            return
        self._unseen = 0
        self._sightings.append(found)
        agreement = self._agreement(stream)
        if agreement is not None:
            fitted, count, is_newest = agreement
            self._believe(fitted, count, is_newest, found, stream)
        self._report()

    def finish(self, stream: LoopCloser) -> None:
        """Take all that agrees over at once, as the keyframes are in the end."""
        agreement = self._agreement(stream)
        if self.map_from_stream is not None and agreement is not None:
            self.map_from_stream = agreement[0]

    # Parts ---------------------------------------------------------------------------------------

    def _gated(self, found: MapMatch) -> MapMatch | str:
        config = self._config
        if found.share < config.localize_share:
            return 'too little of what should be seen'
        if found.inliers < config.localize_margin * found.second:
            return 'ambiguous'
        return found

    def _believe(self, fitted: np.ndarray, count: int, is_newest: bool, found: MapMatch,
                 stream: LoopCloser) -> None:
        """Take over what agrees; correct what is believed slowly, where the camera is."""
        node = stream.node(found.keyframe)
        assert node is not None   # it has just been taken
        if self.map_from_stream is None:
            self.map_from_stream, self._confirmations = fitted, count
            self._since = found.keyframe
        elif is_newest:
            here = self.map_from_stream @ node
            step = difference(inverse_similarity(here) @ fitted @ node)
            if _apart(here, fitted @ node, found.depth) < 2 * _AGREE:
                step = self._config.localize_gain * step
            self.map_from_stream = here @ similarity_of(step) @ inverse_similarity(node)
            self._confirmations += 1

    def _agreement(self, stream: LoopCloser) -> tuple[np.ndarray, int, bool] | None:
        """
        Return the similarity [4, 4] with which most sightings agree, and how many do.

        Last, whether the newest one is among them. None if they are too few, or not clearly more
        than others that agree with something else.
        """
        config = self._config
        pairs = [(one, node) for one in self._sightings
                 if (node := stream.node(one.keyframe)) is not None]
        if len(pairs) < config.localize_confirmations:
            return None
        seen = np.array([one.map_from_keyframe for one, _ in pairs])
        nodes = np.array([node for _, node in pairs])
        depth = np.array([one.depth for one, _ in pairs])
        weight = np.array([one.inliers * one.share for one, _ in pairs])
        fits = []
        for row in range(len(pairs)):
            guess = seen[row] @ inverse_similarity(nodes[row])
            fits.append((_support(guess, seen, nodes, depth, weight), guess))
        fitted = _fit(max(fits, key=lambda one: one[0])[1], seen, nodes, depth, weight)
        agrees = _apart(fitted @ nodes, seen, depth) < _AGREE
        fitted = align_landmarks(fitted, nodes[agrees], [
            one.seen for (one, _), good in zip(pairs, agrees) if good], config)
        rivals = [_support(guess, seen[~agrees], nodes[~agrees], depth[~agrees], weight[~agrees])
                  for (_, guess), one in zip(fits, agrees) if not one]
        if agrees.sum() < config.localize_confirmations or (
                weight[agrees].sum() < config.localize_margin * max(rivals, default=0.0)):
            return None
        return fitted, int(agrees.sum()), bool(agrees[-1])

    def _report(self) -> None:
        self.report = LocalizationReport(self.map_from_stream is not None, self._confirmations,
                                         self._since, dict(self._refused))


def in_own_unit(map_from_stream: np.ndarray, pose: np.ndarray, metres: float) -> np.ndarray:
    """
    Return a rigid transform [4, 4] that puts a camera where a similarity has it in a map.

    For a stream that has a unit of its own, of so many metres, and a map in metres: rotation is
    the similarity's, and the camera at `pose` [4, 4] in the stream is where it is in the map once
    lengths are multiplied by `metres`.
    """
    rigid = np.eye(4)
    rigid[:3, :3] = map_from_stream[:3, :3] / scales(map_from_stream)
    position = (map_from_stream @ pose)[:3, 3] / metres
    rigid[:3, 3] = position - rigid[:3, :3] @ pose[:3, 3]
    return rigid


def _corresponding(poses: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return the points [n, 5, 3] of sightings at similarities [n, 4, 4], at a depth [n]."""
    local = _POINTS * (depth / scales(poses))[:, None, None]
    return np.einsum('nij,nkj->nki', poses[:, :3, :3], local) + poses[:, None, :3, 3]


def _apart(first: np.ndarray, second: np.ndarray, depth: np.ndarray | float) -> np.ndarray:
    """Return by which share of the depth similarities [..., 4, 4] see things elsewhere."""
    local = _POINTS * (np.asarray(depth) / scales(second))[..., None, None]
    off = np.einsum('...ij,...kj->...ki', first[..., :3, :3] - second[..., :3, :3], local)
    off = off + (first[..., :3, 3] - second[..., :3, 3])[..., None, :]
    return np.sqrt((off ** 2).sum(-1).mean(-1)) / depth


def _support(guess: np.ndarray, seen: np.ndarray, nodes: np.ndarray, depth: np.ndarray,
             weight: np.ndarray) -> float:
    """Return the weight of the sightings that agree with a similarity."""
    return float(weight[_apart(guess @ nodes, seen, depth) < _AGREE].sum())


def _fit(guess: np.ndarray, seen: np.ndarray, nodes: np.ndarray, depth: np.ndarray,
         weight: np.ndarray) -> np.ndarray:
    """Return the similarity that brings nodes [n, 4, 4] to where most of them were seen."""
    target = _corresponding(seen, depth)
    # The same points as the stream has them: of the depth in the stream's unit at each keyframe.
    local = _POINTS * (depth / scales(seen))[:, None, None]
    source = np.einsum('nij,nkj->nki', nodes[:, :3, :3], local) + nodes[:, None, :3, 3]
    for _ in range(_ROUNDS):
        apart = _apart(guess @ nodes, seen, depth)
        robust = weight / depth ** 2 / (1 + (apart / (0.5 * _AGREE)) ** 2)
        guess = _align(source, target, robust)
    return guess


def _align(source: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the similarity [4, 4] between points [n, k, 3] by weights [n]; Umeyama's."""
    share = np.repeat(weight[:, None], source.shape[1], 1)[..., None] / (
        weight.sum() * source.shape[1])
    mean, target_mean = (share * source).sum((0, 1)), (share * target).sum((0, 1))
    centred = source - mean
    covariance = np.einsum('nki,nkj->ij', share * (target - target_mean), centred)
    turn, trace = rotation_between(covariance)
    scale = float(trace) / float((share * centred ** 2).sum())
    found = np.eye(4)
    found[:3, :3] = scale * turn
    found[:3, 3] = target_mean - scale * turn @ mean
    return found
