"""Clouds that C++ adds to a map of voxels leave the same bits there as those PyTorch adds."""

import ctypes
from pathlib import Path
import pickle
import shutil
import subprocess

from native_calls import BUILT, count_calls
import numpy as np
import pytest
import torch

from xsvggt_ros.kernels import native
from xsvggt_ros.kernels.native_voxels import Voxels
from xsvggt_ros.mapping.map_files import make_cloud, pack
from xsvggt_ros.mapping.point_map import PointMap
from xsvggt_ros.mapping.voxel_table import ErrorSteps, VoxelTable
from xsvggt_ros.model.error_table import ErrorTable

if not BUILT:
    pytest.skip('native.cpp was not built: make env, or colcon build', allow_module_level=True)

ERRORS = ErrorTable((1.02, 1.3, 2.5, 5.5), (0.3, 0.14, 0.06, 0.03))


def make_clouds(seed, count=12):
    """Return clouds of all sizes and where they are; some of their numbers are none, or large."""
    rng = np.random.default_rng(seed)
    clouds = []
    for number in range(count):
        points = int(rng.choice([0, 1, 7, 300, 3000]))
        cloud = torch.from_numpy(pack(make_cloud(
            rng.normal(size=(points, 3)) * 3.0 ** rng.integers(-1, 3),
            rng.integers(0, 256, (points, 3)), rng.uniform(-0.5, 7, points))))
        for bad in (np.nan, np.inf, -np.inf, 3e38, 1e-42):
            where = rng.random(cloud.shape) < 0.003
            where[:, 3] = False   # any bits are a colour
            cloud[torch.from_numpy(where)] = bad
        turn, scale = np.linalg.qr(rng.normal(size=(3, 3)))[0], 1 + 0.2 * (number % 3)
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = scale * turn, rng.normal(size=3)
        clouds.append((cloud, torch.from_numpy(matrix)))
    return clouds


def turned(keyframes):
    matrices = np.tile(np.eye(4), (len(keyframes), 1, 1))
    matrices[:, :3, 3] = keyframes[:, None] * 0.01
    return matrices


