#!/usr/bin/env bash
# pypcd4 1.5.1 (Python): fields of several values, as descriptors, are scrambled between it and PCL in
# binary_compressed PCD files, in both directions.
#
# binary_compressed holds field by field: of a field with COUNT 33 (FPFH) all 33 values of the first point, then
# those of the second, as PCL writes and reads it.
#
# Guess: descriptors that PCL has written are read to the same values, in each of the three encodings, and those
# that pypcd4 writes are read by PCL.
# Seen: in binary_compressed the first values of all points come first, then the second ones: of four points,
# numbered 0 to 131, the first one's descriptor reads 0 4 8 12 ..., and PCL reads 0 33 66 99 from pypcd4's file.
# No error; what pypcd4 has written it reads itself. ascii and binary are right, and so are fields of
# one value (coordinates, colours). pcdkit 0.2.14 (not run here) reads them as pypcd4 does.
# What to do: save descriptors as binary. PCL here is pcl.js 1.16.0, which is PCL 1.13.0 in WebAssembly.
#
# Exit 0: it is so. Exit 1: it has changed. Needs Node.js.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
  pypcd4==1.5.1 numpy==2.4.6 python-neo-lzf==0.3.5 pydantic==2.14.4 pydantic-core==2.50.5 \
  annotated-types==0.8.0 typing-extensions==4.16.0 typing-inspection==0.4.5
cd "$folder"
npm install --silent --no-audit --no-fund pcl.js@1.16.0
cat >write.py <<'PYTHON'
import numpy as np

HEADER = """# .PCD v0.7 - Point Cloud Data file format
VERSION 0.7
FIELDS fpfh
SIZE 4
TYPE F
COUNT 33
WIDTH 4
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS 4
DATA ascii
"""
with open('source.pcd', 'w', encoding='ascii') as file:
    file.write(HEADER)
    np.savetxt(file, np.arange(4 * 33).reshape(4, 33), fmt='%d')
PYTHON
cat >pcl.cjs <<'JAVASCRIPT'
const fs = require('fs');
const PCL = require('pcl.js');

const [, , mode, ...names] = process.argv;

function load(name) {
  const data = fs.readFileSync(name);
  return PCL.loadPCDData(data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength),
    PCL.FPFHSignature33);
}

PCL.init().then(() => {
  if (mode === 'write') {
    const cloud = load('source.pcd');
    fs.writeFileSync('pcl_ascii.pcd', Buffer.from(PCL.savePCDDataASCII(cloud)));
    fs.writeFileSync('pcl_binary.pcd', Buffer.from(PCL.savePCDDataBinary(cloud)));
    fs.writeFileSync('pcl_binary_compressed.pcd', Buffer.from(PCL.savePCDDataBinaryCompressed(cloud)));
  } else {
    const read = {};
    for (const name of names) {
      const {size, points} = load(name);
      read[name] = Array.from({length: size}, (_, index) => Array.from(points.get(index).histogram));
    }
    fs.writeFileSync('read.json', JSON.stringify(read));
  }
  process.exit(0);
});
JAVASCRIPT
cat >probe.py <<'PYTHON'
import json
import subprocess

import numpy as np
from pypcd4 import Encoding, PointCloud

ENCODINGS = 'ascii', 'binary', 'binary_compressed'
wanted = np.arange(4 * 33.).reshape(4, 33)


def values(cloud):
    return np.array([[float(value) for value in point] for point in cloud.pc_data])


cloud = PointCloud.from_path('source.pcd')
assert np.array_equal(values(cloud), wanted)
for encoding in ENCODINGS:
    cloud.save(f'python_{encoding}.pcd', encoding=Encoding(encoding))
names = [f'{by}_{encoding}.pcd' for by in ('pcl', 'python') for encoding in ENCODINGS]
subprocess.run(['node', 'pcl.cjs', 'read', *names], check=True)
with open('read.json', encoding='utf-8') as file:
    by_pcl = {name: np.array(points) for name, points in json.load(file).items()}
as_seen = True
for name in names:
    by_python = values(PointCloud.from_path(name))
    right = [np.array_equal(read, wanted) for read in (by_pcl[name], by_python)]
    print(f'{name}: PCL reads {by_pcl[name][0, :4].astype(int)}, pypcd4 {by_python[0, :4].astype(int)}')
    own = name.startswith('python')
    as_seen &= right == ([not own, own] if 'compressed' in name else [True, True])
raise SystemExit(not as_seen)
PYTHON
venv/bin/python write.py
node pcl.cjs write 2>&1 | cut -c 1-300
venv/bin/python probe.py 2>&1 | cut -c 1-300
