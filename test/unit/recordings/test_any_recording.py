"""The same recording as a folder, a video and a bag of each kind: the same frames and stamps."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from recording_maker import (
    camera_matrix,
    IMAGE,
    image_items,
    INFO,
    make_frames,
    Messages,
    PACKET,
    PICTURE,
    psnr,
    rotate_video,
    SIZE,
    START,
    STEPS_MS,
    TOPIC,
    VIDEO,
    write_folder,
    write_mcap,
    write_ros1,
    write_ros2,
    write_video,
)

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.images.image_codec import decode_image
from xsvggt_ros.recordings.frame_source import frames_ahead, looped, open_source
from xsvggt_ros.recordings.inputs import camera
from xsvggt_ros.recordings.inputs.camera import camera_device, CameraError, CameraSource

pytest.importorskip('rosbags')
av = pytest.importorskip('av')
pytest.importorskip('mcap')

IMAGES, STAMPS = make_frames()
EVEN_MS = [100 * number for number in range(len(IMAGES))]


def items(ros1=False, **settings):
    return image_items(Messages(ros1), IMAGES, STAMPS, **settings)


def info_item(messages):
    return INFO, 'sensor_msgs/msg/CameraInfo', STAMPS[0], messages.info(STAMPS[0])


def one_mcap(folder):
    return write_mcap(folder / 'a.mcap', items(padding=5))


def split_mcap(folder):
    """Write files whose log times overlap, and no metadata."""
    all_items = items(encoding='bgr8')
    write_mcap(folder / 'bag_0.mcap', all_items[::2])
    write_mcap(folder / 'bag_1.mcap', all_items[1::2])
    return folder


def pictures(folder):
    messages = Messages()
    return write_ros2(folder / 'bag', [info_item(messages)] + [
        ('/camera/image_raw/compressed', PICTURE, stamp, messages.picture(image, stamp))
        for image, stamp in zip(IMAGES, STAMPS)])


def disordered(folder):
    """Write log times that run backwards beside the stamps, in a file without an index."""
    first, *rest = items()
    logs = [item[2] for item in rest][::-1]
    shuffled = [(topic, kind, log, message) for (topic, kind, _, message), log in
                zip(rest[::-1], logs[::-1])]
    from mcap.writer import IndexType
    return write_mcap(folder / 'a.mcap', [first, *shuffled], index_types=IndexType.NONE)


LOSSLESS = {
    'folder': lambda folder: write_folder(folder / 'images', IMAGES, STAMPS),
    'mcap': one_mcap,
    'mcap folder': lambda folder: write_ros2(folder / 'bag', items()),
    'split mcap': split_mcap,
    'stamps against log times': disordered,
    'sqlite': lambda folder: write_ros2(folder / 'bag', items(padding=1), 'SQLITE3'),
    'sqlite, messages packed': lambda folder: write_ros2(
        folder / 'bag', items(), 'SQLITE3', 'MESSAGE'),
    'mcap, file packed': lambda folder: write_ros2(folder / 'bag', items(), 'MCAP', 'FILE'),
    'mcap, chunks packed': lambda folder: write_ros2(folder / 'bag', items(), 'MCAP', 'STORAGE'),
    'ROS 1': lambda folder: write_ros1(folder / 'a.bag', items(ros1=True, encoding='bgr8')),
    'ROS 1, lz4': lambda folder: write_ros1(folder / 'a.bag', items(ros1=True), 'LZ4'),
    'png': pictures,
}


@pytest.mark.slow
@pytest.mark.parametrize('kind', LOSSLESS)
def test_frames_and_stamps_are_the_same_bit_for_bit(tmp_path, kind):
    source = open_source(LOSSLESS[kind](tmp_path))
    frames = list(source.frames())
    assert [frame.stamp_ns for frame in frames] == STAMPS
    assert [frame.offset_ns for frame in frames] == [10 ** 6 * ms for ms in STEPS_MS]
    for frame, image in zip(frames, IMAGES):
        np.testing.assert_array_equal(frame.pixels, image)
    assert source.describe_skipped() == '' and source.count == len(IMAGES)
    assert [frame.stamp_ns for frame in source.frames()] == STAMPS   # any number of times
    if kind != 'folder':
        assert (source.calibration.width, source.calibration.height) == SIZE
        np.testing.assert_allclose(source.calibration.camera().camera_matrix, camera_matrix())


def jpeg(folder):
    messages = Messages()
    return write_ros2(folder / 'bag', [
        (TOPIC, PICTURE, stamp, messages.picture(image, stamp, 'JPEG', quality=97, subsampling=0))
        for image, stamp in zip(IMAGES, STAMPS)], 'SQLITE3')


def packets(folder, **settings):
    kind = settings.get('kind', VIDEO)
    made = Messages().packets(IMAGES, STAMPS, **settings)
    # Sent in the order in which they are decoded, each after the one before.
    return write_ros2(folder / 'bag', [(TOPIC, kind, STAMPS[0] + 10 ** 8 * number, message)
                                       for number, message in enumerate(made)])


LOSSY = {
    'jpeg': jpeg,
    'h264': packets,
    'h265': lambda folder: packets(folder, codec='libx265', name='h265'),
    'ffmpeg_image_transport': lambda folder: packets(
        folder, kind=PACKET, name='h264;yuv420p;bgr8;bgr8', b_frames=2),
    'ROS 1 jpeg': lambda folder: write_ros1(folder / 'a.bag', [
        (TOPIC, PICTURE, stamp, Messages(True).picture(
            image, stamp, 'JPEG', quality=97, subsampling=0))
        for image, stamp in zip(IMAGES, STAMPS)], 'BZ2'),
    'video': lambda folder: write_video(folder / 'a.mp4', IMAGES, STEPS_MS),
    'video, constant rate': lambda folder: write_video(folder / 'a.mp4', IMAGES, EVEN_MS),
    'video in Matroska': lambda folder: write_video(folder / 'a.mkv', IMAGES, STEPS_MS),
    'video of HD colours': lambda folder: write_video(
        folder / 'a.mp4', IMAGES, STEPS_MS, colorspace=1, reformat={
            'src_colorspace': 5, 'dst_colorspace': 1, 'src_color_range': 2, 'dst_color_range': 1}),
    'video of full range': lambda folder: write_video(
        folder / 'a.mp4', IMAGES, STEPS_MS, color_range=2, pix_fmt='yuv444p', reformat={
            'src_colorspace': 1, 'dst_colorspace': 5, 'src_color_range': 1, 'dst_color_range': 2}),
}


@pytest.mark.parametrize('kind', LOSSY)
def test_frames_that_were_compressed_are_nearly_the_same(tmp_path, kind):
    source = open_source(LOSSY[kind](tmp_path))
    frames = list(source.frames())
    assert len(frames) == len(IMAGES) == source.count and source.describe_skipped() == ''
    start = 0 if 'video' in kind else START
    expected = EVEN_MS if 'constant' in kind else STEPS_MS
    for frame, ms, image in zip(frames, expected, IMAGES):
        assert abs(frame.stamp_ns - start - 10 ** 6 * ms) < 10 ** 6
        assert psnr(frame.pixels, image) > 35


@pytest.mark.parametrize('degrees', [90, 180, 270])
def test_a_video_that_asks_to_be_turned_is(tmp_path, degrees):
    stored = [np.ascontiguousarray(np.rot90(image, degrees // 90)) for image in IMAGES]
    path = write_video(tmp_path / 'a.mp4', stored, STEPS_MS)
    rotate_video(path, degrees)
    frames = list(open_source(path).frames())
    assert len(frames) == len(IMAGES)
    for frame, image in zip(frames, IMAGES):
        assert psnr(frame.pixels, image) > 35


def test_frames_that_an_edit_list_cuts_off_are_not_there(tmp_path):
    path = write_video(tmp_path / 'a.mp4', IMAGES, EVEN_MS, options={
        'crf': '1', 'preset': 'ultrafast', 'g': '100'})
    data = bytearray(path.read_bytes())
    at = data.index(b'elst') + 4
    assert data[at] == 0 and data[at + 7] == 1   # one entry: duration, start, speed
    with av.open(str(path)) as container:
        ticks = round(0.3 / container.streams.video[0].time_base)
    data[at + 12:at + 16] = ticks.to_bytes(4, 'big')
    path.write_bytes(data)
    frames = list(open_source(path).frames())
    assert len(frames) == len(IMAGES) - 3
    for frame, image in zip(frames, IMAGES[3:]):
        assert psnr(frame.pixels, image) > 35
    assert [frame.offset_ns for frame in frames] == [10 ** 6 * ms for ms in EVEN_MS[:-3]]


DEEP = np.random.default_rng(1).integers(0, 4096, (6, 8), np.uint16)
ENCODED = {
    'mono16': DEEP, 'bayer_rggb8': (DEEP >> 4).astype(np.uint8),
    'bgra8': np.repeat(IMAGES[0][:6, :8, :1], 4, -1), 'yuv422_yuy2': IMAGES[0][:6, :8, :2],
}


@pytest.mark.parametrize('encoding', ENCODED)
def test_a_bag_gives_the_images_that_the_node_sees(tmp_path, encoding):
    messages = Messages()
    message = messages.image(ENCODED[encoding], START, encoding, padding=3)
    path = write_mcap(tmp_path / 'a.mcap', [(TOPIC, IMAGE, START, message)])
    frame, = open_source(path).frames()
    np.testing.assert_array_equal(frame.pixels, decode_image(message))


def test_a_png_of_16_bits_keeps_its_highest(tmp_path):
    message = Messages().picture(DEEP, START)
    path = write_mcap(tmp_path / 'a.mcap', [(TOPIC, PICTURE, START, message)])
    frame, = open_source(path).frames()
    np.testing.assert_array_equal(frame.pixels[..., 1], DEEP >> 4)   # a sensor of 12 bits


def test_a_camera_gives_frames_until_there_are_enough(tmp_path):
    """FFmpeg's source of test pictures stands in for a driver."""
    source = CameraSource('testsrc2=size=64x48:rate=20', rate=10.0, count=3, driver='lavfi')
    frames = list(frames_ahead(source))
    assert [frame.pixels.shape for frame in frames] == [(48, 64, 3)] * 3
    assert [frame.offset_ns for frame in frames] == [0, 100_000_000, 200_000_000]
    assert source.rate == 10 and source.count == 3
    ended = CameraSource('testsrc2=size=64x48:rate=20:duration=0.2', driver='lavfi')
    assert len(list(ended.frames())) == 4 and ended.count is None


