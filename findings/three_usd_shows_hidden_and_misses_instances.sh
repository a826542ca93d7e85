#!/usr/bin/env bash
# three.js 0.187.0 (npm), USDLoader: what is hidden is shown, and what is instanced is missing.
#
# Scenes of simulators (Isaac Sim, Omniverse) have their collision shapes as invisible prims or as guides, and
# whatever occurs often as references to one prim or as a PointInstancer.
#
# Guess: what a picture of the stage has is visible, where it belongs, and nothing else is; or a warning tells what
# is left out.
# Seen: meshes with visibility "invisible" and with purpose "guide" are visible objects. References to a prim of
# the same file are empty: one chair of three is left. Of a PointInstancer the
# prototype is shown once, at the origin of the instancer. A Points prim is left out. A prim with
# "!resetXformStack!" moves with its parents, and one whose transform has time samples alone lies at the origin
# instead of at its first sample. No warning. Transforms, up axis, units and basic shapes are right.
# usd-core 26.11 says of the same file where each is (numbers below), and that two are not to be seen.
# What to do: flatten and prune the stage with usd-core before, or write glTF.
#
# Exit 0: it is so. Exit 1: it has changed. Needs Node.js.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund three@0.187.0
cat >write.cjs <<'JAVASCRIPT'
const fs = require('fs');

const TRIANGLE = `int[] faceVertexCounts = [3]
int[] faceVertexIndices = [0, 1, 2]
point3f[] points = [(0, 0, 0), (1, 0, 0), (0, 1, 0)]`;
const order = (...names) =>
  `uniform token[] xformOpOrder = [${names.map((name) => JSON.stringify(name)).join(', ')}]`;
const moved = (x, ...before) => `double3 xformOp:translate = (${x}, 0, 0)
${order(...before, 'xformOp:translate')}`;
const mesh = (name, lines = '') => `def Mesh "${name}"\n{\n${lines}\n${TRIANGLE}\n}\n`;
const reference = (name, x) => `def Xform "${name}" (
prepend references = </Chair>
)
{
${moved(x)}
}
`;
fs.writeFileSync('scene.usda', `#usda 1.0
(
defaultPrim = "Room"
metersPerUnit = 1
upAxis = "Y"
)
def Xform "Room"
{
${mesh('Wall', moved(2.5))}
${mesh('Invisible', 'token visibility = "invisible"')}
${mesh('Guide', 'uniform token purpose = "guide"')}
${reference('Left', 5.5)}
${reference('Right', 7.5)}
def Xform "Cart"
{
${moved(100.5)}
${mesh('Fixed', moved(1.5, '!resetXformStack!'))}
}
${mesh('Timed', `double3 xformOp:translate.timeSamples = { 0: (1.5, 0, 0), 10: (2.5, 0, 0) }
${order('xformOp:translate')}`)}
def Points "Cloud"
{
point3f[] points = [(0, 0, 0), (1, 2, 3)]
}
def PointInstancer "Stones"
{
rel prototypes = </Room/Stones/Stone>
int[] protoIndices = [0, 0, 0]
point3f[] positions = [(20, 0, 0), (30, 0, 0), (40, 0, 0)]
${mesh('Stone')}
}
}
def Xform "Chair"
{
${mesh('Seat')}
}
`);
JAVASCRIPT
cat >probe.mjs <<'JAVASCRIPT'
import fs from 'node:fs';
import * as THREE from 'three';
import {USDLoader} from 'three/addons/loaders/USDLoader.js';

const WANTED = {Wall: [2.5], Seat: [5.5, 7.5, 0], Fixed: [1.5], Timed: [1.5], Stone: [20, 30, 40], Cloud: [0],
  Invisible: [], Guide: []};  // along x, in metres

let warnings = 0;
console.warn = console.error = () => { warnings += 1; };
const data = fs.readFileSync('scene.usda');
const scene = await new USDLoader().parse(
  data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength));
scene.updateMatrixWorld(true);
const found = Object.fromEntries(Object.keys(WANTED).map((name) => [name, []]));
scene.traverseVisible((object) => {
  if (object.isInstancedMesh) {
    found[object.name].push('instances');
  } else if (object.isMesh || object.isPoints) {
    found[object.name].push(new THREE.Vector3().setFromMatrixPosition(object.matrixWorld).x);
  }
});
for (const [name, places] of Object.entries(WANTED)) {
  console.log(`${name}: at [${found[name].join(', ')}] for [${places.join(', ')}]`);
}
console.log('warnings:', warnings);
const SEEN = {Wall: [2.5], Seat: [0], Fixed: [102], Timed: [0], Stone: [0], Cloud: [], Invisible: [0], Guide: [0]};
process.exit(JSON.stringify(found) === JSON.stringify(
  Object.fromEntries(Object.keys(WANTED).map((name) => [name, SEEN[name]]))) && warnings === 0 ? 0 : 1);
JAVASCRIPT
node write.cjs
node probe.mjs
