#!/usr/bin/env bash
# gsply 0.4.6 (Python) and spz-js 1.2.5 (npm): Gaussian splats in SPZ files that they write stand on their head in other
# programs, and so do those of others in them.
#
# SPZ (Niantic) has x right, y up, z back, says its README; the PLY of splat trainers has x right, y down, z forward.
# Both packages convert one to the other. splat-transform (PlayCanvas) changes the axes on the way.
#
# Guess: a PLY that one package makes an SPZ of and another makes a PLY of has each splat where it was, to the 1/4096 of
# the format, and its colours from each side (spherical harmonics) as they were, whichever packages they are.
# Seen: to itself each is right. Between gsply and spz-js as well. Between one of these and splat-transform
# 2.7.1 everything is turned by half a turn about x: (x, y, z) is (x, -y, -z), orientations and harmonics
# with it. Nothing is raised, and the file cannot tell: it has no field for its axes.
# What to do: look at the scene after each conversion; or keep PLY, compressed PLY or SOG.
#
# Exit 0: it is so. Exit 1: it has changed. Needs Node.js.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check gsply==0.4.6 numpy==2.4.6
cd "$folder"
npm install --silent --no-audit --no-fund spz-js@1.2.5 @playcanvas/splat-transform@2.7.1
cat >by_js.mjs <<'JAVASCRIPT'
import {createReadStream, readFileSync, writeFileSync} from 'node:fs';
import {Readable} from 'node:stream';
import {loadPly, loadSpz, serializePly, serializeSpz} from 'spz-js';

const [source, target] = process.argv.slice(2);
const splats = source.endsWith('.spz') ? await loadSpz(readFileSync(source))
  : await loadPly(Readable.toWeb(createReadStream(source)));
const bytes = target.endsWith('.spz') ? await serializeSpz(splats) : serializePly(splats);
writeFileSync(target, Buffer.from(bytes));
JAVASCRIPT
cat >probe.py <<'PYTHON'
import subprocess

import gsply
import numpy as np

NAMES = [*'xyz', 'nx', 'ny', 'nz', 'f_dc_0', 'f_dc_1', 'f_dc_2', *(f'f_rest_{index}' for index in range(9)),
         'opacity', 'scale_0', 'scale_1', 'scale_2', 'rot_0', 'rot_1', 'rot_2', 'rot_3']
HALF_TURN = np.array([1, -1, -1])  # about x
HARMONICS = np.array([-1, -1, 1])  # the first degree is (y, z, x)
random = np.random.default_rng(3)
table = random.uniform(-0.9, 0.9, (50, len(NAMES))).astype('f4')
table[:, -7:-4] -= 3
table[:, -4:] /= np.linalg.norm(table[:, -4:], axis=1, keepdims=True)
header = ''.join(f'property float {name}\n' for name in NAMES)
with open('trained.ply', 'wb') as file:
    file.write(f'ply\nformat binary_little_endian 1.0\nelement vertex {len(table)}\n{header}end_header\n'.encode())
    file.write(table.tobytes())


def by_gsply(source, target):
    splats = (gsply.read_spz if source.endswith('.spz') else gsply.plyread)(source)
    if target.endswith('.spz'):
        gsply.write_spz(target, splats)
    else:
        gsply.plywrite(target, splats)


def by_js(source, target):
    subprocess.run(['node', 'by_js.mjs', source, target], check=True)


def by_playcanvas(source, target):
    subprocess.run(['node', 'node_modules/@playcanvas/splat-transform/bin/cli.mjs', '--quiet', '--overwrite',
                    '--spz-version', '3', source, target], check=True, stderr=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL)


def kind(path):
    """Return 'same' or 'half a turn about x', by places and by harmonics of the first degree."""
    found, wanted = gsply.plyread(path), gsply.plyread('trained.ply')
    places = {'same': wanted.means, 'half a turn about x': wanted.means * HALF_TURN}
    sides = {'same': wanted.shN, 'half a turn about x': wanted.shN * HARMONICS[:, None]}
    # splat-transform sorts the splats
    for name, expected in places.items():
        far = np.abs(expected[:, None] - found.means[None]).max(-1)
        if far.min(1).max() < 1e-3:
            order = far.argmin(1)
            assert np.abs(found.shN[order] - sides[name]).max() < 0.1
            return name
    return 'neither'


PROGRAMS = {'gsply': by_gsply, 'spz-js': by_js, 'splat-transform': by_playcanvas}
as_seen = True
for writer, write in PROGRAMS.items():
    write('trained.ply', 'scene.spz')
    for reader, read in PROGRAMS.items():
        if (writer, reader) in (('gsply', 'spz-js'), ('splat-transform', 'spz-js')):
            continue  # version 3, which spz-js refuses
        read('scene.spz', 'back.ply')
        name = kind('back.ply')
        print(f'PLY -> {writer} -> SPZ -> {reader} -> PLY: {name}')
        alike = (writer == 'splat-transform') == (reader == 'splat-transform')
        as_seen &= name == ('same' if alike else 'half a turn about x')
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