def test_a_camera_that_is_back_is_gone_on_with(monkeypatch, capsys):
    monkeypatch.setattr(camera, '_REOPEN_PERIOD', 0.0)
    source = CameraSource('testsrc2=size=64x48:rate=20:duration=0.2', count=6, driver='lavfi')
    opened, missing = source._opened, 2

    def open_later():   # the images of before, twice nothing, and the images again
        nonlocal missing
        missing -= len(frames) > 0
        if len(frames) and missing >= 0:
            raise CameraError('camera: no such file')
        return opened()

    frames = []
    monkeypatch.setattr(source, '_opened', open_later)
    source.reconnects = True
    for frame in source.frames():
        frames.append(frame)
    assert [frame.offset_ns for frame in frames] == [
        0, 50_000_000, 100_000_000, 150_000_000, 0, 50_000_000]   # as FFmpeg's source begins anew
    words = capsys.readouterr().err.splitlines()
    assert 'has stopped' in words[0] and 'Plug it in again' in words[0]
    assert words[1] == 'camera: no such file' and words[2].endswith('the camera is back')
    assert len(words) == 3 and missing < 0


def test_a_camera_that_is_not_there_is_one_line():
    assert camera_device('camera:7') == camera_device('/dev/video7') == '/dev/video7'
    assert camera_device('camera:x') is camera_device('drive.mp4') is None
    with pytest.raises(ToolError, match='/dev/video987: cannot be opened as a camera'):
        open_source(Path('camera:987'))


