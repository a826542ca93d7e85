#!/usr/bin/env bash
# pointcloudset 0.14.0 (series of point clouds from bags, PyPI): points of a bag with any coordinate of exactly 0 are left
# out by default, so planar scans come out empty; fields listed in another order than they lie in change places.
#
# LiDARs give (0, 0, 0) for no return, and keep_zeros=False, the default, leaves zeros out of frames. A PointField's offset
# says where the field lies (sensor_msgs); nothing is said about the order that they are listed in.
#
# Guess: what is written to a bag as PointCloud2 comes back: all points with a return, x as x and z as z.
# Seen: of a laser scanner's 181 points 3 m away with z = 0, as laser_geometry makes them, none comes back; half a metre
# higher and a millimetre aside all do. With z listed before y and x, x and z come back interchanged, up to 2.5 m off. Nothing is said, and
# a Dataset of empty frames is as long as one of full ones.
# What to do: keep_zeros=True, and leave out the points at the origin oneself; list fields in the order of their offsets.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pointcloudset==0.14.0 rosbags==0.9.23 numpy==2.4.6 \
  pandas==3.1.1 dask==2026.8.0
cd "$folder"
cat >probe.py <<'PYTHON'
from pathlib import Path

import numpy as np
from pointcloudset import Dataset
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore

store = get_typestore(Stores.ROS2_HUMBLE)
types = store.types
OFFSETS = {'x': 0, 'y': 4, 'z': 8, 'intensity': 12}


def message(points, order):
    """Return a PointCloud2 of (N, 3) points with its fields listed in an order."""
    data = np.column_stack([points, np.arange(len(points))]).astype('<f4')
    fields = [types['sensor_msgs/msg/PointField'](name=name, offset=OFFSETS[name], datatype=7, count=1) for name in order]
    stamp = types['builtin_interfaces/msg/Time'](sec=1, nanosec=0)
    return types['sensor_msgs/msg/PointCloud2'](
        header=types['std_msgs/msg/Header'](stamp=stamp, frame_id='laser'), height=1, width=len(points), fields=fields,
        is_bigendian=False, point_step=16, row_step=16 * len(points), data=data.view(np.uint8).ravel(), is_dense=True)


angles = np.radians(np.arange(-90, 91))
flat = np.column_stack([3 * np.cos(angles), 3 * np.sin(angles), np.zeros(181)])
lifted = flat + [0.001, 0.001, 0.5]
usual, other = ('x', 'y', 'z', 'intensity'), ('z', 'y', 'x', 'intensity')
clouds = {'/flat': (flat, usual), '/lifted': (lifted, usual), '/other': (lifted, other)}
with Writer('bag') as writer:
    for topic, (points, order) in clouds.items():
        connection = writer.add_connection(topic, 'sensor_msgs/msg/PointCloud2', typestore=store)
        for second in (1, 2):
            raw = store.serialize_cdr(message(points, order), 'sensor_msgs/msg/PointCloud2')
            writer.write(connection, second * 1_000_000_000, raw)

found = {}
for topic, (points, _) in clouds.items():
    for keep in (False, True):
        frames = Dataset.from_file(Path('bag'), topic=topic, keep_zeros=keep)
        places = frames[0].data[['x', 'y', 'z']].to_numpy()
        whole = len(places) == len(points)
        off = np.abs(places - points).max() if whole else np.nan
        turned = whole and np.allclose(places[:, ::-1], points, atol=1e-5)
        found[topic, keep] = len(places), off, turned
        print(f'{topic}, keep_zeros={keep}: {len(frames)} frames, {len(places)} of {len(points)} points, up to {off:.3f} m '
              f'off{", x and z interchanged" if turned else ""}')
as_seen = found['/flat', False][0] == 0 and all(found[topic, True][0] == 181 for topic in clouds)
as_seen &= max(found['/flat', True][1], found['/lifted', False][1], found['/lifted', True][1]) < 1e-5
as_seen &= found['/other', False][1] > 2 and found['/other', False][2] and found['/other', True][2]
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py | grep keep_zeros
