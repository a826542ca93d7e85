"""Pictures that are too large, broken or odd are refused or read before they do harm."""

import io
import logging
import resource
import struct
import zlib

import numpy as np
from PIL import Image
import pytest

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.evaluation.datasets.pictures import read_colour
from xsvggt_ros.images.image_limit import check_pixels, MOST_PIXELS
from xsvggt_ros.recordings.image_folder import ImageFolder

HUGE = [(20_000, 5_001), (65_500, 65_500), (1, 100_000_001)]


def chunk(name, content):
    return struct.pack('>I', len(content)) + name + content + struct.pack(
        '>I', zlib.crc32(name + content))


def png_that_says(width, height):
    """Return a small PNG whose header promises so many pixels."""
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0,
                                                              0, 0))
            + chunk(b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND', b''))


def jpeg_that_says(width, height):
    """Return a small JPEG whose header promises so many pixels."""
    file = io.BytesIO()
    Image.new('RGB', (16, 16), (1, 2, 3)).save(file, 'JPEG')
    data = bytearray(file.getvalue())
    place = data.index(b'\xff\xc0') + 5
    data[place:place + 4] = struct.pack('>HH', height, width)
    return bytes(data)


@pytest.fixture(params=['png', 'jpeg'])
def huge(request):
    """Return pictures that promise more pixels than are decoded."""
    make, most = {'png': (png_that_says, 2 ** 31), 'jpeg': (jpeg_that_says, 65_501)}[request.param]
    return [make(*size) for size in HUGE if max(size) < most]


@pytest.fixture
def little_memory():
    """Let this test have 200 MB more than there is now: less than the pictures would take."""
    with open('/proc/self/statm') as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + 200_000_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def test_the_limit_is_a_number_of_pixels():
    check_pixels(10_000, 10_000)
    with pytest.raises(ValueError, match='10001x10000 pixels are more than the 100000000'):
        check_pixels(10_001, 10_000)
    assert MOST_PIXELS == 10 ** 8


@pytest.mark.usefixtures('little_memory')
@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_a_folder_leaves_huge_images_out(tmp_path, huge, caplog):
    Image.new('RGB', (8, 6), (7, 7, 7)).save(tmp_path / '1.png')
    for number, data in enumerate(huge, 2):
        (tmp_path / f'{number}.png').write_bytes(data)
    folder = ImageFolder(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert len(list(folder.frames())) == 1
    assert len(folder.skipped) == len(huge)
    assert 'more than the 1' in caplog.text or 'decompression bomb' in caplog.text
    assert f'skipped {len(huge)} of {len(huge) + 1} images: 2.png' in folder.describe_skipped()


@pytest.mark.usefixtures('little_memory')
@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_a_data_set_names_a_huge_image(tmp_path, huge):
    for data in huge:
        (tmp_path / 'a.png').write_bytes(data)
        with pytest.raises(ToolError, match='a.png: cannot be .* picture .*(more than the|bomb)'):
            read_colour(tmp_path / 'a.png')


@pytest.mark.usefixtures('little_memory')
@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_the_node_refuses_huge_images(huge):
    pytest.importorskip('rclpy')
    from sensor_msgs.msg import CompressedImage
    from sensor_msgs.msg import Image as ImageMsg

    from xsvggt_ros.images.depth_codec import decode_depth
    from xsvggt_ros.node.inputs.image_codec import decode_compressed, decode_image, ImageError
    for data in huge:
        with pytest.raises(ImageError, match='more than the|decompression bomb'):
            decode_compressed(CompressedImage(format='jpeg', data=data))
    for encoding, decode in (('bayer_rggb8', decode_image), ('16UC1', decode_depth)):
        message = ImageMsg(width=20_000, height=5_001, step=40_000, encoding=encoding)
        with pytest.raises(ImageError, match='20000x5001 pixels are more than'):
            decode(message)


def test_a_folder_of_odd_images_is_read_as_far_as_it_can_be(tmp_path):
    Image.new('RGB', (8, 6), (1, 1, 1)).save(tmp_path / '1.png')
    frames = [Image.new('RGB', (8, 6), (value, 0, 0)) for value in (2, 9)]
    frames[0].save(tmp_path / '2.png', save_all=True, append_images=frames[1:])        # animated
    frames[0].save(tmp_path / '3.tiff', save_all=True, append_images=frames[1:])       # two pages
    for number, exif in enumerate((b'Exif\0\0', b'Exif\0\0MM\0\x2a\0\0\0\x08\xff\xff',
                                   b'Exif\0\0' + bytes(range(200))), 4):               # broken
        Image.new('RGB', (8, 6), (5, 5, 5)).save(tmp_path / f'{number}.jpg', exif=exif)
    folder = ImageFolder(tmp_path)
    assert [frame.path.name for frame in folder.frames()] == [
        '1.png', '2.png', '3.tiff', '4.jpg', '5.jpg', '6.jpg']
    assert [frame.pixels[0, 0, 0] for frame in folder.frames()][:3] == [1, 2, 2]
    assert folder.describe_skipped() == ''


def test_broken_images_of_every_kind_are_left_out(tmp_path):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
    picture.save(tmp_path / '0.png')
    expected = {tmp_path / '0.png'}
    for ending in ('png', 'jpg', 'webp', 'bmp', 'tiff', 'ppm'):
        picture.save(tmp_path / f'whole.{ending}')
        whole = (tmp_path / f'whole.{ending}').read_bytes()
        expected.add(tmp_path / f'whole.{ending}')
        for number in range(12):
            data = bytearray(whole[:rng.integers(len(whole))])
            for place in rng.integers(len(data) + 1, size=number):
                data[place:place + 1] = rng.bytes(1)
            (tmp_path / f'broken{number}.{ending}').write_bytes(data)
    folder = ImageFolder(tmp_path)
    assert expected <= {frame.path for frame in folder.frames()}
    assert folder.skipped and all(folder.skipped.values())
    assert not any(str(tmp_path) in reason for reason in folder.skipped.values())
    words = folder.describe_skipped()
    assert f'skipped {len(folder.skipped)} of 79 images' in words
    assert all(name in words for name in ('broken0.bmp', ' more'))
    assert len(words) < 2000


def test_depth_maps_beside_colour_images_are_left_out(tmp_path):
    Image.new('RGB', (8, 6)).save(tmp_path / 'frame1.color.png')
    Image.fromarray(np.full((6, 8), 1000, np.uint16)).save(tmp_path / 'frame1.depth.png')
    folder = ImageFolder(tmp_path)
    assert [frame.path.name for frame in folder.frames()] == ['frame1.color.png']
    assert 'frame1.depth.png (16 bits, but the first image has 8' in folder.describe_skipped()


def test_what_is_left_out_for_one_reason_is_told_with_it_once(tmp_path):
    Image.new('L', (8, 6)).save(tmp_path / '0.png')
    for number in range(1, 10):
        Image.new('L', (8, 6 + number // 8)).save(tmp_path / f'{number}.png')
        (tmp_path / f'{number}.jpg').write_bytes(b'nothing')
    folder = ImageFolder(tmp_path)
    list(folder.frames())
    assert folder.describe_skipped() == (
        'skipped 11 of 19 images: 1.jpg, 2.jpg and 7 more (cannot identify image file it); '
        '8.png, 9.png (8x7, but the first image is 8x6)')


def test_what_is_left_out_is_told_once(tmp_path, caplog):
    Image.new('L', (8, 6)).save(tmp_path / '000.png')
    for number in range(1, 21):
        (tmp_path / f'{number:03}.png').write_bytes(b'nothing')
    folder = ImageFolder(tmp_path)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert len(list(folder.frames())) == 1
    assert len(caplog.records) == 6 and 'further images' in caplog.text
