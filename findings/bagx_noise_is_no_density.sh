#!/usr/bin/env bash
# bagx 0.6.0 (checks ROS 2 bags before SLAM, PyPI): the noise density that it advises and writes for FAST-LIO is the standard
# deviation of the samples, and topics that are exactly in step have a "sync delay" of 25 ms.
#
# A density is per root hertz: that of a sensor does not depend on the rate at which it is recorded (IEEE 952, Kalibr).
#
# Guess: of an IMU at rest with white noise of 0.002 m/s²/√Hz and 0.0002 rad/s/√Hz it advises these, whatever its rate; of
# clouds that each have an IMU sample at their very stamp the delay is 0.
# Seen: "set imu_acc_noise_density to" 0.0283 at 200 Hz and 0.0141 at 50 Hz: √200 and √50 times the density, though the
# table above it has the Allan deviation (0.0019 and 0.0015 m/s/√s). The delay is the mean of the time from each
# IMU sample to the nearest cloud, 25 ms for any clouds at 10 Hz, and "enable per-point deskew" is advised for it.
# What to do: take the Allan rows, or divide by the root of the rate; compare clouds with the IMU, not the other way.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check bagx==0.6.0 rosbags==0.11.9 numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
import re
import subprocess
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

store = get_typestore(Stores.ROS2_HUMBLE)
Header, Time, Imu, Quaternion, Vector3, PointCloud2, PointField = (store.types[name] for name in (
    'std_msgs/msg/Header', 'builtin_interfaces/msg/Time', 'sensor_msgs/msg/Imu', 'geometry_msgs/msg/Quaternion',
    'geometry_msgs/msg/Vector3', 'sensor_msgs/msg/PointCloud2', 'sensor_msgs/msg/PointField'))
DENSITY, GYRO_DENSITY, SECONDS, START = 0.002, 0.0002, 60, 1_700_000_000_000_000_000


def write(path, rate):
    """Write a level IMU at rest at this rate in hertz, and clouds at 10 Hz at stamps of IMU samples."""
    random, still = np.random.default_rng(0), np.zeros(9)
    fields = [PointField(name, 4 * place, 7, 1) for place, name in enumerate('xyz')]
    with Writer(Path(path), version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        imu = writer.add_connection('/imu', Imu.__msgtype__, typestore=store)
        points = writer.add_connection('/points', PointCloud2.__msgtype__, typestore=store)
        for sample in range(rate * SECONDS):
            stamp = START + sample * 1_000_000_000 // rate
            header = Header(Time(stamp // 10**9, stamp % 10**9), 'sensor')
            turn = random.normal(0, GYRO_DENSITY * np.sqrt(rate), 3)
            force = random.normal(0, DENSITY * np.sqrt(rate), 3) + [0, 0, 9.81]
            message = Imu(header, Quaternion(0.0, 0.0, 0.0, 1.0), still, Vector3(*map(float, turn)), still,
                          Vector3(*map(float, force)), still)
            writer.write(imu, stamp, store.serialize_cdr(message, Imu.__msgtype__))
            if sample % (rate // 10) == 0:
                cloud = PointCloud2(header, 1, 10, fields, False, 12, 120, np.zeros(120, np.uint8), True)
                writer.write(points, stamp, store.serialize_cdr(cloud, PointCloud2.__msgtype__))


as_seen = True
for rate in (200, 50):
    write(f'bag{rate}', rate)
    text = subprocess.run(['venv/bin/bagx', 'eval', f'bag{rate}'], capture_output=True, text=True, check=True).stdout
    text = ' '.join(text.split())
    force = float(re.search(r'imu_acc_noise_density to ([\d.]+)', text)[1])
    turn = float(re.search(r'imu_gyro_noise_density to ([\d.]+)', text)[1])
    allan = float(re.search(r'Allan VRW \(accel\) │ ([\d.]+)', text)[1])
    delay = float(re.search(r'sync delay ([\d.]+)ms', text)[1])
    print(f'{rate} Hz: advised {force} m/s² ({force / DENSITY:.1f} times the density) and {turn} rad/s '
          f'({turn / GYRO_DENSITY:.1f} times), Allan deviation {allan}; "sync delay" {delay} ms')
    as_seen &= abs(force / DENSITY / np.sqrt(rate) - 1) < 0.05 and abs(turn / GYRO_DENSITY / np.sqrt(rate) - 1) < 0.05
    as_seen &= abs(allan / DENSITY - 1) < 0.35 and 23 <= delay <= 26
raise SystemExit(not as_seen)
PYTHON
COLUMNS=200 venv/bin/python probe.py
