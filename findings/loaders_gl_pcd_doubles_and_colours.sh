#!/usr/bin/env bash
# loaders.gl 4.4 (npm @loaders.gl/pcd 4.4.2, @loaders.gl/ply 4.4.5, which deck.gl pages read clouds
# with): in a binary PCD coordinates of type double are garbage, and red and blue change places.
#
# Guess: a PCD's x, y and z come out as its header says, 4 or 8 bytes wide; `rgb` (0x00RRGGBB, as PCL
# packs it, TYPE U or F) comes out as red, green, blue, in text as in binary; a PLY's colours come out
# whatever their type is.
# Seen: of 8-byte coordinates the first four bytes are read as a float: (1.25, -2.5, 3.75) comes out as
# (0, 0, 0), less round numbers as garbage of any size, without an error. They are right in text.
# (200, 100, 50) comes out as (50, 100, 200) from binary, and from text with TYPE F; from text with
# TYPE U the number is rounded to a float, whose bits are taken for the colour: (50, 100, 72).
# A PLY's `float` colours of 0 to 1 are all (0, 0, 0), but for 1, which is 1 of 255; `uchar` is right.
# What to do: write PLY with `uchar` colours for such pages.
#
# Exit 0: it is so. Exit 1: it has changed. Needs Node.js.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund \
  @loaders.gl/core@4.4.5 @loaders.gl/pcd@4.4.2 @loaders.gl/ply@4.4.5
cat >probe.mjs <<'JAVASCRIPT'
import {parse} from '@loaders.gl/core';
import {PCDLoader} from '@loaders.gl/pcd';
import {PLYLoader} from '@loaders.gl/ply';

const POINT = [1.25, -2.5, 3.75];
const [RED, GREEN, BLUE] = [200, 100, 50];
const PACKED = RED << 16 | GREEN << 8 | BLUE;
const asFloat = new Float32Array(Uint32Array.of(PACKED).buffer)[0];

function pcd(bytes, type, data) {
  const header = `# .PCD v0.7 - Point Cloud Data file format
VERSION 0.7
FIELDS x y z rgb
SIZE ${bytes} ${bytes} ${bytes} 4
TYPE F F F ${type}
COUNT 1 1 1 1
WIDTH 2
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS 2
DATA ${data}
`;
  const rgb = type === 'F' ? asFloat : PACKED;
  if (data === 'ascii') {
    return Buffer.from(header + `${[...POINT, rgb].join(' ')}\n`.repeat(2));
  }
  const body = Buffer.alloc(3 * bytes + 4);
  POINT.forEach((value, index) => bytes === 8 ? body.writeDoubleLE(value, 8 * index)
    : body.writeFloatLE(value, 4 * index));
  body.writeUInt32LE(PACKED, 3 * bytes);
  return Buffer.concat([Buffer.from(header), body, body]);
}

function ply(type, colour) {
  const lines = ['ply', 'format ascii 1.0', 'element vertex 1',
    ...['x', 'y', 'z'].map(name => `property float ${name}`),
    ...['red', 'green', 'blue'].map(name => `property ${type} ${name}`), 'end_header',
    [...POINT, ...colour].join(' ')];
  return Buffer.from(lines.join('\n') + '\n');
}

async function read(title, file, loader) {
  const bytes = file.buffer.slice(file.byteOffset, file.byteOffset + file.length);
  const {attributes} = await parse(bytes, loader, {core: {worker: false}, worker: false});
  const [point, colour] = ['POSITION', 'COLOR_0'].map(
    name => [...attributes[name].value.slice(0, 3)].join(' '));
  console.log(`${title}: point ${point}, colour ${colour}`);
  return {point, colour};
}

const [point, colour, swapped] = [POINT.join(' '), '200 100 50', '50 100 200'];
const checks = [];
for (const type of ['F', 'U']) {
  for (const bytes of [4, 8]) {
    const seen = await read(`PCD binary, ${bytes}-byte x y z, rgb TYPE ${type}`,
      pcd(bytes, type, 'binary'), PCDLoader);
    checks.push((seen.point === point) === (bytes === 4), seen.colour === swapped);
  }
  const text = await read(`PCD ascii, rgb TYPE ${type}`, pcd(8, type, 'ascii'), PCDLoader);
  checks.push(text.point === point, type === 'F' ? text.colour === swapped
    : text.colour === '50 100 72');
}
const bytes = await read('PLY, uchar colours', ply('uchar', [200, 100, 50]), PLYLoader);
const floats = await read('PLY, float colours', ply('float', [0.8, 0.4, 1]), PLYLoader);
checks.push(bytes.colour === colour, floats.colour === '0 0 1');
process.exit(checks.every(Boolean) ? 0 : 1);
JAVASCRIPT
node probe.mjs
