"""The map of a stream, and the camera's trajectory: gathered, published, saved."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
import time

import numpy as np
from std_msgs.msg import Header
import torch

from xsvggt_ros.geometry.frame_names import nanoseconds
from xsvggt_ros.mapping.map_files import cloud_from_packed, save_map
from xsvggt_ros.mapping.point_map import MapFill, PointMap
from xsvggt_ros.mapping.trajectory import StampedPose, Trajectory
from xsvggt_ros.model.error_table import ErrorTable
from xsvggt_ros.node import messages
from xsvggt_ros.node.frames import Pose
from xsvggt_ros.node.loading import StartError
from xsvggt_ros.node.outputs.publishers import Publishers
from xsvggt_ros.node.settings import MapSettings
from xsvggt_ros.node.status.fault_log import FaultLog
from xsvggt_ros.trajectory.landmark_file import ENDING, to_bytes
from xsvggt_ros.trajectory.landmark_map import LandmarkMap

Moves = Callable[[np.ndarray], np.ndarray]   # from placements [K] to similarities [K, 4, 4]

_NEARLY_FULL = 0.6   # of the places; at 0.75 a map is made coarser


class MapError(RuntimeError):
    """There is no map to save, or it cannot be written; the message says what to do."""


@dataclass(frozen=True)
class MapReport:
    """What diagnostics say of the map; voxel_size: in the stream's unit, 0 until it is chosen."""

    fill: MapFill
    voxel_size: float
    seconds: float  # that adding the last cloud took


