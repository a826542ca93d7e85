#!/usr/bin/env bash
# pureini 0.10.0 (clouds in the Cloudini format, PyPI): lossy coordinates beyond 2**31 resolutions come back as 2**31 resolutions.
#
# In lossy mode a coordinate is rounded to a multiple of its field's resolution: the error is half of it.
#
# Guess: x, y, z (float32, resolution 1 mm) come back within half the resolution and float32's own, whatever their size.
# Seen: so it is up to 2,147 km. A northing of 5,300 km, as in UTM, comes back as 2,147,483.6 m in every point: the cloud is a
# line. With a resolution of 0.1 mm an easting of 500 km is 214,748.4. Nothing is raised. The same coordinate as the
# only field, and as float64, is right.
# What to do: subtract an offset before encoding, or give such clouds as float64.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pureini==0.10.0 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
import pureini

TYPES = {'<f4': pureini.FieldType.FLOAT32, '<f8': pureini.FieldType.FLOAT64}


def there_and_back(cloud, resolution):
    """Encode a structured array with this resolution of its floats and decode it."""
    kinds = {name: cloud.dtype.fields[name] for name in cloud.dtype.names}
    fields = [pureini.PointField(name=name, offset=offset, type=TYPES[kind.str], resolution=resolution)
              for name, (kind, offset) in kinds.items()]
    info = pureini.EncodingInfo(fields=fields, width=len(cloud), height=1, point_step=cloud.dtype.itemsize,
                                encoding_opt=pureini.EncodingOptions.LOSSY, compression_opt=pureini.CompressionOption.ZSTD)
    decoded, _ = pureini.PointcloudDecoder().decode(pureini.PointcloudEncoder(info).encode(cloud.tobytes()))
    return np.frombuffer(decoded, cloud.dtype)


def cloud(size, kind='<f4', names='xyz'):
    """Make 64 points along x from this coordinate in metres; y is its negative."""
    points = np.zeros(64, [(name, kind) for name in names])
    for name in names:
        points[name] = {'x': size + np.arange(64), 'y': -size - np.arange(64), 'z': 3}[name]
    return points


def off(points, resolution):
    back = there_and_back(points, resolution)
    return max(float(np.abs(points[name].astype(float) - back[name]).max()) for name in points.dtype.names)


as_seen = True
for size, resolution in ((1e3, 0.001), (2e6, 0.001), (5.3e6, 0.001), (500e3, 0.0001)):
    points = cloud(size)
    back = there_and_back(points, resolution)
    double = off(cloud(size, '<f8'), resolution)
    alone = off(cloud(size, names='x'), resolution)
    print(f'{size:,.0f} m, resolution {resolution}: x off by {off(points, resolution):,.4f}, different values {len(set(back["x"]))},',
          f'first {back["x"][0]:,.1f}; as float64 {double:.4f}, x as only field {alone:.3f}')
    beyond = size / resolution > 2**31
    as_seen &= double <= resolution and alone <= 0.5
    as_seen &= (len(set(back['x'])) == 1 and abs(back['x'][0] / resolution / 2**31 - 1) < 1e-6) == beyond
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
