#!/usr/bin/env bash
# ros-rclpy 9.1.2 (rmw_fastrtps 9.3.3) and rosbags 0.11.9: a JointState without efforts that was
# written the way the rosbag2_py tutorials do it, with serialize_message, cannot be read by rosbags.
#
# Guess: serialize_message returns the CDR message and nothing behind it, and rosbags reads all of
# what ROS itself reads.
# Seen: where a float64[] is empty the buffer is longer than the message that is in it (JointState
# with a name only: 60 bytes, of which 48 are the message). ROS reads it back, and so does
# mcap-ros2-support; rosbags raises SerdeError "CDR message size mismatch". Cut to the message, with
# up to three bytes behind it, rosbags reads it.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  ros-rclpy==9.1.2 ros-rmw-fastrtps-cpp==9.3.3 ros-sensor-msgs==5.5.1 ros-std-msgs==5.5.1 \
  rosbags==0.11.9 mcap-ros2-support==0.6.0 numpy==2.4.6 pyyaml
cd "$folder"
cat >probe.py <<'PYTHON'
from mcap.records import Schema
from mcap_ros2.decoder import DecoderFactory
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.serde import SerdeError
from rosbags.typesys import get_typestore, Stores
from sensor_msgs.msg import JointState

NAME = 'sensor_msgs/msg/JointState'
store = get_typestore(Stores.LATEST)
definition, _ = store.generate_msgdef(NAME, ros_version=2)
schema = Schema(id=1, name=NAME, encoding='ros2msg', data=definition.encode())
decode = DecoderFactory().decoder_for('cdr', schema)


def read_by_rosbags(data):
    try:
        return store.deserialize_cdr(data, NAME).name
    except SerdeError as error:
        return f'SerdeError: {error}'


results = []
for fields in ({'position': [0.5], 'velocity': [0.1], 'effort': [2.0]},
               {'position': [0.5], 'velocity': [0.1]}, {'position': [0.5]}, {}):
    data = bytes(serialize_message(JointState(name=['wheel'], **fields)))
    own = deserialize_message(data, JointState).name
    other = list(decode(data).name)
    answer = read_by_rosbags(data)
    print(f'{list(fields)}: {len(data)} bytes; ROS {own}, mcap-ros2-support {other}, rosbags {answer}')
    results.append((own == other == ['wheel'], answer == ['wheel']))
data = bytes(serialize_message(JointState(name=['wheel'])))
shorter = [size for size in range(len(data) - 12, len(data)) if read_by_rosbags(data[:size]) == ['wheel']]
print('without what is behind it rosbags reads', shorter, 'of', len(data), 'bytes')
raise SystemExit(not (all(ros for ros, _ in results) and [bag for _, bag in results][0]
                      and not any(bag for _, bag in results[1:]) and shorter))
PYTHON
venv/bin/python probe.py
