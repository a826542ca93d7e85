#!/usr/bin/env bash
# pyorbbecsdk2 2.1.2 (Orbbec SDK 2.9.3): projecting a point leaves the lens out for every model but
# plain Brown-Conrady, among them the one that the SDK gives for Femto cameras.
#
# transformation3dto2d and transformation2dto2d take a camera's intrinsics and its distortion, with the
# model in it, as the SDK gives them for a stream. No device is needed for the arithmetic.
#
# Guess: transformation3dto2d is the projection of the model that is given, to a hundredth of a pixel,
# or it says that it does not support it; transformation2dto2d from a camera to itself is the identity.
# Seen: so for BROWN_CONRADY. For BROWN_CONRADY_K6 (k1 to k6, a rational polynomial) and KANNALA_BRANDT4
# the pixel is that of a camera without a lens: with coefficients as a wide depth camera has them 61
# pixels off at 38 degrees, 53 for the fish-eye. transformation2dto2d undistorts K6 rightly, then does not
# distort: a camera mapped to itself moves pixels by 61. For KANNALA_BRANDT4 it undistorts by the formula
# of Brown-Conrady. INVERSE_ and MODIFIED_BROWN_CONRADY project without a lens too. Nothing is raised.
# What to do: cv2.projectPoints (K6: k1, k2, p1, p2, k3, k4, k5, k6) or cv2.fisheye.projectPoints.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
# Without what it names for its examples (Open3D, Jupyter, pygame).
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
  pyorbbecsdk2==2.1.2 numpy==1.26.4
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
import pyorbbecsdk as orbbec

FOCAL, CX, CY = 505., 320., 288.
BROWN = {'k1': 0.1, 'k2': -0.05, 'k3': 0.01, 'p1': 0.002, 'p2': -0.003}
RATIONAL = {'k1': 4., 'k2': 2.4, 'k3': 0.12, 'k4': 4.33, 'k5': 3.7, 'k6': 0.65, 'p1': 1e-4, 'p2': -1e-4}
FISHEYE = {'k1': 0.05, 'k2': -0.01, 'k3': 0.003, 'k4': -0.001}
POINTS = ((-0.5, -0.45), (0.3, 0.2), (0.55, -0.4), (0.1, 0.5), (-0.6, 0.5))


def brown(x, y, k):
    r2 = x * x + y * y
    f = 1 + r2 * (k['k1'] + r2 * (k['k2'] + r2 * k['k3']))
    f /= 1 + r2 * (k.get('k4', 0) + r2 * (k.get('k5', 0) + r2 * k.get('k6', 0)))
    return (x * f + 2 * k['p1'] * x * y + k['p2'] * (r2 + 2 * x * x),
            y * f + 2 * k['p2'] * x * y + k['p1'] * (r2 + 2 * y * y))


def fisheye(x, y, k):
    r = np.hypot(x, y)
    t = np.arctan(r)
    f = t * (1 + k['k1'] * t**2 + k['k2'] * t**4 + k['k3'] * t**6 + k['k4'] * t**8) / r
    return x * f, y * f


def errors(model, formula, k):
    """Return how far off 3D to 2D is, and 2D to 2D onto the camera itself, in pixels."""
    camera = orbbec.OBCameraIntrinsic()
    camera.fx, camera.fy, camera.cx, camera.cy = FOCAL, FOCAL, CX, CY
    camera.width, camera.height = 640, 576
    lens = orbbec.OBCameraDistortion()
    lens.model = getattr(orbbec.OBCameraDistortionModel, model)
    for name, value in k.items():
        setattr(lens, name, value)
    here = orbbec.OBExtrinsic()
    here.rot, here.transform = np.eye(3, dtype=np.float32), np.zeros(3, np.float32)
    projected, itself, left_out = [], [], []
    for x, y in POINTS:
        u, v = (FOCAL * a + c for a, c in zip(formula(x, y, k), (CX, CY)))
        p = orbbec.transformation3dto2d(orbbec.OBPoint3f(2000 * x, 2000 * y, 2000), camera, lens, here)
        q = orbbec.transformation2dto2d(orbbec.OBPoint2f(u, v), 2000, camera, lens, camera, lens, here)
        projected.append(np.hypot(p.x - u, p.y - v))
        itself.append(np.hypot(q.x - u, q.y - v))
        left_out.append(np.hypot(p.x - FOCAL * x - CX, p.y - FOCAL * y - CY))
    return max(projected), max(itself), max(left_out)


print('pixels off:              3D to 2D  2D to 2D, itself  3D to 2D from a camera without a lens')
seen = {}
for model, formula, k in (('BROWN_CONRADY', brown, BROWN), ('BROWN_CONRADY_K6', brown, RATIONAL),
                          ('KANNALA_BRANDT4', fisheye, FISHEYE),
                          ('INVERSE_BROWN_CONRADY', brown, BROWN),
                          ('MODIFIED_BROWN_CONRADY', brown, BROWN)):
    seen[model] = errors(model, formula, k)
    print(f'{model:24} {seen[model][0]:8.3f} {seen[model][1]:17.3f} {seen[model][2]:15.3f}')
print('(for the last two by the formula of Brown-Conrady: only the last column counts)')
right = seen.pop('BROWN_CONRADY')
k6, kb = seen['BROWN_CONRADY_K6'], seen['KANNALA_BRANDT4']
raise SystemExit(not (max(right[:2]) < 0.05 and k6[0] > 40 and k6[1] > 40 and kb[0] > 30 and kb[1] > 3
                      and max(values[2] for values in seen.values()) < 0.01))
PYTHON
venv/bin/python probe.py
