"""The occupancy grid of a stream, for planners: ~/occupancy."""

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
import time

from nav_msgs.msg import OccupancyGrid
import numpy as np
from std_msgs.msg import Header

from xsvggt_ros.geometry.frame_names import nanoseconds
from xsvggt_ros.mapping.occupancy import GridOptions
from xsvggt_ros.mapping.occupancy_map import OccupancyMap
from xsvggt_ros.mapping.trajectory import StampedPose
from xsvggt_ros.node.frames import Pose
from xsvggt_ros.node.message_fields import fill, fill_xyz
from xsvggt_ros.node.outputs.map_output import Moves
from xsvggt_ros.node.outputs.publishers import Publishers
from xsvggt_ros.node.settings import OccupancySettings
from xsvggt_ros.node.status.fault_log import FaultLog


class OccupancyOutput:
    """
    Gathers scans of keyframes, and casts them while somebody subscribes.

    Belongs to the thread that publishes. What goes wrong is reported: a grid is not worth the
    stream.
    """

    def __init__(self, publishers: Publishers, faults: FaultLog, odom_frame: str) -> None:
        """Begin with an empty grid."""
        self._publishers, self._faults, self._odom_frame = publishers, faults, odom_frame
        self._map = OccupancyMap()
        self._metres: float | None = None
        self._header = Header()
        self._shown = GridOptions()   # with which the last grid was made
        self._changed = False
        self._latched = False
        self._resolution = 0.0        # of the last grid
        self._published_at = -np.inf

    def forget(self) -> None:
        """Begin anew, and take back the grid that late subscribers would get."""
        self._map.clear()
        self._metres, self._changed = None, False
        if self._latched:
            empty = fill(OccupancyGrid(), header=Header(frame_id=self._odom_frame))
            fill(empty.info, resolution=self._resolution)   # 0 would be divided by
            self._publishers.occupancy.publish(empty)
            self._latched = False

    def follow(self, metres: float | None, centre: np.ndarray | None = None,
               moves: Moves | None = None) -> None:
        """
        Bring what was gathered to where it is known to be by now.

        metres: in a unit of the network, if that is known; when it changes all is scaled about
        ``centre`` [3] in the odometry frame (None: its origin). moves: see `MapOutput.add`.
        """
        with self._reporting():
            if metres != self._metres:
                factor = (metres or 1.0) / (self._metres or 1.0)
                self._map.rescale(factor, np.zeros(3) if centre is None else centre)
                self._metres, self._changed = metres, True
            if moves is not None:
                self._changed |= self._map.move(moves)

    def add(self, header: Header, cloud: np.ndarray, pose: Pose, placement: int = 0) -> None:
        """Take a frame's packed cloud [N, 5] in its camera's frame; placement: of its pose."""
        with self._reporting():
            stamped = StampedPose(nanoseconds(header), pose.position, pose.orientation)
            self._changed |= self._map.add(cloud[:, :3], stamped.matrix(), placement)
            self._header = header

    def is_due(self, settings: OccupancySettings) -> bool:
        """Return whether somebody waits for a newer grid; from any thread."""
        return ((self._changed or _options(settings) != self._shown) and self._map.is_possible
                and self._publishers.occupancy.get_subscription_count() > 0
                and time.monotonic() - self._published_at >= settings.publish_period)

    def publish_if_due(self, settings: OccupancySettings) -> None:
        """Cast some of the scans if somebody waits, and publish the grid when all are in it."""
        if self.is_due(settings):
            with self._reporting():
                self._publish(self._header, settings)

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
            self._faults.clear('occupancy')
        except Exception as error:   # out of memory, mostly
            self._changed, self._published_at = True, time.monotonic()   # tried again later
            self._faults.report('occupancy', 'the occupancy grid could not be made: '
                                f'{type(error).__name__}: {error}', key=type(error).__name__)

    def _publish(self, header: Header, settings: OccupancySettings) -> None:
        """Publish the grid when all scans are in it; a few more are with each frame."""
        options = _options(settings)
        if not self._map.cast(options):
            return
        cells, corner = self._map.cells, np.eye(4)
        corner[:2, 3] = cells.origin
        place = Pose.from_matrix(self._map.odom_from_grid @ corner)
        rows, columns = cells.odds.shape
        grid = fill(OccupancyGrid(), header=fill(
            Header(), stamp=header.stamp, frame_id=self._odom_frame))
        fill(grid.info, map_load_time=header.stamp, resolution=cells.resolution, width=columns,
             height=rows)
        fill_xyz(grid.info.origin.position, place.position)
        fill_xyz(grid.info.origin.orientation, place.orientation)
        grid.data = array('b', cells.occupancy().tobytes())
        self._publishers.occupancy.publish(grid)
        self._latched, self._shown, self._resolution = True, options, cells.resolution
        self._changed = self._map.is_off   # loops were closed while it was made
        self._published_at = time.monotonic()


def _options(settings: OccupancySettings) -> GridOptions:
    return GridOptions(settings.resolution, settings.min_height, settings.max_height)
