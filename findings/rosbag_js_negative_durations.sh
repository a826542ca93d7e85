#!/usr/bin/env bash
# rosbag 5.0.0 (npm, the reader of ROS 1 bags of Cruise): a negative duration comes as 4,294,967,293 seconds.
#
# By ROS' message format a duration is two signed integers of 32 bits (a time is two unsigned ones); -2.5 s is
# secs -3, nsecs 500000000. Time offsets between clocks and the age of transforms are such.
#
# Guess: a std_msgs/Duration of -2.5 s has sec -3 and nsec 500000000, alone, in arrays and inside other messages.
# Seen: sec is 4294967293: 136 years. Times, positive durations, int32 and int64 values are right, and
# @foxglove/rosmsg-serialization 2.0.4 reads the same bytes as -3. Nothing is thrown.
# What to do: sec | 0 on each duration.
#
# Exit 0: it is so. Exit 1: it has changed. Needs Node.js.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check rosbags==0.11.9 numpy==2.4.6
cd "$folder"
npm install --silent --no-audit --no-fund rosbag@5.0.0 @foxglove/rosmsg@4.2.2 @foxglove/rosmsg-serialization@2.0.4 tslib@2.8.1
cat >write.py <<'PYTHON'
from rosbags.rosbag1 import Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

store = get_typestore(Stores.ROS1_NOETIC)
text = 'int32 before\nduration one\nduration[] many\ntime when\nstd_msgs/Duration inside\n'
store.register(get_types_from_msg(text, 'test_msgs/msg/Offsets'))
Duration = store.types['builtin_interfaces/msg/Duration']
negative, positive = Duration(-3, 500_000_000), Duration(2, 5)
message = store.types['test_msgs/msg/Offsets'](
    before=-7, one=negative, many=[positive, negative], when=store.types['builtin_interfaces/msg/Time'](2_000_000_000, 9),
    inside=store.types['std_msgs/msg/Duration'](negative))
with Writer('offsets.bag') as writer:
    connection = writer.add_connection('/offsets', 'test_msgs/msg/Offsets', typestore=store)
    writer.write(connection, 10**18, store.serialize_ros1(message, 'test_msgs/msg/Offsets'))
with open('message.bin', 'wb') as stream:
    stream.write(store.serialize_ros1(message, 'test_msgs/msg/Offsets'))
PYTHON
venv/bin/python write.py
cat >probe.cjs <<'JAVASCRIPT'
const {readFileSync} = require('node:fs');
const {open} = require('rosbag');
const {parse} = require('@foxglove/rosmsg');
const {MessageReader} = require('@foxglove/rosmsg-serialization');

const seconds = message => [message.one.sec, message.many[0].sec, message.many[1].sec, message.inside.data.sec,
  message.when.sec, message.before, message.one.nsec];
const definition = ['int32 before', 'duration one', 'duration[] many', 'time when', 'std_msgs/Duration inside',
  '='.repeat(80), 'MSG: std_msgs/Duration', 'duration data'].join('\n');

(async () => {
  const found = [];
  const bag = await open('offsets.bag');
  await bag.readMessages({}, result => found.push(seconds(result.message)));
  const other = seconds(new MessageReader(parse(definition)).readMessage(readFileSync('message.bin')));
  console.log('rosbag:', found[0].join(' '), '| @foxglove/rosmsg-serialization:', other.join(' '));
  const wrong = 2 ** 32 - 3;
  const asSeen = found.length === 1 && found[0].join() === [wrong, 2, wrong, wrong, 2e9, -7, 5e8].join() &&
    other.join() === [-3, 2, -3, -3, 2e9, -7, 5e8].join();
  process.exit(asSeen ? 0 : 1);
})();
JAVASCRIPT
node --no-warnings probe.cjs
