#!/usr/bin/env bash
# three.js 0.187.0 (npm): PLYExporter writes colours as floats of 0 to 1, which other readers take for 0 to 255.
#
# Guess: a cloud with vertex colours, exported on a page, has red, green and blue as uchar, as before and as
# most readers of PLY want them; with deck.gl's reader it has the colours of the page.
# Seen: "property float red" with values of 0 to 1, for colours as THREE.Color has them (Float32Array) and for
# 8-bit ones (normalized Uint8Array, as its own PLYLoader makes them): what was loaded with uchar colours is saved
# with floats. loaders.gl 4.4 (deck.gl) shows such a file black. OpenCV 5.0.0 (cv2.loadPointCloud, not run
# here) refuses all of it: "should be uchar". No option brings uchar back. trimesh and three.js itself read
# it right. r182 wrote uchar, and the same readers have the right colours.
# What to do: colours * 255 in a Uint8Array that is not marked normalized gives uchar properties in r187.
#
# Exit 0: it is so. Exit 1: it has changed. Needs Node.js.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund three@0.187.0 three-r182@npm:three@0.182.0 \
  @loaders.gl/core@4.4.2 @loaders.gl/ply@4.4.5
cat >probe.mjs <<'JAVASCRIPT'
import {parse} from '@loaders.gl/core';
import {PLYLoader as DeckReader} from '@loaders.gl/ply';
import * as THREE from 'three';
import * as OLD from 'three-r182';
import {PLYExporter} from 'three/addons/exporters/PLYExporter.js';
import {PLYLoader} from 'three/addons/loaders/PLYLoader.js';
import {PLYExporter as OldExporter} from 'three-r182/addons/exporters/PLYExporter.js';

const HEXES = [0xff8040, 0x102030, 0x808080];
const WANTED = HEXES.flatMap((hex) => [hex >> 16, (hex >> 8) & 255, hex & 255]);

/** Return a PLY of three points, exported by a release. */
function write(three, exporter, kind = 'float') {
  const colors = HEXES.flatMap((hex) => new three.Color().setHex(hex).toArray());
  const geometry = new three.BufferGeometry();
  geometry.setAttribute('position', new three.Float32BufferAttribute([0, 0, 0, 1, 2, 3, 5, 6, 7], 3));
  const bytes = (linear) => Uint8Array.from(colors, (value) => Math.round(255 * linear(value)));
  geometry.setAttribute('color', kind === 'float' ? new three.Float32BufferAttribute(colors, 3)
    : new three.BufferAttribute(bytes((value) => value), 3, kind === 'normalized'));
  const points = new three.Points(geometry, new three.PointsMaterial());
  return exporter.parse(points, null, {binary: true, littleEndian: true});
}

const files = {
  'r187, THREE.Color': write(THREE, new PLYExporter()),
  'r187, 8 bits': write(THREE, new PLYExporter(), 'normalized'),
  'r182, THREE.Color': write(OLD, new OldExporter())};
const again = new THREE.Points(new PLYLoader().parse(files['r182, THREE.Color']), new THREE.PointsMaterial());
files['r182, loaded and saved by r187'] = new PLYExporter().parse(again, null,
  {binary: true, littleEndian: true});
let asSeen = true;
for (const [name, file] of Object.entries(files)) {
  const type = new TextDecoder('latin1').decode(file).match(/property (\S+) red/)[1];
  const read = await parse(file.slice(0), DeckReader, {worker: false});
  const colors = Array.from(read.attributes.COLOR_0.value);
  console.log(`${name}: ${type}; deck.gl reads ${colors.join(' ')} for ${WANTED.join(' ')}`);
  asSeen &&= name.startsWith('r187') || name.endsWith('r187')
    ? type === 'float' && Math.max(...colors) <= 1
    : type === 'uchar' && WANTED.every((value, index) => Math.abs(value - colors[index]) <= 1);
}
const plain = new TextDecoder('latin1').decode(write(THREE, new PLYExporter(), 'plain'));
console.log('r187, not normalized:', plain.match(/property \S+ red/)[0]);
process.exit(asSeen && plain.includes('property uchar red') ? 0 : 1);
JAVASCRIPT
node probe.mjs
