"""Lenses against OpenCV's numbers and against themselves; calibrations for other images."""

from dataclasses import replace

import numpy as np
import pytest

from xsvggt_ros.geometry.camera_model import CameraError, CameraModel, LENSES, PlaceholderError

SIZE = (752, 480)
K = (458.654, 0, 367.215, 0, 457.296, 248.375, 0, 0, 1)
R = (0.9995000583306112, -0.010297631831627843, -0.029893012156105903,
     0.00969770182836127, 0.9997500291653056, -0.020145316160805754,
     0.030092988823861425, 0.01984535115917247, 0.9993500758297945)
P = (430, 0, 360, 0, 0, 440, 250, 0, 0, 0, 1, 0)
COEFFICIENTS = {
    'plumb_bob': (-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05, 0.01),
    'rational_polynomial': (0.5, -2.6, 0.0009, -0.0004, 1.5, 0.4, -2.4, 1.4),
    'equidistant': (-0.013, 0.002, -0.0021, 0.0007),
}
# The raw pixels that show four of the rectified image's, by OpenCV 4's initUndistortRectifyMap
# and fisheye.initUndistortRectifyMap.
RECTIFIED = ((0, 0), (751, 0), (376, 240), (100, 479))
RAW = {
    'plumb_bob': ((74.5986, 54.6307), (707.6742, 45.7276), (397.9747, 246.8848),
                  (145.1871, 460.9326)),
    'rational_polynomial': ((6.5953, 9.9866), (807.1674, -13.2705), (398.0251, 246.8838),
                            (103.894, 500.5393)),
    'equidistant': ((80.7406, 58.6252), (693.3201, 54.1622), (397.9659, 246.8849),
                    (148.5076, 457.6956)),
}


def camera(lens='plumb_bob', **changes):
    fields = {'size': SIZE, 'k': K, 'd': COEFFICIENTS.get(lens, ()), 'lens': lens}
    return CameraModel.calibrated(**fields | changes)


def undistort(model, distorted):
    """Invert the lens by Newton's method, with a numerical derivative."""
    points, step = distorted.copy(), 1e-6
    for _ in range(30):
        error = model.distort(points) - distorted
        columns = [(model.distort(points + np.eye(2)[i] * step) - model.distort(points)) / step
                   for i in range(2)]
        points = points - np.linalg.solve(np.stack(columns, -1), error[..., None])[..., 0]
    return points


def raw_points(model):
    """Return the normalised coordinates of a grid over the raw image, [N, 2]."""
    u, v = np.meshgrid(np.linspace(0, model.width - 1, 23), np.linspace(0, model.height - 1, 17))
    pixels = np.stack((u, v, np.ones_like(u)), -1).reshape(-1, 3)
    return (pixels @ np.linalg.inv(model.camera_matrix).T)[:, :2]


@pytest.mark.parametrize('lens', LENSES)
def test_lenses_are_those_of_opencv(lens):
    model = camera(lens, r=R, p=P)
    source = model.source_of(np.array(RECTIFIED, float))
    np.testing.assert_allclose(source, RAW[lens], rtol=0, atol=2e-4)
    whole = model.rectification_map()
    assert whole.shape == (480, 752, 2)
    for (u, v), raw in zip(RECTIFIED, source):
        np.testing.assert_allclose(whole[v, u], raw, rtol=1e-12)


@pytest.mark.parametrize('lens', LENSES)
def test_undistorting_takes_the_distortion_out(lens):
    model = camera(lens)
    distorted = raw_points(model)
    points = undistort(model, distorted)
    np.testing.assert_allclose(model.distort(points), distorted, rtol=0, atol=1e-9)
    np.testing.assert_allclose(undistort(model, model.distort(points)), points, rtol=0, atol=1e-7)
    assert np.abs(points - distorted).max() > 0.01


def test_a_camera_without_distortion_changes_nothing():
    for model in (camera(d=()), camera('equidistant', d=(0,) * 4), camera(lens='plumb_bob', d=[0]),
                  CameraModel.calibrated(SIZE, K, lens='')):
        assert not model.is_distorted and not model.needs_rectification
        grid = np.stack(np.meshgrid(np.arange(752), np.arange(480)), -1)
        np.testing.assert_allclose(model.rectification_map(), grid, rtol=0, atol=1e-9)


def test_r_and_p_of_zeros_are_none():
    model = camera(r=(0,) * 9, p=(0,) * 12)
    np.testing.assert_array_equal(model.rectified_matrix, np.reshape(K, (3, 3)))
    np.testing.assert_array_equal(model.rectified_from_raw, np.eye(3))
    assert model.needs_rectification


