#!/usr/bin/env bash
# urdf-loader 0.13.1 (npm, robots for three.js): floating and planar joints move in the wrong frame.
#
# A joint of a URDF has an <origin>, from parent to child at rest, and moves in the frame that the origin ends in ("the
# axis is specified in the joint frame"): child = origin * motion. For a mobile base the motion is an odometry's pose.
#
# Guess: setJointValue of a floating joint (x, y, z, roll, pitch, yaw) and of a planar one (x, y, angle) places the child
# at origin * motion, as it does for revolute and prismatic joints; roll, pitch, yaw mean what they do in <origin>.
# Seen: floating and planar joints are motion * origin: with an origin of a turn, the translation goes along the
# parent's axes; with an origin aside, the child swings around the parent in place of turning where it is: a
# planar base one metre from its parent that turns by 90 degrees ends 1.41 m from where it stands. Roll, pitch and yaw
# of a floating joint turn about the moved axes (x, y, z), those of <origin> about fixed ones: 0.5, 0.5, 0.5 is 24
# degrees off. Revolute, continuous and prismatic joints are right.
# What to do: give such joints no <origin>; for a floating base set position and quaternion of the robot itself.
#
# Exit 0: it is so. Exit 1: it has changed. Needs Node.js.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund urdf-loader@0.13.1 three@0.187.0 jsdom@26.1.0
cat >probe.mjs <<'JAVASCRIPT'
import {JSDOM} from 'jsdom';
import * as THREE from 'three';

const {window} = new JSDOM('');
Object.assign(globalThis, {DOMParser: window.DOMParser, Document: window.Document,
  Element: window.Element, XMLSerializer: window.XMLSerializer});
const {default: URDFLoader} = await import('urdf-loader');

function child(kind, place, turn, values) {
  const robot = new URDFLoader(new THREE.LoadingManager()).parse(
    `<robot name="robot"><link name="base"/><link name="arm"/><joint name="joint" type="${kind}">
     <parent link="base"/><child link="arm"/><origin xyz="${place.join(' ')}" rpy="${turn.join(' ')}"/>
     <axis xyz="0 0 1"/><limit lower="-9" upper="9" effort="1" velocity="1"/></joint></robot>`);
  robot.joints.joint.setJointValue(...values);
  robot.updateMatrixWorld(true);
  return robot.links.arm.matrixWorld;
}

// Fixed axes x, y, z: the order of <origin>, which three.js calls ZYX.
function pose(place, turn, order = 'ZYX') {
  return new THREE.Matrix4().makeRotationFromEuler(new THREE.Euler(...turn, order)).setPosition(...place);
}

function motion(kind, values, order) {
  if (kind === 'floating') return pose(values.slice(0, 3), values.slice(3), order);
  if (kind === 'planar') return pose([values[0], values[1], 0], [0, 0, values[2]]);
  if (kind === 'prismatic') return pose([0, 0, values[0]], [0, 0, 0]);
  return pose([0, 0, 0], [0, 0, values[0]]);
}

function compare(one, other) {
  const [places, turns] = [[], []];
  for (const each of [one, other]) {
    const [place, turn] = [new THREE.Vector3(), new THREE.Quaternion()];
    each.decompose(place, turn, new THREE.Vector3());
    places.push(place);
    turns.push(turn);
  }
  return {metres: places[0].distanceTo(places[1]), degrees: turns[0].angleTo(turns[1]) * 180 / Math.PI};
}

const QUARTER = Math.PI / 2;
const HERE = [0, 0, 0];
const STRAIGHT = [0, 0, 0];
const CASES = [
  ['revolute', [1, 2, 3], [0.4, -0.5, 1.1], [0.5], true],
  ['continuous', [1, 2, 3], [0.4, -0.5, 1.1], [0.5], true],
  ['prismatic', [1, 2, 3], [0.4, -0.5, 1.1], [0.5], true],
  ['planar', HERE, STRAIGHT, [0.3, 0.2, 0.1], true],
  ['planar', [1, 0, 0], STRAIGHT, [0, 0, QUARTER], false],
  ['planar', HERE, [0, 0, QUARTER], [1, 0, 0], false],
  ['floating', HERE, STRAIGHT, [1, 2, 3, 0, 0, 0.5], true],
  ['floating', [1, 2, 3], [0, 0, QUARTER], [1, 0, 0, 0, 0, 0], false],
  ['floating', HERE, STRAIGHT, [1, 2, 3, 0.5, 0.5, 0.5], false]];
let asSeen = true;
for (const [kind, place, turn, values, right] of CASES) {
  const found = child(kind, place, turn, values);
  const off = compare(found, pose(place, turn).multiply(motion(kind, values)));
  const turnedRound = compare(found, motion(kind, values, 'XYZ').multiply(pose(place, turn)));
  console.log(`${kind}, origin ${place.join(' ')}, rpy ${turn.map(each => each.toFixed(1)).join(' ')}, at ` +
    `${values.map(each => each.toFixed(1)).join(' ')}: off by ${off.metres.toFixed(3)} m, ` +
    `${off.degrees.toFixed(2)} degrees`);
  const fits = off.metres < 1e-6 && off.degrees < 1e-4;
  asSeen &&= fits === right;
  if (kind === 'planar' || kind === 'floating') {
    asSeen &&= turnedRound.metres < 1e-6 && turnedRound.degrees < 1e-4;
  }
}
process.exit(asSeen ? 0 : 1);
JAVASCRIPT
node probe.mjs
