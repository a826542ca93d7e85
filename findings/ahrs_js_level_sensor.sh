#!/usr/bin/env bash
# ahrs 1.3.3 (npm, orientation from gyroscope, accelerometer and compass): while the sensor is level, Mahony's filter
# corrects nothing, and Madgwick's can turn into NaN for good.
#
# Simulated sensors without noise (the default of many simulators, and of tests) on a robot that drives on a floor have
# an acceleration of exactly (0, 0, g).
#
# Guess: both filters end within a degree of a heading of one radian when the sensor does not move; a gyroscope
# that is off by 0.01 rad/s is held by the compass; a sensor at rest that lies level and looks north stays there.
# Seen: Mahony uses no sample that has a zero among its three accelerations, in place of one that has three: the
# heading stays at 0 for ever, and follows the gyroscope's error without bound (3 rad in 5 minutes). Tilted by
# a millionth of a radian about both axes it is right. Madgwick divides its gradient by its length, which is zero
# when all fits: level, looking north, the first update gives NaN, and so does every later one, whatever
# the sensors say then. Nothing is thrown. With doInitialisation as well.
# What to do: add noise of a millionth to the acceleration; look for NaN.
#
# Exit 0: it is so. Exit 1: it has changed. Needs Node.js.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund ahrs@1.3.3
cat >probe.mjs <<'JAVASCRIPT'
import AHRS from 'ahrs';

const RATE = 100;
const DIP = 1;

// The angle in radians between the filter's heading and the true one, after some seconds at rest.
function headingOff({algorithm, heading, tilt = 0, drift = 0, seconds = 300, doInitialisation = false}) {
  const filter = new AHRS({sampleInterval: RATE, algorithm, doInitialisation, beta: 0.2, kp: 1});
  const acceleration = [9.81 * tilt, 9.81 * tilt, 9.81];
  const compass = [Math.cos(DIP) * Math.cos(heading), -Math.cos(DIP) * Math.sin(heading), -Math.sin(DIP)];
  for (let sample = 0; sample < RATE * seconds; sample++) {
    filter.update(0, 0, drift, ...acceleration, ...compass, 1 / RATE);
  }
  const {w, x, y, z} = filter.getQuaternion();
  const found = Math.atan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z));
  return Math.abs(Math.atan2(Math.sin(found - heading), Math.cos(found - heading)));
}

const CASES = [
  ['Mahony, level', {algorithm: 'Mahony', heading: 1}, off => Math.abs(off - 1) < 1e-6],
  ['Mahony, tilted by a millionth', {algorithm: 'Mahony', heading: 1, tilt: 1e-6}, off => off < 0.02],
  ['Mahony, level, gyroscope off', {algorithm: 'Mahony', heading: 0, drift: 0.01}, off => off > 2.9],
  ['Mahony, tilted by a millionth, gyroscope off',
    {algorithm: 'Mahony', heading: 0, drift: 0.01, tilt: 1e-6}, off => off < 0.1],
  ['Madgwick, level', {algorithm: 'Madgwick', heading: 1}, off => off < 0.02],
  ['Madgwick, level, looking north', {algorithm: 'Madgwick', heading: 0}, off => Number.isNaN(off)],
  ['Madgwick, the same, initialised',
    {algorithm: 'Madgwick', heading: 0, doInitialisation: true}, off => Number.isNaN(off)]];
let asSeen = true;
for (const [name, settings, expected] of CASES) {
  const off = headingOff(settings);
  console.log(`${name}: heading off by ${off.toFixed(4)} rad`);
  asSeen &&= expected(off);
}

// Once NaN, always NaN.
const filter = new AHRS({sampleInterval: RATE, algorithm: 'Madgwick'});
filter.update(0, 0, 0, 0, 0, 9.81, Math.cos(DIP), 0, -Math.sin(DIP), 1 / RATE);
for (let sample = 0; sample < 1000; sample++) {
  filter.update(0.1, 0.2, -0.1, 0.5, -0.3, 9.7, 0.4, 0.2, -0.8, 1 / RATE);
}
const {w} = filter.getQuaternion();
console.log(`Madgwick, ten seconds of other values after that: w ${w}`);
asSeen &&= Number.isNaN(w);
process.exit(asSeen ? 0 : 1);
JAVASCRIPT
node probe.mjs
