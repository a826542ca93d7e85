#!/usr/bin/env bash
# kappe 0.25.0 (converts MCAP recordings): euler_deg is not the roll, pitch, yaw of ROS, and any step on a point
# cloud takes the rows of an organised one away.
#
# Rotations of transforms and clouds are given as euler_deg, three angles, whose order its manual does not say.
#
# Guess: they are roll, pitch and yaw as in URDF, static_transform_publisher and tf2 (about the fixed axes x, y, z
# in turn), so that -90, 0, -90 is the rotation of every camera's optical frame. Renaming a field of an
# organised cloud changes the name alone. A time offset of nothing leaves stamps as they are.
# Seen: the angles are about the turned axes (x, then the new y, then the new z). An optical frame that
# is inserted with -90, 0, -90 looks along +y of its link instead of +x: to the left instead of ahead. Single
# angles are right, so it is not noticed at first. A cloud of 4 x 8 comes out as 1 x 32, with a rotation or only
# a renamed field: range images and normals by neighbours are gone. Stamps come back on a grid of 256 ns.
# Nothing is said.
# What to do: give quaternion (x, y, z, w).
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
  kappe==0.25.0 numpy==2.4.6 pointcloud2==0.6.0 mcap==1.6.0 mcap-ros2-support==0.6.0 lz4==4.4.5 \
  zstandard==0.25.0 pydantic==2.14.4 pydantic-core==2.50.5 annotated-types==0.8.0 \
  typing-extensions==4.16.0 typing-inspection==0.4.5
cd "$folder"
cat >probe.py <<'PYTHON'
from types import SimpleNamespace

import numpy as np
from kappe.module.pointcloud import SettingPointCloud, point_cloud
from kappe.module.tf import SettingTF, tf_static_insert
from kappe.module.timing import SettingTimeOffset, time_offset_stamp

ROWS, COLUMNS = 4, 8


def turn(axis, degrees):
    """Return the rotation about x, y or z."""
    first, second = [index for index in range(3) if index != axis]
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    matrix = np.eye(3)
    matrix[[first, second], [first, second]] = cosine
    sign = -1 if axis == 1 else 1
    matrix[first, second], matrix[second, first] = -sign * sine, sign * sine
    return matrix


def inserted(angles):
    """Return the rotation of a static transform that kappe inserts."""
    setting = SettingTF.model_validate({'insert': [{
        'frame_id': 'camera_link', 'child_frame_id': 'camera_optical_frame', 'rotation': {'euler_deg': angles}}]})
    rotation = tf_static_insert(setting, 0)['transforms'][0]['transform']['rotation']
    x, y, z, w = (rotation[name] for name in 'xyzw')
    return np.array([[1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                     [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                     [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]])


def cloud():
    points = np.zeros((ROWS, COLUMNS), [(name, '<f4') for name in ('x', 'y', 'z', 'i')])
    points['x'] = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    fields = [SimpleNamespace(name=name, offset=4 * index, datatype=7, count=1)
              for index, name in enumerate(points.dtype.names)]
    return SimpleNamespace(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=2), frame_id='lidar'), height=ROWS,
        width=COLUMNS, fields=fields, is_bigendian=False, point_step=16, row_step=16 * COLUMNS,
        data=points.tobytes(), is_dense=True)


as_seen = True
for angles in (-90, 0, 0), (0, 0, -90), (-90, 0, -90):
    roll, pitch, yaw = (turn(axis, angle) for axis, angle in enumerate(angles))
    found = inserted(list(angles))
    off = [np.abs(found - rotation).max() for rotation in (yaw @ pitch @ roll, roll @ pitch @ yaw)]
    print(f'{angles}: looks along {np.round(found[:, 2]).astype(int) + 0}, as roll, pitch, yaw '
          f'{np.round((yaw @ pitch @ roll)[:, 2]).astype(int) + 0}')
    as_seen &= bool(off[1] < 1e-9 and (off[0] > 0.9) == (angles == (-90, 0, -90)))

message = cloud()
point_cloud(SettingPointCloud(field_mapping={'i': 'intensity'}), SimpleNamespace(decoded_message=message))
print(f'a cloud of {ROWS} x {COLUMNS} with a renamed field: {message.height} x {message.width}')
as_seen &= (message.height, message.width) == (1, ROWS * COLUMNS)

stamp = SimpleNamespace(sec=1_700_000_000, nanosec=123_456_789)
time_offset_stamp(SettingTimeOffset(), SimpleNamespace(publish_time=0, log_time=0), stamp)
print(f'stamp 123456789 ns: {stamp.nanosec} ns')
as_seen &= stamp.nanosec == 123_456_768
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