def live(seed, places, size, errors):
    """Return what is left in a map of a life that is the same for each seed."""
    world = PointMap(places, size, depth_errors=errors)
    seen = []
    for number, (cloud, matrix) in enumerate(make_clouds(seed)):
        world.add(cloud, matrix, number // 3)
        seen += world.fill(), world.voxel_size, world._table.keys.clone(), world.points()
        if number == 5:
            world.rescale(1.7)
        if number == 7:
            world.move(turned)
        if number == 9:
            world.resize_voxels(0.11)
    return [*seen, world._table.rows]


def are_same(a, b):
    if isinstance(a, torch.Tensor):
        # as integers: what is no number is equal, too, and zeros have signs
        kind = torch.int32 if a.dtype is torch.float32 else a.dtype
        return a.shape == b.shape and torch.equal(a.view(kind), b.view(kind))
    return a == b


@pytest.mark.parametrize('errors', [None, ERRORS], ids=['confidences', 'errors'])
@pytest.mark.parametrize('places, size', [(64, 0.3), (1024, 0.05), (1024, 0.0), (2 ** 15, 0.07)])
@pytest.mark.parametrize('seed', [0, *(
    pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_maps_are_the_same_to_the_last_bit(library, plainly, seed, places, size, errors):
    ours, calls = count_calls(live, seed, places, size, errors)
    assert calls['xsvggt_voxels_add'] == 12 and calls['xsvggt_voxels_insert'] >= 2
    torch.set_num_threads(1)   # with more, any of several voxels may get a place in PyTorch
    theirs = plainly(live, seed, places, size, errors)
    assert len(ours) == len(theirs)
    for number, pair in enumerate(zip(ours, theirs)):
        assert are_same(*pair), number
    if places == 64:
        assert ours[-5].lost_total > 500   # it was full
    assert ours[-5].points > 0.5 * places or places > 1024


@torch.inference_mode()
def test_rows_are_inserted_as_one_cloud_or_as_many(library, plainly):
    rng = torch.Generator().manual_seed(0)
    values = torch.rand(2000, 10, generator=rng)
    values[:, :3] = values[:, :3] * 20 - 10
    values[:, 8] = torch.randint(1, 40, (2000,), generator=rng)
    values[:, 9] = torch.randint(0, 5, (2000,), generator=rng)
    before = values.clone()
    for once in (True, False):
        tables = [VoxelTable(2048, torch.device('cpu')) for _ in range(2)]
        for call, table in zip((lambda *all: all[0](*all[1:]), plainly), tables):
            assert call(table.insert, values, once) == call(table.insert, values.flip(0), once)
            assert torch.equal(values, before)
        assert are_same(tables[0].rows, tables[1].rows) and tables[0].taken == tables[1].taken
        assert (tables[0].rows[:, 8].max() <= 2) == once


def test_what_is_no_table_of_voxels_is_refused(library):
    keys, rows = torch.zeros(64, dtype=torch.int64), torch.zeros(64, 10)
    for bad in ((keys.int(), rows), (keys, rows.double()), (keys, rows[:, :9]), (keys, rows[:32]),
                (keys[:48], rows[:48]), (keys, torch.zeros(10, 64).T)):
        with pytest.raises(ValueError, match='places|expected'):
            Voxels(*bad)
    voxels = Voxels(keys, rows)
    with pytest.raises(ValueError, match='rows of 10'):
        voxels.insert(torch.zeros(5, 9), True)
    with pytest.raises(ValueError, match='rows of 5'):
        voxels.add(torch.zeros(5, 6), torch.eye(4), 1.0, 1e-6, None, 0)
    with pytest.raises(ValueError, match='3 or 4 rows of 4'):
        voxels.add(torch.zeros(5, 5), torch.eye(4)[:2], 1.0, 1e-6, None, 0)


def test_errors_by_the_first_bits_of_a_confidence_are_those_of_the_table():
    steps = ErrorSteps.of(ERRORS, torch.device('cpu'))
    confidence = torch.cat([torch.linspace(0.5, 8, 5000), torch.tensor([-1.0, 0.0, 1e30])])
    expected = ERRORS.relative_errors(confidence)
    torch.testing.assert_close(steps(confidence).sqrt(), expected, rtol=4e-3, atol=0)
    assert (steps(confidence).sqrt() >= expected * (1 - 1e-6)).all()   # of the lowest
    one = ErrorSteps.of(ErrorTable((2.0,), (0.1,)), torch.device('cpu'))
    torch.testing.assert_close(one(confidence), torch.full_like(confidence, 0.01))


def test_a_map_that_was_saved_goes_on_in_memory_of_its_own():
    world = PointMap(2048, 0.05)
    (first, matrix), (second, other) = [one for one in make_clouds(3) if len(one[0]) > 100][:2]
    world.add(first, matrix)
    saved = pickle.dumps(world)
    world.add(second, other)
    again = pickle.loads(saved)
    _, calls = count_calls(again.add, second, other)
    assert calls == {'xsvggt_voxels_add': 1}
    assert torch.equal(again.points(), world.points())


@pytest.mark.slow
@pytest.mark.parametrize('compiler', ['g++', 'clang++'])
def test_only_the_map_is_kept_from_multiplying_and_adding_at_once(tmp_path, compiler):
    if shutil.which(compiler) is None:
        pytest.skip(f'there is no {compiler}')
    source, target = tmp_path / 'behind.cpp', tmp_path / 'behind.so'
    source.write_text(
        f'#include "{Path(native.__file__).with_name("native.cpp")}"\n'
        'extern "C" __attribute__((visibility("default")))\n'
        'float behind(float a, float b, float c) { return a * b + c; }\n')
    architecture = BUILT[0].stem.partition('_')[2]
    subprocess.run([compiler, '-std=gnu++17', '-O2', '-fPIC', '-shared', '-Wno-psabi',
                    *([f'-march={architecture}'] if architecture else []), source, '-o', target],
                   check=True)
    behind = ctypes.CDLL(str(target)).behind
    behind.argtypes, behind.restype = [ctypes.c_float] * 3, ctypes.c_float
    # The square's last bit is half of one of a float, and is lost where products are rounded.
    assert behind(1 + 2 ** -12, 1 + 2 ** -12, -1 - 2 ** -11) == 2 ** -24
