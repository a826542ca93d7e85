"""What is drawn in the picture of a run lies where there is room for it."""

from itertools import combinations

import numpy as np
from PIL import Image
import pytest
import torch

pytest.importorskip('matplotlib')

from xsvggt_ros.mapping.map_files import format_stamp, make_cloud, pack  # noqa: E402
from xsvggt_ros.mapping.trajectory import StampedPose  # noqa: E402
from xsvggt_ros.recordings.figure import _Scene, lay_out, write_picture  # noqa: E402
from xsvggt_ros.recordings.outputs import CacheRow  # noqa: E402
from xsvggt_ros.recordings.recording import Recording  # noqa: E402

LONG_NAME = '/home/jürgen/$a_{very}$/' + 'long path/' * 40 + '面.pth (embed_dim 128)'


def record(count, size=(40, 30), first=0.1, backwards=False, **settings):
    """Return a run of a circle that leaves the cloud, with a true way beside it."""
    run = Recording(image=np.full((size[1], size[0], 3), 90, np.uint8), **settings)
    rng = np.random.default_rng(0)
    points = rng.uniform((-1, -1, 0), (1, 1, 1), (5_000, 3))
    run.map.add(torch.from_numpy(pack(make_cloud(points, np.full((5_000, 3), 70),
                                                 np.ones(5_000)))), torch.eye(4).double())
    for number in range(count):
        stamp = 10 ** 8 * (number % (count // 2 + 1) if backwards else number)
        angle = 2 * np.pi * number / count
        place = (3 * np.cos(angle), 2.5 * np.sin(angle), 0.5)
        turn = (0.0, 0.0, np.sin(angle / 2), np.cos(angle / 2))
        run.poses.append(StampedPose(stamp, place, turn))
        run.truth.append(StampedPose(stamp, (1.3 * place[0], place[1], 0.7), turn))
        run.cache.append(CacheRow(format_stamp(stamp), number, 20 * number + 20, 1000, 0.5, 0, 100,
                                  200, first if number == 0 else 0.1))
    return run


RUNS = {
    'short': {'count': 5, 'model': 'a'}, 'one': {'count': 1},
    'long': {'count': 2000, 'model': LONG_NAME, 'metric': True},
    'late first frame': {'count': 100, 'model': 'small', 'first': 4.0, 'size': (30, 400)},
    'random': {'count': 20, 'model': LONG_NAME, 'random_weights': True, 'size': (4000, 30)},
    'backwards': {'count': 50, 'model': 'two\nlines', 'backwards': True}}


@pytest.fixture(scope='module', params=RUNS)
def run(request):
    return record(**RUNS[request.param])


@pytest.fixture(scope='module')
def page(run):
    figure = lay_out(run)
    figure.draw(figure.canvas.get_renderer())
    return figure


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:Glyph')
def test_no_words_overlap_or_leave_the_page(run, page):
    renderer = page.canvas.get_renderer()
    words = list(page.texts)
    for axes in page.axes:
        words += [axes._left_title, axes.xaxis.label, axes.yaxis.label]
        words += axes.get_legend().get_texts() if axes.get_legend() else []
    boxes = {text.get_text(): text.get_window_extent(renderer)
             for text in words if text.get_text()}
    lines = [text.get_text() for text in page.texts]
    assert f'{run.frames} frames' in lines[1] and lines[2].startswith('weights: ')
    for text, box in boxes.items():
        assert page.bbox.x0 <= box.x0 and box.x1 <= page.bbox.x1, text
        assert page.bbox.y0 <= box.y0 and box.y1 <= page.bbox.y1, text
        for axes in page.axes:
            assert not box.overlaps(axes.get_window_extent(renderer)), text
    for axes in page.axes:
        legend = axes.get_legend()   # with the lines beside its words
        if legend:
            title = boxes[axes.get_title('left')]
            assert not legend.get_window_extent(renderer).overlaps(title), title
    for one, other in combinations(boxes, 2):
        assert not boxes[one].overlaps(boxes[other]), (one, other)


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:Glyph')
def test_all_curves_lie_within_their_axes(page):
    checked = 0
    for axes in page.axes:
        for line in axes.get_lines():
            if line.get_label() == 'budget':
                continue
            pixels = axes.transData.transform(np.array(line.get_data()).T)
            low, high = axes.bbox.min - 1, axes.bbox.max + 1
            assert (low <= pixels).all() and (pixels <= high).all(), line.get_label()
            checked += 1
        for lines in axes.collections:
            if hasattr(lines, 'get_segments'):     # the way, and the cameras
                points = np.concatenate(lines.get_segments())
                pixels = axes.transData.transform(points)
                assert (axes.bbox.min - 1 <= pixels).all() and (pixels <= axes.bbox.max + 1).all()
                checked += 1
    assert checked >= 2


def test_a_long_way_is_shown_to_its_ends():
    scene = _Scene(record(5000))
    for line in (scene.positions, scene.errors.true_positions):
        assert (line.min(axis=0) >= scene.outline.min(axis=0) - 1e-9).all()
        assert (line.max(axis=0) <= scene.outline.max(axis=0) + 1e-9).all()
        assert (line.min(axis=0) >= scene.low).all() and (line.max(axis=0) <= scene.high).all()


@pytest.mark.slow
def test_the_picture_shows_how_many_frames_were_processed(tmp_path):
    run = record(10)
    assert run.frames == 10
    run.frames_processed = 12      # two of which were not recorded
    assert any(text.get_text().startswith('12 frames') for text in lay_out(run).texts)
    file = write_picture(run, tmp_path)
    assert Image.open(file).size == (1920, 1080)
