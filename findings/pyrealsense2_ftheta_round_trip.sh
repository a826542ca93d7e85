#!/usr/bin/env bash
# pyrealsense2 2.59.1: for the lens model F-theta, deprojecting a pixel is not the inverse of
# projecting it; for modified Brown-Conrady the lens is left out of deprojection without a word.
#
# Guess: rs2_project_point_to_pixel(rs2_deproject_pixel_to_point(pixel)) is the pixel, to a
# hundredth, for every lens model that the two functions take.
# Seen: so for none, Brown-Conrady, inverse Brown-Conrady and Kannala-Brandt. F-theta (one
# coefficient, the field-of-view model: r_d = atan(2 r tan(w / 2)) / w) projects by that formula, but
# deprojects to tan(w r_d) / atan(2 tan(w / 2)) where its inverse has tan(w r_d) / (2 tan(w / 2)): at
# w = 0.9 points come out a quarter too far from the axis, 72 pixels in the corner of 640x480. For
# modified Brown-Conrady the documentation says that deprojection is not supported; the call returns
# the point of a camera without a lens (14 pixels here).
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  pyrealsense2==2.59.1.11053 numpy==2.4.6 libusb-package==1.0.26.3
cd "$folder"
# The wheel wants the system's libusb; no device is touched here.
ln -s "$(find venv -name 'libusb-1.0*.so*' | head -n 1)" libusb-1.0.so.0
cat >probe.py <<'PYTHON'
import numpy as np
import pyrealsense2 as rs


def error(model, coefficients):
    lens = rs.intrinsics()
    lens.width, lens.height, lens.fx, lens.fy, lens.ppx, lens.ppy = 640, 480, 600, 600, 320, 240
    lens.model, lens.coeffs = model, coefficients
    errors = []
    for u in (20., 200., 320., 500., 620.):
        for v in (20., 120., 240., 400., 460.):
            point = rs.rs2_deproject_pixel_to_point(lens, [u, v], 2.)
            errors.append(np.hypot(*np.subtract(rs.rs2_project_point_to_pixel(lens, point),
                                                (u, v))))
    return float(max(errors))


plain = [0.1, -0.05, 0.002, -0.003, 0.01]
worst = {name: error(model, [0.9, 0, 0, 0, 0] if name == 'ftheta' else plain)
         for name, model in rs.distortion.__members__.items()}
for name, pixels in worst.items():
    print(f'{name:24} {pixels:.4f} px')
lens = rs.intrinsics()
lens.width, lens.height, lens.fx, lens.fy, lens.ppx, lens.ppy = 640, 480, 600, 600, 320, 240
lens.model, lens.coeffs = rs.distortion.ftheta, [0.9, 0, 0, 0, 0]
x = rs.rs2_deproject_pixel_to_point(lens, [620., 240.], 1.)[0]
inverse = np.tan(0.9 * 0.5) / (2 * np.tan(0.45))
other = np.tan(0.9 * 0.5) / np.arctan(2 * np.tan(0.45))
print(f'F-theta, half a focal length off the axis: x {x:.4f}, inverse {inverse:.4f}, '
      f'with the arc tangent {other:.4f}')
broken = worst.pop('ftheta'), worst.pop('modified_brown_conrady')
raise SystemExit(not (broken[0] > 60 and broken[1] > 10 and max(worst.values()) < 0.01
                      and abs(x - other) < 1e-3 < abs(x - inverse)))
PYTHON
LD_LIBRARY_PATH=$folder venv/bin/python probe.py
