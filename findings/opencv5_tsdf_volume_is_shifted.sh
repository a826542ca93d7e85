#!/usr/bin/env bash
# OpenCV 5.0.0: what cv2.Volume gives of a scene is shifted by half a voxel or by a whole one, along
# the axes of the volume, and raycast() and fetchPointsNormals() do not agree.
#
# cv2.Volume fuses depth images of known poses into a truncated signed distance field, whose surface
# lies between the voxels: planes come out far more exactly than a voxel.
#
# Guess: of a plane, raycast() and fetchPointsNormals() both give points on the plane, within a tenth
# of a voxel, with the volume TSDF as with HashTSDF.
# Seen: TSDF fetches points shifted by (+0.5, +0.5, -0.5) voxels and casts rays onto a surface
# shifted by (0, 0, -1); HashTSDF fetches them shifted by about (0, 0, -1) and casts rays with
# (+0.5, +0.5, -0.5). That is in the axes of the volume, the same for a camera that looks along +z
# and along -z: with OpenCV's voxels of 23 mm a wall at 1.20 m is at 1.177 m from one side and as
# much too far from the other. Surfaces agree with each other; the model as a whole is displaced.
# What to do: subtract the shift, in voxels, from what one of the two calls returns.
#
# The shift is what fits the offsets of ten planes best (five normals, two distances) for each voxel
# size. 5.1.0 (opencv-contrib-python 5.1.0.95) does the same.
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
import cv2
import numpy as np

cv2.setNumThreads(1)
WIDTH, HEIGHT, FOCAL = 160, 120, 120
K = np.array([[FOCAL, 0, 79.5], [0, FOCAL, 59.5], [0, 0, 1]], np.float32)
v, u = np.mgrid[:HEIGHT, :WIDTH]
RAYS = np.dstack([(u - 79.5) / FOCAL, (v - 59.5) / FOCAL, np.ones((HEIGHT, WIDTH))])
NORMALS = np.array([[0, 0, -1], [0.5, 0, -1], [-0.5, 0, -1], [0, 0.5, -1], [0, -0.5, -1]])
NORMALS /= np.linalg.norm(NORMALS, axis=1, keepdims=True)


def volume(kind, voxel):
    settings = cv2.VolumeSettings(kind)
    settings.setDepthFactor(1)
    settings.setVoxelSize(voxel)
    settings.setTsdfTruncateDistance(3 * voxel)
    for use in 'Integrate', 'Raycast':
        getattr(settings, f'setCamera{use}Intrinsics')(K)
        getattr(settings, f'set{use}Width')(WIDTH)
        getattr(settings, f'set{use}Height')(HEIGHT)
    return cv2.Volume(kind, settings)


def shifts(kind, voxel, volume_from_camera):
    """Return the shifts of fetched points and of rays, in voxels and the volume's axes."""
    rotation, centre = volume_from_camera[:3, :3], volume_from_camera[:3, 3]
    normals, offsets = [], []
    for distance in 1.2, 1.307:
        for normal in NORMALS:
            along = distance * normal[2]  # normal @ point, in the camera's frame
            depth = (along / (RAYS @ normal)).astype(np.float32)
            fused = volume(kind, voxel)
            for _ in range(3):
                fused.integrate(depth, volume_from_camera)
            fetched = fused.fetchPointsNormals()[0].reshape(-1, 4)[:, :3]
            cast = fused.raycast(volume_from_camera)[0].reshape(-1, 4)[:, :3]
            cast = cast[np.isfinite(cast).all(1)] @ rotation.T + centre
            normals.append(rotation @ normal)
            offsets.append([np.median(points @ normals[-1]) - (along + normals[-1] @ centre)
                            for points in (fetched, cast)])
    fit, *_ = np.linalg.lstsq(np.array(normals), np.array(offsets) / voxel, rcond=None)
    return fit.T


forwards = np.eye(4, dtype=np.float32)
backwards = np.diag([-1, 1, -1, 1]).astype(np.float32)
backwards[2, 3] = 2.5
print('OpenCV', cv2.__version__)
as_seen = True
half, whole = np.array([0.5, 0.5, -0.5]), np.array([0, 0, -1])
for name, wanted in (('TSDF', (half, whole)), ('HashTSDF', (whole, half))):
    kind = getattr(cv2, f'VolumeType_{name}')
    for voxel in 0.02, 0.03:
        for looks, pose in ('+z', forwards), ('-z', backwards):
            found = shifts(kind, voxel, pose)
            print(f'{name}, voxels of {voxel} m, camera looks along {looks}: shifts in voxels of '
                  'fetched points', found[0].round(2) + 0.0, 'of rays', found[1].round(2) + 0.0)
            as_seen &= bool(np.abs(found - wanted).max() < 0.25)
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
