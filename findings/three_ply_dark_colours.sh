#!/usr/bin/env bash
# three.js r187 (npm three 0.187.0): its PLYLoader leaves 183 of the 256 greys of an 8-bit PLY, and
# the dark ones fall into steps.
#
# Guess: a vertex colour of 0 to 255 is shown as that colour, to a level: the loader turns sRGB into
# linear light, as it has done since 2022, and the renderer turns it back.
# Seen: the linear values are kept in 8 bits again. On the screen 1 to 6 are 0, 7 to 17 are 13, 18 to
# 25 are 22, and 73 of 256 levels are gone: dark rooms get patches. The same colours as `float`
# properties (0 to 1) are right, and so was r182, which kept a Float32Array for every type of the file.
# Coordinates of type double are a Float64Array now, which WebGL has no type for.
# What to do: write colours as floats for such a page, or stay with r182.
#
# Exit 0: it is so. Exit 1: it has changed. Needs Node.js.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund new@npm:three@0.187.0 old@npm:three@0.182.0
cat >probe.mjs <<'JAVASCRIPT'
async function greys(three, type) {
  const {Color, REVISION, SRGBColorSpace} = await import(three);
  const {PLYLoader} = await import(`${three}/examples/jsm/loaders/PLYLoader.js`);
  const lines = ['ply', 'format ascii 1.0', 'element vertex 256',
    ...['x', 'y', 'z'].map(name => `property double ${name}`),
    ...['red', 'green', 'blue'].map(name => `property ${type} ${name}`), 'end_header'];
  for (let grey = 0; grey < 256; grey++) {
    const value = type === 'uchar' ? grey : grey / 255;
    lines.push(`${grey} 0 0 ${value} ${value} ${value}`);
  }
  const {color, position} = new PLYLoader().parse(lines.join('\n') + '\n').attributes;
  const shown = Array.from({length: 256}, (_, index) => {
    const linear = new Color(color.getX(index), color.getY(index), color.getZ(index));
    return linear.getHex(SRGBColorSpace) & 255;
  });
  const levels = new Set(shown).size;
  const worst = Math.max(...shown.map((grey, index) => Math.abs(grey - index)));
  console.log(`r${REVISION} ${type}: ${color.array.constructor.name}, ${levels} levels, worst by ` +
    `${worst}, 0 to 25 are shown as ${shown.slice(0, 26)}; positions ` +
    position.array.constructor.name);
  return {levels, worst, dark: shown.slice(0, 26).join(), array: position.array.constructor.name};
}

const now = await greys('new', 'uchar');
const floats = await greys('new', 'float');
const before = await greys('old', 'uchar');
const steps = [...Array(7).fill(0), ...Array(11).fill(13), ...Array(8).fill(22)].join();
process.exit(now.levels === 183 && now.worst === 6 && now.dark === steps
  && now.array === 'Float64Array' && before.array === 'Float32Array'
  && floats.worst <= 1 && before.worst <= 1 ? 0 : 1);
JAVASCRIPT
node probe.mjs
