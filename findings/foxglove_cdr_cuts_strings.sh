#!/usr/bin/env bash
# @foxglove/cdr 3.5.0 and @foxglove/rosmsg2-serialization 3.1.0 (npm): ROS 2 strings beyond ASCII are
# cut when they are written.
#
# Guess: MessageWriter writes a string as rclpy and rosbags do: UTF-8, its length in bytes and a zero
# at the end; what it writes it reads back. (Pages that publish, and converters of recordings in
# Node.js, write with it.)
# Seen: the length is that of JavaScript, a number of UTF-16 units, and only as many bytes are kept:
# "Küche" becomes "Küch", and nothing at all is left of the two characters of "日本" but two zeros. As
# a frame_id that is another frame. Nothing is raised, the fields that follow are right, rosbags reads
# the cut text. The writer for ROS 1 (@foxglove/rosmsg-serialization 2.0.4) keeps the whole of it.
# The source has been mended (foxglove/cdr, pull request 35, May 2026); 3.5.0 was the newest on npm in
# November 2026.
#
# Exit 0: it is so. Exit 1: it has changed. Needs Node.js.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check rosbags==0.11.9 numpy==2.4.6
cd "$folder"
npm install --silent --no-audit --no-fund @foxglove/cdr@3.5.0 @foxglove/rosmsg@5.0.5 \
  @foxglove/rosmsg2-serialization@3.1.0 @foxglove/rosmsg-serialization@2.0.4 \
  tslib@2.8.1
cat >write.cjs <<'JAVASCRIPT'
const {parse} = require('@foxglove/rosmsg');
const ros1 = require('@foxglove/rosmsg-serialization');
const ros2 = require('@foxglove/rosmsg2-serialization');

const TEXT = 'builtin_interfaces/Time stamp\nstring frame_id\n' + '='.repeat(80)
  + '\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n';
const definitions = parse(TEXT, {ros2: true});
const stringOnly = parse('string frame_id\n', {ros2: false});
const lines = ['camera', 'Küche', '日本'].map(name => {
  const bytes = new ros2.MessageWriter(definitions).writeMessage(
    {stamp: {sec: 3, nanosec: 4}, frame_id: name});
  const one = new ros1.MessageWriter(stringOnly).writeMessage({frame_id: name});
  return {name, bytes: Buffer.from(bytes).toString('hex'),
    ros1: new ros1.MessageReader(stringOnly).readMessage(one).frame_id};
});
console.log(JSON.stringify(lines));
JAVASCRIPT
cat >probe.py <<'PYTHON'
import json
import sys

from rosbags.typesys import Stores, get_typestore

store = get_typestore(Stores.ROS2_JAZZY)
Header = store.types['std_msgs/msg/Header']
Time = store.types['builtin_interfaces/msg/Time']
seen = {}
for line in json.load(sys.stdin):
    name, data = line['name'], bytes.fromhex(line['bytes'])
    header = store.deserialize_cdr(data, 'std_msgs/msg/Header')
    whole = bytes(store.serialize_cdr(Header(Time(3, 4), name), 'std_msgs/msg/Header'))
    seen[name] = header.frame_id
    print(repr(name), 'is read as', repr(header.frame_id), f'({len(data)} bytes, rosbags writes '
          f'{len(whole)}); ROS 1:', repr(line['ros1']))
    if line['ros1'] != name or (header.stamp.sec, header.stamp.nanosec) != (3, 4):
        raise SystemExit(1)
raise SystemExit(seen != {'camera': 'camera', 'Küche': 'Küch', '日本': '\0\0'})
PYTHON
node write.cjs | venv/bin/python probe.py
