#!/usr/bin/env bash
# pcdkit 0.2.14 and pypointcloud 0.1.0 (Python): clouds in binary_compressed PCD files are scrambled, one writes and the
# other reads them point by point.
#
# Before it is compressed, such a file's data is put in order field by field: all x, all y, all z (PCL's
# documentation of the format). pcl::io::savePCDFileBinaryCompressed and Open3D write it so.
#
# Guess: what pcdkit saves in any of the three encodings is what it, pypcd4 and pypointcloud load; pypointcloud loads
# what pypcd4 saves.
# Seen: ascii and binary are right. pcdkit loads compressed files of pypcd4 rightly, but saves them point by point:
# of its own file it loads the y of the first point as the x of the second one, times and colours as garbage
# of any size, and so does pypcd4. pypointcloud reads point by point: pcdkit's files come out right, those of all
# others as garbage. Nothing is raised; the number of points is right.
# What to do: binary, or pypcd4.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  pcdkit==0.2.14 pypointcloud==0.1.0 pypcd4==1.5.1 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
import pcdkit
import pypcd4
import pypointcloud

FIELDS = {'x': 'f4', 'y': 'f4', 'z': 'f4', 'rgb': 'u4', 'time': 'f8'}
random = np.random.default_rng(0)
cloud = np.zeros(40, list(FIELDS.items()))
for axis in 'xyz':
    cloud[axis] = random.normal(size=len(cloud))
cloud['rgb'] = random.integers(0, 1 << 24, len(cloud))
cloud['time'] = 1790000000 + 0.1 * np.arange(len(cloud))


def save_pcdkit(encoding):
    pcdkit.from_array(cloud.copy()).save('cloud.pcd', format=encoding)


def save_pypcd4(encoding):
    points = pypcd4.PointCloud.from_points([cloud[name] for name in FIELDS], tuple(FIELDS),
                                           tuple(np.dtype(kind).type for kind in FIELDS.values()))
    points.save('cloud.pcd', encoding=pypcd4.Encoding(encoding))


def load_pcdkit():
    return pcdkit.load_pcd_from_path('cloud.pcd').pc_data


def load_pypcd4():
    return pypcd4.PointCloud.from_path('cloud.pcd').pc_data


def load_pypointcloud():
    places, others = pypointcloud.load_pcd('cloud.pcd')
    return {**dict(zip('xyz', places.T)), **others}


def right(found):
    return all(np.allclose(found[name], cloud[name], rtol=1e-5, atol=1e-5) for name in FIELDS)


LOADS = {'pcdkit': load_pcdkit, 'pypcd4': load_pypcd4, 'pypointcloud': load_pypointcloud}
as_seen = True
for writer, save in {'pcdkit': save_pcdkit, 'pypcd4': save_pypcd4}.items():
    for encoding in 'ascii', 'binary', 'binary_compressed':
        save(encoding)
        for reader, load in LOADS.items():
            found = load()
            fits = right(found)
            print(f'{writer} -> {encoding} -> {reader}:', 'right' if fits else
                  f"x {found['x'][:3]} for {cloud['x'][:3]}")
            by_points = (writer == 'pcdkit', reader == 'pypointcloud')
            as_seen &= fits == (encoding != 'binary_compressed' or by_points[0] == by_points[1])
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
