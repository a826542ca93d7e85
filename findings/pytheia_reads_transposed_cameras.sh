#!/usr/bin/env bash
# pytheia 1.2.1 (structure from motion, PyPI): ImportNVMFile() turns every camera the wrong way, and ReadBundlerFiles() cuts
# the observations to whole pixels; both of files that it has written itself.
#
# NVM (VisualSFM) has the quaternion of the rotation from world to camera, Bundler's observations are floating-point numbers.
#
# Guess: what WriteNVMFile() and WriteBundlerFiles() have written reads back with the same cameras, points and observations,
# to the digits in the file, and reprojects as before.
# Seen: the NVM file is right: the quaternions are those of the rotations from world to camera. Read back, each rotation
# is transposed, while the centres, points and observations are right; points are hundreds of pixels off. The Bundler
# files are right too; read back, cameras and points are right, and the observations have lost their fractions, towards
# the middle of the image: half a pixel on average, up to one in x and y. Nothing is said.
# What to do: transpose the rotations of NVM files; read Bundler's observations oneself.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pytheia==1.2.1 numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
from pathlib import Path

import numpy as np
from pytheia import io, sfm
from scipy.spatial.transform import Rotation

FOCAL, CENTRE = 800.0, [630.0, 490.0]
random = np.random.default_rng(0)
turns = {f'{index}.jpg': Rotation.from_rotvec(random.normal(size=3) * 0.2) for index in range(4)}
places = {name: random.normal(size=3) * 0.3 for name in turns}
made = sfm.Reconstruction()
for index, name in enumerate(turns):
    view = made.MutableView(made.AddView(name, index, float(index)))
    prior = sfm.CameraIntrinsicsPrior()
    prior.camera_intrinsics_model_type, prior.image_width, prior.image_height = 'PINHOLE', 1280, 960
    for field, value in (('focal_length', [FOCAL]), ('principal_point', CENTRE)):
        getattr(prior, field).value = value
        getattr(prior, field).is_set = True
    view.SetCameraIntrinsicsPrior(prior)
    camera = view.MutableCamera()
    camera.SetFromCameraIntrinsicsPriors(prior)
    camera.SetOrientationFromRotationMatrix(turns[name].as_matrix())
    camera.SetPosition(places[name])
    view.SetIsEstimated(True)
for _ in range(40):
    point = np.append(random.uniform(-1, 1, 3) * [1.5, 1, 1] + [0, 0, 6], 1.0)
    track = made.AddTrack()
    made.MutableTrack(track).SetPoint(point)
    made.MutableTrack(track).SetIsEstimated(True)
    for view in made.ViewIds():
        made.AddObservation(view, track, sfm.Feature(np.asarray(made.View(view).Camera().ProjectPoint(point)[1]).ravel()))


def check(name, got):
    """Return how far rotations (degrees) and centres (metres) are off, the observations read and exact, and the worst
    reprojection (pixels)."""
    angle, back, place, pixels, both = [], [], [], [], []
    for view in (got.View(index) for index in got.ViewIds()):
        camera, image = view.Camera(), view.Name()
        turn = Rotation.from_matrix(camera.GetOrientationAsRotationMatrix())
        angle.append(np.degrees((turn * turns[image].inv()).magnitude()))
        back.append(np.degrees((turn * turns[image]).magnitude()))
        place.append(np.abs(np.ravel(camera.GetPosition()) - places[image]).max())
        for track in view.TrackIds():
            point, feature = got.Track(track).Point(), np.ravel(view.GetFeature(track).point)
            about = [camera.PrincipalPointX(), camera.PrincipalPointY()]
            exact = FOCAL * (x := turns[image].apply(point[:3] / point[3] - places[image]))[:2] / x[2]
            pixels.append(np.linalg.norm(np.ravel(camera.ProjectPoint(point)[1]) - feature))
            both.append((feature - about, exact))
    given, exact = np.array(both).transpose(1, 0, 2)
    print(f'{name}: rotations up to {max(angle):.4f} degrees off ({max(back):.4f} if transposed), centres {max(place):.6f} m; '
          f'{len(pixels)} observations up to {np.abs(given - exact).max():.4f} pixels off; reprojected up to {max(pixels):.2f}')
    return max(angle), max(back), max(place), given, exact, max(pixels)


if not (io.WriteNVMFile('own.nvm', made) and io.WriteBundlerFiles(made, 'lists.txt', 'bundle.out')):
    raise SystemExit('not written')
in_file = 0
for line in Path('own.nvm').read_text().splitlines():
    fields = line.split()
    if fields and fields[0] in turns:
        quaternion, centre = np.array(fields[2:6], dtype=float), np.array(fields[6:9], dtype=float)
        in_file = max(in_file, (Rotation.from_quat(quaternion, scalar_first=True) * turns[fields[0]].inv()).magnitude(),
                      np.abs(centre - places[fields[0]]).max())
angle, back, place, given, exact, pixels = check('NVM', io.ImportNVMFile('own.nvm')[1])
as_seen = in_file < 1e-4 and angle > 10 and back < 0.01 and place < 1e-4 and np.abs(given - exact).max() < 0.02 and pixels > 100
angle, back, place, given, exact, pixels = check('Bundler', io.ReadBundlerFiles('lists.txt', 'bundle.out')[1])
as_seen &= angle < 0.01 and place < 1e-6 and np.array_equal(given, np.trunc(given)) and 0.5 < pixels < 1.5
as_seen &= (np.abs(given) <= np.abs(exact) + 1e-3).all()
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