class MapOutput:
    """
    The map of one stream, in the stream's unit.

    All of it belongs to one thread at a time, see `StreamOutputs`; only `report` and `is_due` may
    be asked by others. On a GPU its work has a stream of its own, beside the network's, for which
    it would otherwise have to wait; that has not run on a GPU yet.
    """

    def __init__(
        self, publishers: Publishers, faults: FaultLog, device: torch.device, model: str,
        settings: MapSettings, odom_frame: str, depth_errors: ErrorTable | None = None,
    ) -> None:
        """
        Allocate an empty map, if there is to be one.

        model: the weights, in words; depth_errors: what their confidences mean. Raises StartError
        if there is no memory for it.
        """
        self._publishers = publishers
        self._faults = faults
        self._model = model
        self._odom_frame = odom_frame
        self._wanted_size = settings.voxel_size
        self._map = None
        self._stream = torch.cuda.Stream(device) if device.type == 'cuda' else None
        if settings.enable:
            try:
                with torch.cuda.stream(self._stream):  # of None: nothing
                    self._map = PointMap(
                        settings.max_points, self._wanted_size, device, depth_errors)
            except RuntimeError as error:
                raise StartError(
                    f'{device} has no room for a map of {settings.max_points} points: lower '
                    f'map.max_points, or set map.enable to false ({error})') from error
        self._trajectory = Trajectory()
        self._metres: float | None = None  # a unit of the network has, in this map; None: unknown
        # Of the map in the odometry frame: points and trajectory lie about it, and scale with it.
        self._origin = np.zeros(3)
        self._header = Header()
        self._seconds = 0.0
        self._late: Moves | None = None   # that have yet to be followed
        self._added = 0        # points, since moves were followed
        self._changed = False  # since it was published
        self._latched = False  # whether late subscribers get points from the middleware
        self._published_at = -np.inf

    @property
    def report(self) -> MapReport | None:
        """Return how full the map is; None if there is none."""
        if self._map is None:
            return None
        return MapReport(self._map.fill(), self._map.voxel_size, self._seconds)

    @property
    def is_behind(self) -> bool:
        """Return whether the moves that it was told last have yet to be followed."""
        return self._late is not None

    def forget(self) -> None:
        """Begin an empty map, and take back the one that late subscribers would get."""
        self._trajectory.clear()
        self._late, self._added = None, 0
        self._metres = None
        self._origin = np.zeros(3)
        if self._map is None:
            return
        with torch.cuda.stream(self._stream):
            self._map.clear()
        self._changed = False
        self._faults.clear('map')
        if self._latched:
            self._publish()

    def add(
        self, header: Header, make_cloud: Callable[[], np.ndarray], pose: Pose,
        metres: float | None, settings: MapSettings, centre: np.ndarray | None = None,
        placement: int = 0, moves: Moves | None = None,
    ) -> None:
        """
        Add a frame's packed cloud [N, 5] in its camera's frame, seen from `pose`.

        metres: in a unit of the network, if that is known; the map follows when it changes, and is
        scaled about ``centre`` [3] in the odometry frame (None: its origin). placement: to which
        the frame belongs; moves: where closed loops say that what belongs to them is now, since
        the last moves that were followed (`is_behind`): none are until the map is asked for, or as
        many points have been added as are to be moved, so that moving costs no more than adding;
        in a map that is full by more than 60 % until an eighth of them has, which costs more. What
        goes wrong is reported: a map is not worth the stream.
        """
        if self._map is None:
            return
        start = time.monotonic()
        try:
            with torch.cuda.stream(self._stream):
                self._follow_unit(self._map, metres, np.zeros(3) if centre is None else centre)
                if moves is not None:
                    self._late = moves
                    if self._added >= _most_added(self._map.fill()):
                        self._catch_up(self._map)
                position = (np.array(pose.position) - self._origin).tolist()
                stamped = StampedPose(
                    nanoseconds(header), tuple(position), pose.orientation)
                if settings.voxel_size != self._wanted_size:
                    self._wanted_size = settings.voxel_size
                    self._map.resize_voxels(self._wanted_size)
                self._trajectory.add(stamped, placement)
                cloud = make_cloud()
                self._map.add(torch.from_numpy(cloud), torch.from_numpy(stamped.matrix()),
                              placement)
                self._added += len(cloud)
        except Exception as error:  # out of memory, mostly
            self._report('a cloud could not be added to the map', error)
            return
        self._header = header
        self._changed = True
        self._seconds = time.monotonic() - start
        self._watch_fill(self._map.fill(), len(cloud))

    def is_due(self, settings: MapSettings) -> bool:
        """Return whether somebody waits for a newer map."""
        return (self._changed and self._publishers.map_points.get_subscription_count() > 0
                and time.monotonic() - self._published_at >= settings.publish_period)

    def publish_if_due(self, settings: MapSettings) -> None:
        """Publish the map if somebody waits for it."""
        if self.is_due(settings):
            try:
                self._publish()
            except Exception as error:
                self._report('the map could not be published', error)

    @property
    def is_metric(self) -> bool:
        """Return whether lengths are multiplied by the metres of the stream's unit."""
        return self._metres is not None

    def save(self, settings: MapSettings, is_metric: bool | None = None,
             landmarks: Callable[[], LandmarkMap] | None = None, why_empty: str = '') -> str:
        """
        Write map and trajectory as files; return what was written. Raises MapError.

        is_metric: whether lengths are in metres, None: if the stream has a scale. landmarks:
        makes what a later stream is found by, which is written, too. why_empty: why the newest
        cloud had no points, if that is known.
        """
        if self._map is None:
            raise MapError('there is no map: set map.enable to true and start the node again')
        points = self._points()
        if not len(points):
            raise MapError(self._why_empty(why_empty))
        is_metric = self.is_metric if is_metric is None else is_metric
        unit = 'metres' if is_metric else "the network's own unit"
        comment = (f'xsvggt_ros, frame {self._odom_frame}, lengths in {unit}, voxels of '
                   f'{self._map.voxel_size:.4g}, weights: {self._model}').replace('\n', ' ')
        folder = settings.save_directory
        try:
            found = landmarks() if landmarks is not None else None
            others = {ENDING: to_bytes(found)} if found is not None and found.keyframes else {}
            ply, tum, *more = save_map(Path(folder).expanduser(), cloud_from_packed(points),
                                       self._poses(), comment, others)
        except (OSError, RuntimeError, ValueError, MemoryError) as error:
            reason = str(error) or type(error).__name__
            raise MapError(
                f"the map cannot be saved in map.save_directory '{folder}': {reason}. The map is "
                'kept; set another folder, or free disk space, and call again') from error
        thinned = f', every {self._trajectory.stride}th' if self._trajectory.stride > 1 else ''
        words = f'{ply} ({len(points)} points), {tum} ({len(self._trajectory)} poses{thinned})'
        if found is not None and more:
            words += f', {more[0]} ({len(found.keyframes)} keyframes)'
        return words

    # Parts ---------------------------------------------------------------------------------------

    def _why_empty(self, reason: str) -> str:
        images = len(self._trajectory)
        if not images:
            return ('the map is empty: no image with a known pose has been processed since the '
                    'stream began (~/status, and diagnostics Input and Tracking, say more)')
        return (f'the map is empty, though {images} poses are known: no cloud has had a point. '
                + (reason or 'Look at cloud.max_error, cloud.max_range and '
                   'cloud.confidence_percentile'))

    def _points(self) -> np.ndarray:
        """Return all points [N, 5] in the odometry frame."""
        assert self._map is not None
        with torch.cuda.stream(self._stream):
            self._catch_up(self._map)
            points = self._map.points().numpy()
        points[:, :3] += self._origin.astype(np.float32)
        return points

    def _poses(self) -> list[StampedPose]:
        """Return the trajectory in the odometry frame."""
        return [replace(pose, position=tuple((self._origin + pose.position).tolist()))
                for pose in self._trajectory.poses()]

    def _follow_unit(
        self, points: PointMap, metres: float | None, centre: np.ndarray,
    ) -> None:
        """Bring what was gathered so far into the unit that is known by now."""
        if metres == self._metres:
            return
        factor = (metres or 1.0) / (self._metres or 1.0)
        self._metres = metres
        self._origin = centre + factor * (self._origin - centre)
        self._trajectory.rescale(factor)
        points.rescale(factor)

    def _catch_up(self, points: PointMap) -> None:
        """
        Move what was gathered by the moves that are late, if there are any.

        They are similarities of the odometry frame; points lie about the map's origin in it.
        """
        if self._late is None:
            return
        moves, self._late, self._added = self._late, None, 0

        def about(placements: np.ndarray) -> np.ndarray:
            found = moves(placements).copy()
            found[:, :3, 3] += found[:, :3, :3] @ self._origin - self._origin
            return found

        self._trajectory.move(about)
        points.move(about)

    def _report(self, what: str, error: Exception) -> None:
        name = type(error).__name__
        self._faults.report('map', f'{what}: {name}: {error}', key=name)

    def _watch_fill(self, fill: MapFill, points: int) -> None:
        if fill.lost > 0.01 * points:
            self._faults.report('map', full_message(fill), key='full')
        else:
            self._faults.clear('map')

    def _publish(self) -> None:
        header = Header(stamp=self._header.stamp, frame_id=self._odom_frame)
        points = self._points()
        self._publishers.map_points.publish(messages.point_cloud(header, points))
        self._changed = False
        self._latched = len(points) > 0
        self._published_at = time.monotonic()


def _most_added(fill: MapFill) -> int:
    """Return how many points are added to a map, at most, before what is late is followed."""
    # What is seen again lies twice in a map that is behind: that must not be what fills it.
    return fill.points // (8 if fill.points > _NEARLY_FULL * fill.capacity else 1)


def full_message(fill: MapFill) -> str:
    """Return what a full map says."""
    return (f'the map is full: {fill.lost} points of the newest cloud were dropped, capacity '
            f'{fill.capacity}; raise map.voxel_size (0: automatic) or map.max_points, or begin a '
            'new map with ~/reset')
