#!/usr/bin/env bash
# gaussforge 0.6.0 (Gaussian splats): in a compressed PLY the spherical harmonics are out of order, so that
# colours change with the direction of view as they should not.
#
# A compressed PLY (PlayCanvas, SuperSplat) has the coefficients f_rest_0 ... f_rest_44 in 8 bits, with the
# names and the order of the uncompressed file: all of red, then all of green, then all of blue.
#
# Guess: converted from PLY to compressed.ply the coefficients keep their names, to half a step of 8 bits
# (1/64), read by gsply or by gaussforge itself.
# Seen: f_rest_1 has what was f_rest_15, f_rest_2 what was f_rest_30, f_rest_3 what was f_rest_1: colours
# within coefficients, as .spz has them (PlayCanvas' splat-transform 3.7.0 reads the same). Positions,
# rotations, scales, opacities and the mean colours are right, so it looks right at first. No error; with
# one degree of harmonics (9 coefficients) as with three. gsply's compressed PLY is right, and gaussforge
# reads that right.
# What to do: gsply.plywrite(path, gsply.plyread(path), compressed=True), or .sog, which is right.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  gaussforge==0.6.0 gsply==0.4.6 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
import gaussforge
import gsply
import numpy as np

rng = np.random.default_rng(0)
COUNT, STEP = 300, 8 / 256


def scene(path, coefficients):
    """Write random splats as PLY; return them by name."""
    names = ['x', 'y', 'z', 'f_dc_0', 'f_dc_1', 'f_dc_2',
             *(f'f_rest_{index}' for index in range(3 * coefficients)), 'opacity',
             'scale_0', 'scale_1', 'scale_2', 'rot_0', 'rot_1', 'rot_2', 'rot_3']
    splats = np.zeros(COUNT, [(name, '<f4') for name in names])
    for name in names:
        splats[name] = rng.normal(size=COUNT) * (0.2 if name.startswith('f_rest') else 1)
    splats['x'] = np.linspace(-9, 9, COUNT)  # to tell them apart by
    with open(path, 'wb') as file:
        file.write(b'ply\nformat binary_little_endian 1.0\nelement vertex %d\n' % COUNT
                   + ''.join(f'property float {name}\n' for name in names).encode()
                   + b'end_header\n' + splats.tobytes())
    return splats


def harmonics(path):
    """Return what gsply reads, in the order along x: [splat, channel * coefficient] and dc."""
    data = gsply.plyread(path)
    order = np.argsort(data.means[:, 0])
    higher = data.shN.reshape(COUNT, -1, 3).transpose(0, 2, 1).reshape(COUNT, -1)
    return higher[order], data.sh0[order]


def convert(source, source_format, target, target_format):
    with open(source, 'rb') as file:
        made = gaussforge.GaussForge().convert(file.read(), source_format, target_format)
    with open(target, 'wb') as file:
        file.write(made['data'])


as_seen = True
for coefficients in 3, 15:
    splats = scene('scene.ply', coefficients)
    wanted = np.stack([splats[f'f_rest_{index}'] for index in range(3 * coefficients)], 1)
    dc = np.stack([splats[f'f_dc_{index}'] for index in range(3)], 1)
    convert('scene.ply', 'ply', 'forge.compressed.ply', 'compressed.ply')
    convert('forge.compressed.ply', 'compressed.ply', 'back.ply', 'ply')
    gsply.plywrite('gsply.compressed.ply', gsply.plyread('scene.ply'), compressed=True)
    convert('gsply.compressed.ply', 'compressed.ply', 'crossed.ply', 'ply')
    off = {}
    for path in 'forge.compressed.ply', 'back.ply', 'gsply.compressed.ply', 'crossed.ply':
        found, found_dc = harmonics(path)
        off[path] = np.abs(found - wanted).max()
        as_seen &= bool(np.abs(found_dc - dc).max() < 0.1)
        if path == 'forge.compressed.ply':
            of = [int(np.abs(wanted - found[:, [index]]).max(0).argmin())
                  for index in range(3 * coefficients)]
    print(f'{3 * coefficients} coefficients: off by', {path: round(float(value), 4)
                                                      for path, value in off.items()})
    print('  forge.compressed.ply holds the coefficients', *of[:9], '...')
    as_seen &= of == [channel * coefficients + index for index in range(coefficients)
                      for channel in range(3)]
    as_seen &= bool(min(off['forge.compressed.ply'], off['back.ply']) > 0.3
                    and max(off['gsply.compressed.ply'], off['crossed.ply']) < 0.6 * STEP)
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
