#!/usr/bin/env bash
# quaternion 2.2.0 (npm): toEuler() of an orientation that looks straight up or down is another orientation, up to
# tens of degrees away.
#
# With the middle angle at 90 degrees many triples of angles are the same orientation; any of them is right.
#
# Guess: fromEuler(toEuler(q)) is q, whatever the order and the angles, as with three.js.
# Seen: to rounding for any middle angle but exactly +-90 degrees; there the two others come from arctangents of two
# numbers that are zero but for rounding. Outer angles of 0.3 and 0.4 radians come back 12 degrees off at one end (90
# for ZXY, the default; -90 for ZYX, yaw, pitch, roll) and 2 at the other; 1 and 2 radians 61 and 4 degrees.
# A tenth of a microradian beside 90 degrees it is exact, so that a rounded angle hides it.
# What to do: three.js's Euler.setFromQuaternion, which sets one of the angles to zero there.
#
# Exit 0: it is so. Exit 1: it has changed. Needs Node.js.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund quaternion@2.2.0 three@0.187.0
cat >probe.mjs <<'JAVASCRIPT'
import Quaternion from 'quaternion';
import * as THREE from 'three';

const ORDERS = ['ZXY', 'XYZ', 'YXZ', 'ZYX', 'YZX', 'XZY'];
const OUTER = [[0.3, 0.4], [1, 2]];
const RIGHT = Math.PI / 2;

// The angle between two orientations, in degrees.
function between(one, other) {
  const {w, x, y, z} = one.conjugate().mul(other);
  return 2 * Math.atan2(Math.hypot(x, y, z), Math.abs(w)) * 180 / Math.PI;
}

function byThree(q, order) {
  const euler = new THREE.Euler().setFromQuaternion(new THREE.Quaternion(q.x, q.y, q.z, q.w), order);
  const {w, x, y, z} = new THREE.Quaternion().setFromEuler(euler);
  return new Quaternion(w, x, y, z);
}

const worst = {beside: 0, at: Infinity, three: 0};
for (const order of ORDERS) {
  for (const middle of [0.5, RIGHT - 1e-3, RIGHT - 1e-7, RIGHT, -RIGHT]) {
    const found = OUTER.map(([first, last]) => {
      const q = Quaternion.fromEuler(first, middle, last, order);
      const off = between(q, Quaternion.fromEuler(...q.toEuler(order), order));
      const three = between(q, byThree(q, order));
      worst.three = Math.max(worst.three, three);
      return off;
    });
    console.log(order, `middle angle ${middle.toFixed(8)}: off by`,
      found.map(each => `${each.toFixed(4)}`).join(' and '), 'degrees');
    const most = Math.max(...found);
    if (Math.abs(middle) === RIGHT) worst.at = Math.min(worst.at, most);
    else worst.beside = Math.max(worst.beside, most);
  }
}
console.log(worst);
process.exit(worst.at > 2 && worst.beside < 0.001 && worst.three < 0.001 ? 0 : 1);
JAVASCRIPT
node probe.mjs
