"""The occupancy grid of a stream: the room it is of, whatever the order, the unit and the tilt."""

import numpy as np
import pytest
from test_exports import HEIGHT, K, room_depth, turned, WIDTH

from xsvggt_ros.mapping import occupancy_map
from xsvggt_ros.mapping.occupancy import Cells, GridOptions, Rays
from xsvggt_ros.mapping.occupancy_map import OccupancyMap

OPTIONS = GridOptions(0.1)
PIXELS = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), -1)
RAYS = np.dstack([PIXELS, np.ones((HEIGHT, WIDTH))]) @ np.linalg.inv(K).T
TURN = [turned(12.0 * step, (0.3 * np.cos(step), 0.3 * np.sin(step), 0), 15.0)
        for step in range(30)]


def points(pose, unit=1.0):
    return (RAYS * room_depth(pose)[..., None]).reshape(-1, 3) * unit


def scaled(pose, unit):
    result = pose.copy()
    result[:3, 3] *= unit
    return result


def all_cast(grid, options=OPTIONS):
    for _ in range(100):
        if grid.cast(options):
            return grid.cells
    raise AssertionError('it never ends')


def at(grid, x, y, size=0.1):
    """Return what the cell at a place of the floor is, in the odometry frame of level cameras."""
    place = np.linalg.inv(grid.odom_from_grid) @ (x, y, -1.0, 1.0)
    cells = grid.cells
    column, row = np.floor((place[:2] - cells.origin) / cells.resolution).astype(int)
    return cells.occupancy()[row, column]


def check_room(grid, unit=1.0):
    for x in np.arange(-2.5, 2.6, 0.5):
        for y in (-1.5, -0.5, 0.5, 1.5):
            assert at(grid, unit * x, unit * y) == 0
    for y in np.arange(-1.5, 1.6, 0.25):
        for x in (3, -3):
            assert max(at(grid, unit * (x + shift), unit * y) for shift in (-0.05, 0.05)) == 100


def test_the_grid_is_the_room_and_grows_with_it():
    grid = OccupancyMap()
    assert not grid.cast(OPTIONS) and not grid.is_possible
    for number, pose in enumerate(TURN):
        grid.add(points(pose), pose)
        if number == 4:
            half = all_cast(grid).odds.size
    assert all_cast(grid).odds.size > half
    check_room(grid)
    np.testing.assert_allclose(grid.odom_from_grid[2, 3], -1.0, atol=0.05)   # the floor
    assert set(np.unique(grid.cells.occupancy())) == {-1, 0, 100}


def drifted(pose, number):
    """Return the pose of a later scan as it is seen after a loop that is not closed yet."""
    drift = turned(0.0, (0.4, 0.2, 0.0)) @ np.linalg.inv(turned(0.0, (0, 0, 0)))
    return drift @ pose if number >= 10 else pose


def test_the_grid_follows_a_loop_with_the_unit_of_what_was_seen():
    grid, unit = OccupancyMap(), 0.8
    for number, pose in enumerate(TURN):
        late = number >= 10
        grid.add(points(pose, unit if late else 1.0), drifted(scaled(pose, unit) if late else pose,
                                                            number), keyframe=number)
    all_cast(grid)
    with pytest.raises(AssertionError):
        check_room(grid)
    back = np.linalg.inv(drifted(np.eye(4), 10))
    back[:3] /= unit
    moves = np.stack([back if number >= 10 else np.eye(4) for number in range(30)])
    assert grid.move(lambda keyframes: moves[keyframes])
    all_cast(grid)
    check_room(grid)
    # What moves nothing by a cell is no reason to begin anew; many such things are.
    little = np.eye(4)
    little[0, 3] = 0.04
    cells = grid.cells
    for expected in (False, False, True):
        assert grid.move(lambda keyframes: np.tile(little, (len(keyframes), 1, 1))) is expected
    all_cast(grid)
    assert grid.cells is not cells


def test_loops_while_scans_are_cast_do_not_keep_the_grid_from_being_complete():
    grid = OccupancyMap()
    for number, pose in enumerate(TURN):
        grid.add(points(pose), pose, number)
    away = np.eye(4)
    away[0, 3] = 0.5
    for _ in range(20):
        grid.move(lambda keyframes: np.tile(away, (len(keyframes), 1, 1)))
        if grid.cast(OPTIONS):
            assert grid.is_off   # and it will be made anew
            break
    else:
        raise AssertionError('it is never complete')
    assert not OccupancyMap().move(lambda keyframes: None)   # nothing is there to move


def test_another_unit_scales_the_grid():
    grid = OccupancyMap()
    for pose in TURN:
        grid.add(points(pose, 0.5), scaled(pose, 0.5))
    all_cast(grid, GridOptions(0.05))
    grid.rescale(2.0, np.zeros(3))
    all_cast(grid)
    check_room(grid)
    grid.clear()
    assert not grid.cast(OPTIONS)


def test_a_height_band_says_what_is_an_obstacle():
    low, high = OccupancyMap(), OccupancyMap()
    for pose in TURN:
        for grid in (low, high):
            grid.add(points(pose), pose)
    all_cast(low)
    all_cast(high, GridOptions(0.1, 5.0, 6.0))   # above the room: nothing is one
    assert (low.cells.occupancy() == 100).any() and not (high.cells.occupancy() == 100).any()
    assert all_cast(high).odds.size and (high.cells.occupancy() == 100).any()   # the other again


def test_scans_and_cells_are_bounded(monkeypatch):
    monkeypatch.setattr(occupancy_map, 'MOST_SCANS', 8)
    monkeypatch.setattr(occupancy_map, 'MOST_CELLS', 64)
    grid = OccupancyMap()
    for step in range(60):
        pose = turned(0.0, (0.5 * step, 0, 0))
        grid.add(points(turned(0.0)), pose)
        grid.cast(OPTIONS)
    assert max(all_cast(grid).odds.shape) <= 64 and len(grid._scans.items) <= 8


@pytest.mark.parametrize('places, corner, shape', [
    ([(-0.3, -0.3)], (-3.2, -3.2), (42, 42)), ([(5.0, 0.5)], (0.0, 0.0), (10, 74))])
def test_cells_grow_and_keep_what_they_know(places, corner, shape):
    cells = Cells(np.zeros((10, 10), np.float32), np.zeros(2), 0.1)
    hit, _ = cells.index(np.array([(0.25, 0.45, 0.0)]))
    cells.add(hit, np.empty(0, int))
    cells.include(np.array(places), 200)
    assert cells.odds.shape == shape
    np.testing.assert_allclose(cells.origin, corner)
    number, inside = cells.index(np.array([(0.25, 0.45, 0.0)]))
    assert inside.all() and cells.odds.reshape(-1)[number[0]] > 0
    assert (cells.odds != 0).sum() == 1


def test_nothing_seen_is_no_grid():
    grid = OccupancyMap()
    for step in range(5):
        assert not grid.add(np.full((10, 3), np.nan), turned(10.0 * step))
        assert not grid.add(np.empty((0, 3)), turned(10.0 * step))
    assert not grid.is_possible and not grid.cast(GridOptions())
    for pose in TURN:    # later there is something, now and then
        assert grid.add(points(pose), pose)
        assert not grid.add(np.empty((0, 3)), pose)
    all_cast(grid)
    check_room(grid)
    rays = [Rays(np.zeros(3), np.empty((0, 3)))] * 2
    assert GridOptions().chosen(1.0, rays).resolution == GridOptions().chosen(1.0, []).resolution
