"""Exports as the command writes them: of a bag, of one run, with errors in one line."""

import csv
import json

from export_files import nav2_cells, SMALL
import numpy as np
import pytest
from recording_maker import image_items, make_frames, Messages, TOPIC, write_mcap

from xsvggt_ros.cli.main import main
from xsvggt_ros.mapping.map_files import read_ply, read_tum
from xsvggt_ros.recordings.exports.export import (
    ExportOptions,
    make_exports,
)


@pytest.mark.slow
def test_a_bag_becomes_everything_that_was_asked_for(tmp_path):
    images, stamps = make_frames(5)
    bag = write_mcap(tmp_path / 'a.mcap', image_items(Messages(), images, stamps))
    out = tmp_path / 'out'
    assert main(['reconstruct', str(bag), *SMALL, '--topic', TOPIC, '--out', str(out),
                 '--export', 'ply,tum,mcap,colmap,depth,grid', '--scale', '2.5']) == 0
    assert [pose.stamp_ns for pose in read_tum(out / 'trajectory.tum')] == stamps
    report = json.loads((out / 'report.json').read_text())
    assert report['frames'] == 5 and report['complete'] and report['seconds'] > 0
    assert (report['stamps']['first_ns'], report['stamps']['last_ns']) == (stamps[0], stamps[-1])
    assert report['calibration']['source'] == '/camera/camera_info'
    assert report['scale']['metric'] and report['scale']['metres_per_unit'] == 2.5
    assert report['scale']['source'] == '--scale'
    with open(out / 'cache.csv') as file:
        last = list(csv.DictReader(file))[-1]
    assert report['cache']['tokens_used'] == int(last['tokens_used'])
    assert set(report['exports']) == {'ply', 'tum', 'mcap', 'colmap', 'depth', 'grid'}
    for about in report['exports'].values():
        for name in about['files']:
            assert (out / name).exists()
    assert len(read_ply(out / 'map.ply')) > 0
    assert len(list((out / 'depth').glob('*.png'))) == 5

    plain = tmp_path / 'plain'
    assert main(['reconstruct', str(bag), *SMALL, '--out', str(plain)]) == 0
    for scaled, own in zip(read_tum(out / 'trajectory.tum'), read_tum(plain / 'trajectory.tum')):
        np.testing.assert_allclose(scaled.position, np.multiply(own.position, 2.5), atol=1e-6)
    assert sorted(file.name for file in plain.iterdir()) == [
        'cache.csv', 'map.landmarks.safetensors', 'map.ply', 'reconstruction.png', 'report.json',
        'trajectory.tum']


@pytest.mark.slow
def test_a_folder_has_the_files_of_one_run(tmp_path, capsys):
    images, stamps = make_frames(3)
    bag = write_mcap(tmp_path / 'a.mcap', image_items(Messages(), images, stamps))
    out = tmp_path / 'out'
    command = ['reconstruct', str(bag), *SMALL, '--trajectory', 'network', '--out', str(out)]
    (out / 'colmap').mkdir(parents=True)
    for name in ('map.yaml', 'colmap/dense.txt'):   # of somebody else
        (out / name).write_text('mine')
    assert main([*command, '--export', 'mcap,colmap,depth']) == 0
    assert main([*command, '--export', 'mcap']) == 0
    assert f'removed from {out}, for they were of an earlier run: depth, colmap' in (
        capsys.readouterr().out)
    own = {'map.ply', 'trajectory.tum', 'cache.csv', 'report.json', 'reconstruction.png'}
    assert {str(file.relative_to(out)) for file in out.rglob('*') if file.is_file()} == {
        *own, 'recording.mcap', 'map.yaml', 'colmap/dense.txt'}
    assert main([*command, '--export', 'grid']) == 0
    assert main(command) == 0
    assert {str(file.relative_to(out)) for file in out.rglob('*') if file.is_file()} == {
        *own, 'colmap/dense.txt'}   # the grid had taken map.yaml over


def test_an_unknown_export_or_one_whose_library_lacks_is_one_line(tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit) as ended:
        main(['reconstruct', '--export', 'ply,glb', '--out', str(tmp_path)])
    assert ended.value.code == 2
    assert "'glb' is none of ply, tum, mcap" in capsys.readouterr().err
    monkeypatch.setitem(__import__('sys').modules, 'rerun', None)
    assert main(['reconstruct', '--export', 'rerun', '--out', str(tmp_path)]) == 1
    assert '--export rerun needs rerun-sdk: pip install rerun-sdk' in capsys.readouterr().err


def test_a_full_disk_names_the_export_and_keeps_the_map(tmp_path, capsys, monkeypatch):
    def full(*arguments, **named):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('xsvggt_ros.recordings.exports.depth.np.savez', full)
    assert main(['reconstruct', '--size', '112x84', *SMALL, '--frames', '3', '--export', 'depth',
                 '--out', str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert '--export depth: cannot be written' in told.err and 'saved 3 frames' in told.out
    assert (tmp_path / 'map.ply').exists()


def test_every_export_that_can_be_named_is_made(tmp_path):
    from xsvggt_ros.console.arguments import export_list, EXPORTS
    from xsvggt_ros.recordings.exports.export import ALWAYS, export_names
    assert export_names(export_list(' ply, mcap,mcap,')) == ['ply', 'mcap']
    for name in set(EXPORTS) - {*ALWAYS, 'rerun'}:
        assert make_exports([name], ExportOptions(tmp_path))[0].name == name


@pytest.mark.slow
def test_the_grid_is_as_it_is_asked_for(tmp_path):
    assert main(['reconstruct', '--size', '112x84', *SMALL, '--frames', '4', '--out',
                 str(tmp_path), '--export', 'grid', '--grid-resolution', '0.25', '--grid-low',
                 '0.2', '--grid-high', '0.9']) == 0
    about = json.loads((tmp_path / 'report.json').read_text())['exports']['grid']
    assert about['resolution'] == 0.25 and about['height_band'] == [0.2, 0.9]
    assert nav2_cells(tmp_path)[1]['resolution'] == 0.25


def test_a_grid_without_heights_is_refused_before_the_run(tmp_path, capsys):
    assert main(['reconstruct', '--size', '112x84', *SMALL, '--frames', '4', '--out',
                 str(tmp_path), '--export', 'grid', '--grid-low', '0.9', '--grid-high',
                 '0.2']) == 1
    assert '--grid-low 0.9 is not below --grid-high 0.2' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