def test_the_last_row_of_a_camera_matrix_need_not_be_filled_in():
    model = camera(k=(*K[:6], 0, 0, 0), p=(*P[:10], 0, 0))
    assert model.camera_matrix[2].tolist() == model.rectified_matrix[2].tolist() == [0, 0, 1]


def test_another_p_or_r_needs_rectification_too():
    assert camera(d=(), p=P).needs_rectification
    assert camera(d=(), r=R).needs_rectification
    pinhole = camera(r=R, p=P).rectified()
    assert not pinhole.needs_rectification
    np.testing.assert_array_equal(pinhole.camera_matrix, np.reshape(P, (3, 4))[:, :3])


def test_the_lens_is_not_believed_where_it_folds_back():
    # k1 = -0.3 turns back at a radius of sqrt(1 / 0.9); this P looks far beyond that.
    wide = camera(d=(-0.3,), p=(150, 0, 376, 0, 0, 150, 240, 0, 0, 0, 1, 0))
    source = wide.rectification_map()
    seen = np.isfinite(source).all(-1)
    u, v = np.meshgrid(np.arange(752), np.arange(480))
    radius = np.hypot(u - 376, v - 240) / 150
    assert seen[radius < 1.05].all() and not seen[radius > 1.06].any()
    assert (np.diff(source[240, seen[240], 0]) > 0).all()


@pytest.mark.parametrize('lens', LENSES)
@pytest.mark.parametrize('factor', [0.5, 2.0])
def test_a_calibration_is_scaled_with_the_images(lens, factor):
    full = camera(lens, r=R, p=P)
    size = round(752 * factor), round(480 * factor)
    scaled = full.for_images(*size)
    assert (scaled.width, scaled.height) == size
    assert full.for_images(752, 480) is full
    # The same place in the image, measured from the corner of its first pixel.
    pixels = np.array(RECTIFIED, float)
    there = scaled.source_of(factor * (pixels + 0.5) - 0.5)
    np.testing.assert_allclose(there, factor * (full.source_of(pixels) + 0.5) - 0.5, atol=1e-9)


def test_binned_images_have_the_scaled_camera():
    binned, half = camera(p=P, binning=(2, 2)), camera(p=P).for_images(376, 240)
    assert (binned.width, binned.height) == (376, 240)
    np.testing.assert_allclose(binned.camera_matrix, half.camera_matrix)
    np.testing.assert_allclose(binned.rectified_matrix, half.rectified_matrix)
    assert camera(binning=(0, 0)).width == 752


def test_a_region_of_interest_moves_the_principal_point():
    full, cut = camera(p=P), camera(p=P, window=(100, 40, 400, 300))
    assert (cut.width, cut.height) == (400, 300)
    pixels = np.array(((0, 0), (399, 299), (200, 100)), float)
    np.testing.assert_allclose(cut.source_of(pixels),
                               full.source_of(pixels + (100, 40)) - (100, 40))
    both = camera(p=P, window=(100, 40, 400, 300), binning=(2, 2))
    assert (both.width, both.height) == (200, 150)
    assert both.rectified_matrix[0, 2] == pytest.approx((360 - 100 + 0.5) / 2 - 0.5)


