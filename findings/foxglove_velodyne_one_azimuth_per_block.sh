#!/usr/bin/env bash
# @foxglove/velodyne-cloud 1.0.1 (npm): all 32 returns of a VLP-16 block are put at one azimuth.
#
# The library turns velodyne_msgs packets into point clouds, on pages that show recordings. A block of a VLP-16
# has two firings of 16 lasers, 55.3 microseconds apart; only the first one's azimuth is in the packet, and the
# others are to be interpolated by the time of firing, says the manual.
#
# Guess: a flat wall 10 m in front, scanned at 20 turns a second, is flat to 2 cm (a step of the azimuth in the
# packet is 0.01 degrees, one of the distance 2 mm).
# Seen: its points are up to 9 cm off; they are up to 0.65 degrees from where they belong, which is 57 cm at
# 50 m (half of it at 10 turns a second). With the azimuth interpolated, from the same packets, they
# are off by 1.4 mm. The interpolated azimuth is worked out in the library, but only asked whether it is in the
# wanted range. Nothing is said.
# velodyne-decoder 3.1.0 (Python) interpolates.
# What to do: convert the packets before, e.g. with velodyne-decoder or the ROS driver.
#
# Exit 0: it is so. Exit 1: it has changed. Needs Node.js.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund @foxglove/velodyne-cloud@1.0.1
cat >probe.cjs <<'JAVASCRIPT'
const {Calibration, PointCloud, RawPacket, Transformer} = require('@foxglove/velodyne-cloud');

const ELEVATIONS = [-15, 1, -13, 3, -11, 5, -9, 7, -7, 9, -5, 11, -3, 13, -1, 15];  // degrees
const FIRING = 2.304, CYCLE = 55.296;  // microseconds: from laser to laser, of all 16
const TURNS = 20, WALL = 10, BLOCKS = 12, PACKETS = 8;  // turns per second, metres
const radians = (degrees) => degrees * Math.PI / 180;

/** Return the degrees that the head turns in a time in microseconds. */
const turned = (time) => 360 * TURNS * time * 1e-6;

/** Return the packets of a scan that begins at azimuth 320 degrees, and the true azimuths. */
function scan() {
  const packets = [], azimuths = [];
  for (let number = 0; number < PACKETS; number++) {
    const packet = Buffer.alloc(1206);
    const start = number * BLOCKS * 2 * CYCLE;
    for (let block = 0; block < BLOCKS; block++) {
      const begin = start + block * 2 * CYCLE;
      packet.writeUInt16LE(0xeeff, 100 * block);
      packet.writeUInt16LE(Math.round(100 * (320 + turned(begin))) % 36000, 100 * block + 2);
      for (let index = 0; index < 32; index++) {
        const time = Math.floor(index / 16) * CYCLE + (index % 16) * FIRING;
        const azimuth = 320 + turned(begin + time);
        const range = WALL / Math.cos(radians(azimuth)) / Math.cos(radians(ELEVATIONS[index % 16]));
        packet.writeUInt16LE(Math.round(range / 0.002), 100 * block + 4 + 3 * index);
        packet[100 * block + 6 + 3 * index] = 100;
        azimuths.push({azimuth, turn: turned(time), read: packet.readUInt16LE(100 * block + 2) / 100,
          range: Math.round(range / 0.002) * 0.002, elevation: ELEVATIONS[index % 16]});
      }
    }
    packet.writeUInt32LE(Math.round(start), 1200);
    packet[1204] = 0x37;  // strongest return
    packet[1205] = 0x22;  // VLP-16
    packets.push(new Uint8Array(packet));
  }
  return [packets, azimuths];
}

const [packets, truth] = scan();
const hour = new Date(0);
const stamp = new RawPacket(packets[0]).timestamp(hour);
const cloud = new PointCloud({stamp, maxPoints: RawPacket.MAX_POINTS_PER_PACKET * packets.length});
const transformer = new Transformer(new Calibration(new RawPacket(packets[0]).inferModel()));
for (const packet of packets) {
  const raw = new RawPacket(packet);
  transformer.unpack(raw, stamp, raw.timestamp(hour), cloud);
}
cloud.trim();
const view = new DataView(cloud.data.buffer, cloud.data.byteOffset);
let seen = 0, angle = 0, possible = 0;
truth.forEach(({azimuth, turn, read, range, elevation}, index) => {
  const at = index * cloud.point_step;
  const [x, y] = [view.getFloat32(at, true), view.getFloat32(at + 4, true)];
  const found = Math.atan2(-y, x) * 180 / Math.PI;  // azimuths of a Velodyne are clockwise
  seen = Math.max(seen, Math.abs(x - WALL));
  angle = Math.max(angle, Math.abs((azimuth - found + 540) % 360 - 180));
  possible = Math.max(possible, Math.abs(
    range * Math.cos(radians(elevation)) * Math.cos(radians(read + turn)) - WALL));
});
console.log(`${cloud.width} points of a wall at ${WALL} m: off by up to ${(1000 * seen).toFixed(1)} mm, `
  + `${angle.toFixed(3)} degrees; with interpolated azimuths ${(1000 * possible).toFixed(1)} mm`);
process.exit(cloud.width === truth.length && seen > 0.02 && angle > 0.3 && possible < 0.005 ? 0 : 1);
JAVASCRIPT
node probe.cjs
