#!/usr/bin/env bash
# pointcloudkit 0.1.0 (Python, reads and writes point clouds): in a PCD with colours as floats all points with much red are
# black; in a LAS the darkest colours come out bright.
#
# PCD keeps a colour as the bytes of 0xAARRGGBB, in a field `rgb` of type F or U. LAS has 16 bits for each of
# red, green and blue.
#
# Guess: a point's colour is its colour, to the 8 bits that pointcloudkit keeps.
# Seen: with type F and an alpha of 255 half of all points are black, (0, 0, 0): those with red of 128 and more, whose
# bits make a NaN, which the reader replaces by 0. PCL (pcl.js 1.16.0) and pypcd4 1.5.1 read the same file right.
# With type U, or an alpha of 0, it is right. From a LAS every value up to 255 of 65535, which is black, is taken for
# 8 bits: a ramp from black to white begins with values up to 255 of 255, and a shadow (200, 600, 1000) is
# (200, 2, 3), bright red.
# What to do: PCD with type U (PCL writes that now), PLY instead; divide a LAS's colours by 256 with laspy.
#
# Exit 0: it is so. Exit 1: it has changed. Needs Node.js.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pointcloudkit==0.1.0 pypcd4==1.5.1 laspy==2.7.0 \
  numpy==2.4.6
cd "$folder"
npm install --silent --no-audit --no-fund pcl.js@1.16.0
cat >by_pcl.cjs <<'JAVASCRIPT'
const fs = require('fs');
const PCL = require('pcl.js');

PCL.init().then(() => {
  const cloud = PCL.loadPCDData(new Uint8Array(fs.readFileSync(process.argv[2])), PCL.PointXYZRGB);
  for (let index = 0; index < cloud.size; index++) {
    const {r, g, b} = cloud.points.get(index);
    console.log(r, g, b);
  }
});
JAVASCRIPT
cat >probe.py <<'PYTHON'
import subprocess

import laspy
import numpy as np
import pypcd4
from pointcloudkit import PointCloud

POINTS = 400
random = np.random.default_rng(0)
colours = random.integers(0, 256, (POINTS, 3), dtype=np.uint8)
places = random.normal(size=(POINTS, 3)).astype('f4')
as_seen = True

for kind in 'FU':
    for alpha in 0, 255:
        table = np.zeros(POINTS, [('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('rgb', '<u4')])
        table['x'], table['y'], table['z'] = places.T
        table['rgb'] = alpha << 24 | colours.astype('u4') @ np.array([1 << 16, 1 << 8, 1], 'u4')
        header = (f'VERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F {kind}\nCOUNT 1 1 1 1\nWIDTH {POINTS}\n'
                  f'HEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {POINTS}\nDATA binary\n')
        with open('cloud.pcd', 'wb') as file:
            file.write(header.encode() + table.tobytes())
        mine = PointCloud.read('cloud.pcd')
        assert (mine.position == places).all()
        black = ~mine.rgb.any(1)
        seen = subprocess.run(['node', 'by_pcl.cjs', 'cloud.pcd'], check=True, capture_output=True, text=True).stdout
        pcl = np.array(seen.split(), int).reshape(-1, 3)
        cloud = pypcd4.PointCloud.from_path('cloud.pcd')
        packed = np.ascontiguousarray(cloud.pc_data['rgb'])
        other = pypcd4.PointCloud.decode_rgb(packed)
        print(f'PCD, type {kind}, alpha {alpha}: {black.sum()} of {POINTS} points black, '
              f'{(mine.rgb != colours).any(1).sum()} wrong; PCL {(pcl != colours).sum()} wrong, '
              f'pypcd4 {(other != colours).sum()}; {(colours[:, 0] > 127).sum()} points have a red of 128 and more')
        as_seen &= (pcl == colours).all() and (other == colours).all()
        if kind == 'F' and alpha:
            as_seen &= (black == (colours[:, 0] > 127)).all() and (mine.rgb[~black] == colours[~black]).all()
        else:
            as_seen &= (mine.rgb == colours).all()

ramp = np.arange(0, 65536, 50)
las = laspy.LasData(laspy.LasHeader(point_format=2, version='1.2'))
las.x, las.y, las.z = np.zeros((3, len(ramp) + 1))
shadow = 200, 600, 1000
las.red, las.green, las.blue = (np.append(ramp, value).astype('u2') for value in shadow)
las.write('cloud.las')
grey = PointCloud.read('cloud.las').rgb
print('LAS, 16 bits:', ramp[:9], 'is, of 255,', grey[:9, 0], '; the shadow', shadow, 'is', grey[-1])
as_seen &= (grey[:6, 0] == ramp[:6]).all() and (grey[6:-1, 0] == ramp[6:] >> 8).all()
as_seen &= tuple(grey[-1]) == (200, 2, 3)
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