def test_a_size_for_a_recording_is_said_to_have_no_effect(tmp_path, capsys):
    path = write_video(tmp_path / 'a.mp4', IMAGES[:3], EVEN_MS)
    assert next(open_source(path, size=(32, 24)).frames()).pixels.shape == IMAGES[0].shape
    words = capsys.readouterr().err
    assert words.startswith(f'--size has no effect: {path}') and words.count('\n') == 1
    open_source(path)
    open_source(size=(32, 24))
    assert capsys.readouterr().err == ''


def test_a_codec_that_nobody_knows_is_one_line(tmp_path):
    """PyAV has no context for it, and would crash the process."""
    path = write_video(tmp_path / 'a.mkv', IMAGES[:2], STEPS_MS)
    data = path.read_bytes()
    assert data.count(b'V_MPEG4/ISO/AVC') == 1
    path.write_bytes(data.replace(b'V_MPEG4/ISO/AVC', b'V_MPEG4/ISO/XYZ'))
    with pytest.raises(ToolError, match='a.mkv: has video of a codec that PyAV does not decode'):
        open_source(path)


def test_fewer_images_a_second_are_taken_evenly(tmp_path):
    frames = list(open_source(one_mcap(tmp_path), rate=5.0).frames())
    assert [frame.offset_ns // 10 ** 6 for frame in frames] == [0, 190, 400, 600]
    path = write_video(tmp_path / 'a.mp4', IMAGES, EVEN_MS)
    source = open_source(path, rate=5.0, count=3)
    assert [frame.stamp_ns // 10 ** 6 for frame in source.frames()] == [0, 200, 400]
    assert source.count == 3 and source.rate == 5


@pytest.mark.parametrize('kind', ['mcap', 'video'])
def test_a_recording_that_is_played_again_goes_on_in_time(tmp_path, kind):
    source = open_source((LOSSLESS | LOSSY)[kind](tmp_path))
    frames = islice(looped(source), 2 * len(IMAGES) + 1)
    stamps = [frame.stamp_ns for frame in frames]
    assert stamps == sorted(set(stamps))
    assert stamps[len(IMAGES)] - stamps[0] == source.duration_ns


def test_a_topic_belongs_to_a_bag(tmp_path):
    with pytest.raises(ToolError, match='--input-topic /a: .* is no bag; only bags have topics'):
        open_source(write_folder(tmp_path / 'a', IMAGES[:1], STAMPS[:1]), topic='/a')


def turned_video(folder):
    stored = [np.ascontiguousarray(np.rot90(image, 1)) for image in IMAGES]
    path = write_video(folder / 'a.mp4', stored, STEPS_MS)
    rotate_video(path, 90)
    return path


def calibration_file(folder):
    file = folder / 'camera_info.yaml'
    k = ', '.join(map(str, camera_matrix().ravel()))
    file.write_text(
        f'image_width: {SIZE[0]}\nimage_height: {SIZE[1]}\ncamera_matrix: {{data: [{k}]}}\n'
        'distortion_model: plumb_bob\ndistortion_coefficients: {data: [0, 0, 0, 0, 0]}\n')
    return file


def trajectory_of(path, out, calibration):
    from xsvggt_ros.cli.main import main
    from xsvggt_ros.mapping.map_files import read_tum
    assert main(['reconstruct', str(path), '--image-size', '56', '--frames', '6', '--calibration',
                 str(calibration), '--out', str(out)]) == 0
    return read_tum(out / 'trajectory.tum')


@pytest.mark.slow
def test_the_trajectory_of_what_was_compressed_is_nearly_the_same(tmp_path):
    calibration = calibration_file(tmp_path)
    whole = trajectory_of(LOSSLESS['folder'](tmp_path), tmp_path / 'out', calibration)
    length = sum(np.linalg.norm(np.subtract(one.position, other.position))
                 for one, other in zip(whole, whole[1:]))
    for kind, write in (LOSSY | {'turned video': turned_video}).items():
        if kind not in ('jpeg', 'h264', 'ROS 1 jpeg', 'video', 'video, constant rate',
                        'turned video'):
            continue
        folder = tmp_path / kind.replace(' ', '_')
        folder.mkdir()
        poses = trajectory_of(write(folder), folder / 'out', calibration)
        start = 0 if 'video' in kind else START
        steps = EVEN_MS if 'constant' in kind else STEPS_MS
        for pose, true, ms in zip(poses, whole, steps, strict=False):
            assert abs(pose.stamp_ns - start - ms * 10 ** 6) < 10 ** 6
            off = np.linalg.norm(np.subtract(pose.position, true.position))
            assert off < 0.05 * length, (kind, off, length)


@pytest.mark.slow
def test_the_trajectory_is_the_same_whatever_the_recording_is_in(tmp_path):
    from xsvggt_ros.cli.main import main
    calibration = calibration_file(tmp_path)
    written = []
    for kind in ('folder', 'split mcap', 'sqlite', 'ROS 1', 'png'):
        folder = tmp_path / kind.replace(' ', '_')
        folder.mkdir()
        given = ['--calibration', str(calibration)] if kind == 'folder' else []
        out = folder / 'out'
        assert main(['reconstruct', str(LOSSLESS[kind](folder)), '--image-size', '56', *given,
                     '--frames', '6', '--out', str(out)]) == 0
        written.append((out / 'trajectory.tum').read_bytes())
    assert len(set(written)) == 1 and written[0].count(b'\n') == 7
