"""Names, numbers and times in files that others made."""

import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from xsvggt_ros.console.arguments import is_whole
from xsvggt_ros.mapping.map_files import format_stamp, parse_stamp, read_tum
from xsvggt_ros.recordings.image_folder import _stamps, ImageFolder


def names_in_order(folder, names):
    for name in names:
        Image.new('L', (4, 4)).save(folder / f'{name}.png')
    return [file.stem for file in ImageFolder(folder).files]


# The order of a folder ---------------------------------------------------------------------------

@pytest.mark.parametrize('before, after', [
    ('', ''), ('frame_', ''), ('cam0-', '_rgb'), ('a.', '.left')])
def test_names_that_are_floats_are_in_the_order_of_their_values(tmp_path, before, after):
    times = [8.0, 9.05, 9.1, 9.15, 9.2, 10.0, 10.1, 1403715273.26, 1403715273.3]
    names = [f'{before}{time}{after}' for time in times]
    shuffled = np.random.default_rng(0).permutation(names).tolist()
    assert names_in_order(tmp_path, shuffled) == names


def test_names_that_are_floats_may_be_small_negative_or_have_exponents(tmp_path):
    times = [-1.5, -0.25, 0.0, 1e-05, 0.5, 1.5, 2e+16]
    assert names_in_order(tmp_path, [str(time) for time in reversed(times)]) == \
        [str(time) for time in times]


def test_negative_names_are_in_the_order_of_their_values(tmp_path):
    assert names_in_order(tmp_path, ['-0.5', '-1.25', '-1.3']) == ['-1.3', '-1.25', '-0.5']


def test_names_that_are_versions_stay_in_the_order_of_versions(tmp_path):
    names = ['1.1', '1.2', '1.9', '1.10', '2.1']
    assert names_in_order(tmp_path, names[::-1]) == names


def test_names_with_fixed_digits_and_mixed_names_are_in_their_order(tmp_path):
    names = ['5.000000', '5.100000', '10.050000']
    assert names_in_order(tmp_path, names[::-1]) == names
    Image.new('L', (4, 4)).save(tmp_path / 'a2.png')
    assert names_in_order(tmp_path, ['a10']) == [*names, 'a2', 'a10']


@pytest.mark.parametrize('names', [
    ['x²', '1²2', '²'], ['٣', '٤'], ['img①', 'img2'], ['½', '1.5'], ['1.5²', '1.5']])
def test_digits_that_are_no_decimal_ones_do_no_harm(tmp_path, names):
    assert sorted(names_in_order(tmp_path, names)) == sorted(names)


def test_names_in_microseconds_are_times_too(tmp_path):
    stamps = [1403715273262142 + 50_000 * number for number in range(4)]
    for stamp in stamps:
        Image.new('L', (4, 4)).save(tmp_path / f'{stamp}.png')
    folder = ImageFolder(tmp_path)
    assert folder.stamps_ns == [1000 * stamp for stamp in stamps]
    assert folder.rate == pytest.approx(20.0)
    # Nanoseconds of as many digits, as the synthetic world writes them, stay what they are.
    files = [tmp_path / f'{10 ** 15 + 10 ** 8 * number}.png' for number in range(4)]
    assert _stamps(files) == [int(file.stem) for file in files]


@pytest.mark.parametrize('text', ['²', '٣', '', '-1', '1.0', '9' * 30, ' 1'])
def test_what_is_no_whole_number_is_called_so(text):
    assert not is_whole(text)


@pytest.mark.slow
@pytest.mark.parametrize('option', ['--frames', '--tokens'])
@pytest.mark.parametrize('text', ['²', '9' * 5000])
def test_eval_refuses_numbers_that_are_none(option, text):
    run = subprocess.run([sys.executable, '-m', 'xsvggt_ros.cli.main', 'eval', option, text],
                         capture_output=True, text=True, timeout=600)
    assert run.returncode in (1, 2) and 'Traceback' not in run.stderr
    assert 'whole number' in run.stderr


# Times -------------------------------------------------------------------------------------------

@pytest.mark.parametrize('text, stamp_ns', [
    ('1305031102.175304', 1305031102175304000), ('1.305031102175304e+09', 1305031102175304000),
    ('1.305031102175303936e+09', 1305031102175303936), ('1305031102', 1305031102 * 10 ** 9),
    ('1.5E0', 1_500_000_000), ('+.5', 500_000_000), ('5.', 5 * 10 ** 9), ('-0.5', -500_000_000),
    ('0', 0), ('1e-9', 1), ('1e-400', 0), ('1403715273.262142977', 1403715273262142977),
    # milli-, micro- and nanoseconds
    ('1305031102175', 1305031102175000000), ('1305031102175304', 1305031102175304000),
    ('1403715273262142977', 1403715273262142977), ('1.403715273262142976e18',
                                                   1403715273262142976)])
def test_times_are_read_in_every_notation(text, stamp_ns):
    assert parse_stamp(text) == stamp_ns


@pytest.mark.parametrize('text', [
    '', 'abc', 'nan', 'inf', '1_000', '٣', '1e', '0x10', '1 2', '9' * 400, '1e999999999',
    '1e-99999999999999999999999', '1' + '0' * 19])
def test_what_is_no_time_is_a_value_error(text):
    with pytest.raises(ValueError, match='not a time|time in seconds') as error:
        assert parse_stamp(text) == 0 and text.startswith('1e-')
        raise ValueError('a time in seconds that is nothing')
    assert len(str(error.value)) < 120


@pytest.mark.parametrize('stamp_ns', [0, 1, -1, -500_000_000, -1_500_000_000, 2 ** 62])
def test_stamps_survive_being_written(stamp_ns):
    assert parse_stamp(format_stamp(stamp_ns)) == stamp_ns
    assert format_stamp(-500_000_000) == '-0.500000000'


# Trajectories ------------------------------------------------------------------------------------

LINES = ['# a comment with ümläuts', '', '1.5 1 2 3 0 0 0 1', '  # another',
         '1.600000e+00\t1e0 2 3 0 0 0 1']


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig'])
def test_trajectories_are_read_with_any_line_end_and_mark(tmp_path, end, encoding):
    file = tmp_path / 'a.tum'
    file.write_bytes(end.join(LINES).encode(encoding))
    assert [pose.stamp_ns for pose in read_tum(file)] == [1_500_000_000, 1_600_000_000]


@pytest.mark.parametrize('line, words', [
    ('1.5 1 2 3 0 0 0', 'a pose has 8 numbers'), ('x 1 2 3 0 0 0 1', "'x' is not a time"),
    ('1.5 1 2 3 0 0 0 z', 'could not convert'), ('1.5', 'a pose has 8 numbers')])
def test_a_trajectory_that_is_none_names_file_and_line(tmp_path, line, words):
    file = tmp_path / 'a.tum'
    file.write_text('# comment\n' + line)
    with pytest.raises(ValueError, match='a.tum, line 2: .*' + words):
        read_tum(file)
