#!/usr/bin/env bash
# pytheia 1.2.1 (structure from motion, PyPI): WriteColmapFiles() writes the first coefficient of radial distortion in place of
# the second, and one focal length where there are two.
#
# Guess: pycolmap reads the files, and every point reprojects to its observation to 0.02 pixels (six digits), or
# the camera is refused, as those of other models are.
# Seen: cameras of the model PINHOLE (with radial distortion) are written as COLMAP's RADIAL with the parameters f, cx, cy, k1,
# k1. With k1 = -0.1 and k2 = 0.02 points are up to 36 pixels off in an image of 1280 by 960, with k2 = 0 up to 67; with
# k2 = k1 they are right. An aspect ratio of 1.01 is left out: 5 pixels. Nothing is said. Poses, points
# and observations are right.
# What to do: write the parameters of cameras.txt oneself, as OPENCV (fx, fy, cx, cy, k1, k2, 0, 0).
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pytheia==1.2.1 pycolmap==4.2.1 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
from pathlib import Path

import numpy as np
import pycolmap
from pytheia import io, sfm

FOCAL, CENTRE, SIZE = 800.0, [630.0, 490.0], (1280, 960)
random = np.random.default_rng(0)


def prior(k1, k2, aspect):
    """Return the intrinsics of a camera."""
    made = sfm.CameraIntrinsicsPrior()
    made.camera_intrinsics_model_type = 'PINHOLE'
    made.image_width, made.image_height = SIZE
    values = {'focal_length': [FOCAL], 'principal_point': CENTRE, 'aspect_ratio': [aspect], 'skew': [0.0],
              'radial_distortion': [k1, k2, 0.0, 0.0]}
    for name, value in values.items():
        getattr(made, name).value = value
        getattr(made, name).is_set = True
    return made


def reconstruction(k1, k2, aspect):
    """Return four views of forty points, all observed where they project to."""
    made = sfm.Reconstruction()
    for index in range(4):
        view = made.MutableView(made.AddView(f'{index}.jpg', index, float(index)))
        view.SetCameraIntrinsicsPrior(prior(k1, k2, aspect))
        camera = view.MutableCamera()
        camera.SetFromCameraIntrinsicsPriors(prior(k1, k2, aspect))
        camera.SetOrientationFromAngleAxis(random.normal(size=3) * 0.1)
        camera.SetPosition(random.normal(size=3) * 0.3)
        view.SetIsEstimated(True)
    while made.NumTracks() < 40:
        point = np.append(random.uniform(-1, 1, 3) * [4, 3, 1] + [0, 0, 6], 1.0)
        seen = {view: np.asarray(made.View(view).Camera().ProjectPoint(point)[1]).ravel() for view in made.ViewIds()}
        if any((pixel < 0).any() or (pixel >= SIZE).any() for pixel in seen.values()):
            continue
        track = made.AddTrack()
        made.MutableTrack(track).SetPoint(point)
        made.MutableTrack(track).SetIsEstimated(True)
        for view, pixel in seen.items():
            made.AddObservation(view, track, sfm.Feature(pixel))
    return made


def read(made):
    """Return the worst reprojection after pycolmap has read the files, in pixels, and the first camera."""
    folder = Path('colmap')
    folder.mkdir(exist_ok=True)
    if not io.WriteColmapFiles(made, str(folder)):
        raise SystemExit('refused')
    got = pycolmap.Reconstruction(folder)
    worst = [np.linalg.norm(image.project_point(got.points3D[seen.point3D_id].xyz) - seen.xy)
             for image in got.images.values() for seen in image.points2D if seen.has_point3D()]
    return len(worst), max(worst), next(iter(got.cameras.values()))


as_seen = True
for k1, k2, aspect, low, high in ((0, 0, 1, 0, 0.02), (-0.1, -0.1, 1, 0, 0.02), (-0.1, 0.02, 1, 10, 200), (-0.1, 0, 1, 10, 200),
                                  (0, 0, 1.01, 2, 20)):
    count, worst, camera = read(reconstruction(k1, k2, aspect))
    print(f'k1 = {k1}, k2 = {k2}, aspect ratio {aspect}: {camera.model.name} {camera.params.tolist()}, {count} observations up '
          f'to {worst:.4f} pixels off')
    as_seen &= count == 160 and low <= worst < high and camera.model.name == 'RADIAL'
    as_seen &= np.allclose(camera.params, [FOCAL, *CENTRE, k1, k1])
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