@pytest.mark.parametrize('changes, word', [
    ({'lens': 'fov', 'd': (0.9,)}, "'fov' is not supported.*plumb_bob"),
    ({'lens': '', 'd': (0.1,)}, 'not supported'),
    ({'d': (0.1,) * 6}, '5 distortion coefficients'),
    ({'d': (float('nan'),)}, 'distortion coefficients'),
    ({'k': (0,) * 9}, 'K has no positive focal'),
    ({'p': (-1,) * 12}, 'P has no positive focal'),
    ({'k': (float('nan'),) * 9}, 'K has no positive focal'),
    ({'r': (2,) * 9}, 'R is not a rotation'),
    ({'size': (0, 0)}, '0x0'),
    ({'d': (1e300,)}, 'would show nothing'),
    ({'p': (458, 0, 1e7, 0, 0, 458, 240, 0, 0, 0, 1, 0)}, 'would show nothing'),
    ({'window': (500, 0, 300, 480)}, 'region of interest'),
    ({'k': (458, 458, 367, 457, 457, 248, 0, 0, 1)}, 'K is no camera matrix .singular'),
    ({'p': (430, 430, 360, 0, 430, 430, 250, 0, 0, 0, 1, 0)}, 'P is no camera matrix'),
    ({'binning': (10 ** 6, 10 ** 6)}, 'leaves nothing of 752x480'),
    ({'binning': (2, 301), 'window': (0, 0, 300, 300)}, 'leaves nothing of 300x300'),
    ({'k': (1e300, 0, 1, 0, 1e300, 1, 0, 0, 1)}, 'too long'),
    ({'k': (458, 0, 1e9, 0, 457, 248, 0, 0, 1), 'd': ()}, 'principal point'),
    ({'r': (1, 0, 0, 0, 1, 0, 0, 0, -1)}, 'R is not a rotation'),
    ({'r': (float('nan'),) * 9}, 'R is not a rotation'),
    ({'d': (0.1,) * 100_000}, '5 distortion coefficients.*99988 more'),
    ({'lens': 'x' * 10 ** 6, 'd': (0.1,)}, 'not supported'),
])
def test_what_is_no_camera_is_refused(changes, word):
    with pytest.raises(CameraError, match=word) as error:
        camera(**changes)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize('k', [
    (1, 0, 376, 0, 1, 240, 0, 0, 1), (1, 0, 0, 0, 1, 0, 0, 0, 1),
    (0.9, 0, 0.5, 0, 1.2, 0.5, 0, 0, 1)])  # the last one in units of the image's sides
def test_a_placeholder_is_no_calibration(k):
    with pytest.raises(PlaceholderError, match='placeholder.*not calibrated'):
        camera(k=k, d=())


def test_an_identity_as_p_is_no_calibration_either():
    with pytest.raises(CameraError, match='P has focal lengths of 1 and 1.*let P be zero'):
        camera(p=(1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0))


@pytest.mark.parametrize('name', ['', 'none', 'None', 'pinhole'])
def test_a_camera_without_a_lens_by_any_name(name):
    assert camera(lens=name, d=(0,) * 5).lens == 'plumb_bob'
    assert not camera(lens=name, d=()).is_distorted
    with pytest.raises(CameraError, match='not supported'):
        camera(lens=name, d=(0.1,))


@pytest.mark.parametrize('lens, coefficients', [
    ('plumb_bob', (-0.3,)), ('plumb_bob', (-0.28, 0.07, 0, 0, -0.02)), ('plumb_bob', (0.1, 1e-40)),
    ('rational_polynomial', COEFFICIENTS['rational_polynomial']),
    ('rational_polynomial', (0, 0, 0, 0, 0, -0.5, 0, 0)),  # a pole
    ('equidistant', (-0.3, 0.01, 0, 0)), ('equidistant', COEFFICIENTS['equidistant'])])
def test_where_a_lens_folds_back_is_where_it_stops_to_grow(lens, coefficients):
    model = camera(lens, d=coefficients)
    radii = np.linspace(0, 40, 400_001)
    radial = replace(model, coefficients=tuple(
        0.0 if lens != 'equidistant' and i in (2, 3) else c
        for i, c in enumerate(model.coefficients)))
    grown = radial.distort(np.stack((radii, np.zeros_like(radii)), -1))[:, 0]
    falls = np.flatnonzero(np.diff(grown) <= 0)
    if falls.size:
        assert model._fold == pytest.approx(radii[falls[0]], abs=3e-4)
    else:
        assert model._fold > 40


@pytest.mark.parametrize('size', [(640, 480), (752, 470), (480, 752)])
def test_images_of_another_aspect_are_refused(size):
    with pytest.raises(CameraError, match=f'752x480.*{size[0]}x{size[1]}'):
        camera().for_images(*size)


def test_how_far_two_cameras_are_apart():
    here = camera(p=P)
    assert here.shift_to(camera(p=P)) < 1e-9
    moved = camera(p=(430, 0, 363, 0, 0, 440, 254, 0, 0, 0, 1, 0))
    assert 5 <= here.shift_to(moved) < 10
    assert here.shift_to(here.rectified()) > 20  # the lens
    assert here.shift_to(here.for_images(376, 240)) == float('inf')
    # One sees where the other's lens has folded back.
    short = {'k': (290, 0, 376, 0, 290, 240, 0, 0, 1),
             'p': (150, 0, 376, 0, 0, 150, 240, 0, 0, 0, 1, 0)}
    wide, wider = camera(d=(-0.3,), **short), camera(d=(-0.01,), **short)
    assert wide.shift_to(wider) == wider.shift_to(wide) == float('inf')
