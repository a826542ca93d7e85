#!/usr/bin/env bash
# @foxglove/rosbag 0.4.1 and @lichtblick/rosbag 1.0.0 (npm, ROS 1 bags on pages): messages that are older than the
# first chunk of the file are not read; backwards, those that are newer than the last chunk.
#
# A bag's messages need not lie in the order of their times: converters of data sets write one topic after the other.
# By the README startTime and endTime are those of the earliest and of the last message.
#
# Guess: messageIterator() gives all messages of the bag in the order of their times, as rosbags does, and
# with reverse the same backwards.
# Seen: of a bag with images from 1.0 to 2.0 s and, behind them in the file, an IMU from 0.5 to 1.8 s, the five messages of
# the IMU before 1.0 s do not come, and backwards the two images after 1.8 s do not. startTime is that of the
# first chunk, endTime that of the last one, and reading begins there. Given start: {sec: 0, nsec: 0} all
# come, backwards from a time past the end as well. Nothing is thrown.
# What to do: give start; or write such bags in the order of time.
#
# Exit 0: it is so. Exit 1: it has changed. Needs Node.js.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check rosbags==0.11.9 numpy==2.4.6
cd "$folder"
npm install --silent --no-audit --no-fund @foxglove/rosbag@0.4.1 @foxglove/rosmsg@4.2.2 @lichtblick/rosbag@1.0.0 \
  @lichtblick/rosmsg@1.0.0 @lichtblick/rosmsg-serialization@1.0.0 @lichtblick/rostime@1.0.0 \
  @lichtblick/message-definition@1.0.0 tslib@2.8.1
cat >write.py <<'PYTHON'
from pathlib import Path

from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer
from rosbags.typesys import Stores, get_typestore

store = get_typestore(Stores.ROS1_NOETIC)
String = store.types['std_msgs/msg/String']
with Writer('topics.bag') as writer:
    for topic, first, last in (('/image', 10, 20), ('/imu', 5, 18)):
        connection = writer.add_connection(topic, String.__msgtype__, typestore=store)
        for tenth in range(first, last + 1):
            message = String(data=' ' * 400_000)  # some chunks of the usual 1 MB
            writer.write(connection, tenth * 100_000_000, store.serialize_ros1(message, String.__msgtype__))
with AnyReader([Path('topics.bag')], default_typestore=store) as reader:
    print(*(stamp // 1_000_000 for _, stamp, _ in reader.messages()))
PYTHON
venv/bin/python write.py >all.txt
cat >probe.mjs <<'JAVASCRIPT'
import {readFileSync} from 'node:fs';
import {Bag as Foxglove} from '@foxglove/rosbag';
import {FileReader as FoxgloveFile} from '@foxglove/rosbag/node.js';
import {Bag as Lichtblick} from '@lichtblick/rosbag';
import {FileReader as LichtblickFile} from '@lichtblick/rosbag/node.js';

const milliseconds = time => 1000 * time.sec + time.nsec / 1e6;
const all = readFileSync('all.txt', 'utf8').trim().split(' ').map(Number);

async function times(bag, options) {
  const found = [];
  for await (const message of bag.messageIterator(options)) found.push(milliseconds(message.timestamp));
  return found;
}

const same = (one, other) => one.length === other.length && one.every((each, index) => each === other[index]);
let asSeen = all.length === 25;
for (const [name, Bag, File] of [['foxglove', Foxglove, FoxgloveFile], ['lichtblick', Lichtblick, LichtblickFile]]) {
  const bag = new Bag(new File('topics.bag'));
  await bag.open();
  const forwards = await times(bag, {});
  const backwards = await times(bag, {reverse: true});
  const fromZero = await times(bag, {start: {sec: 0, nsec: 0}});
  const fromLate = await times(bag, {start: {sec: 9, nsec: 0}, reverse: true});
  console.log(`${name}: the bag begins at ${milliseconds(bag.startTime)} and ends at ${milliseconds(bag.endTime)} ms; ` +
    `of ${all.length} messages from ${all[0]} to ${all.at(-1)} ms ${forwards.length} come forwards, ` +
    `${backwards.length} backwards; with start ${fromZero.length} and ${fromLate.length}`);
  asSeen &&= milliseconds(bag.startTime) === 1000 && milliseconds(bag.endTime) === 1800;
  asSeen &&= same(forwards, all.filter(each => each >= 1000));
  asSeen &&= same(backwards, all.filter(each => each <= 1800).reverse());
  asSeen &&= same(fromZero, all) && same(fromLate, [...all].reverse());
}
process.exit(asSeen ? 0 : 1);
JAVASCRIPT
node --no-warnings probe.mjs
