#!/usr/bin/env bash
# trimesh 5.2.0: glTF with quantised or sparse vertices comes out as another shape, without a word.
#
# glTF may have vertices as normalised integers (KHR_mesh_quantization; gltf-transform quantize and
# optimize make such files), accessors that hold only what differs from zeros (sparse), colours of 16 bits, triangle
# fans, and clouds that are indexed.
#
# Guess: vertices, faces and colours of each are those that gltf-transform reads from the same file; or, as
# KHR_mesh_quantization is under extensionsRequired, the file is refused.
# Seen: a square of 1 m is one of 32,767 m after gltf-transform quantize: the integers are taken as they are. Of a
# sparse accessor only what it is laid over is read, or zeros. Colours of 16 bits are cut to their low byte (half
# green is black). A triangle fan has no vertices at all. A cloud that is indexed has all points of its
# buffer. Nothing is raised or logged. Plain floats, 8-bit and float colours and strips are right.
# What to do: npx @gltf-transform/cli dequantize, which writes plain floats, before.
#
# Exit 0: it is so. Exit 1: it has changed. Needs Node.js.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps trimesh==5.2.0 numpy==2.4.6
cd "$folder"
npm install --silent --no-audit --no-fund @gltf-transform/core@4.5.1 @gltf-transform/extensions@4.5.1 \
  @gltf-transform/functions@4.5.1
cat >write.py <<'PYTHON'
import base64
import json

import numpy as np

POINTS = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.5]], np.float32)


def write(name, parts, accessors, primitive):
    """Write a glTF of one primitive; each accessor names its part, or is sparse."""
    views, data = [], b''
    for part, stride in parts:
        views.append({'buffer': 0, 'byteOffset': len(data), 'byteLength': len(part), **stride})
        data += part
    uri = 'data:application/octet-stream;base64,' + base64.b64encode(data).decode()
    with open(name + '.gltf', 'w', encoding='utf-8') as file:
        json.dump({'asset': {'version': '2.0'}, 'scene': 0, 'scenes': [{'nodes': [0]}],
                   'nodes': [{'mesh': 0}], 'meshes': [{'primitives': [primitive]}], 'accessors': accessors,
                   'bufferViews': views, 'buffers': [{'byteLength': len(data), 'uri': uri}]}, file)


vertices = {'componentType': 5126, 'count': 4, 'type': 'VEC3', 'min': [0, 0, 0], 'max': [1, 1, 0.5]}
plain = (POINTS.tobytes(), {})


def indices(values):
    return ((np.array(values, np.uint16).tobytes(), {}),
            {'bufferView': 1, 'componentType': 5123, 'count': len(values), 'type': 'SCALAR'})


part, triangles = indices([0, 1, 2, 0, 2, 3])
mesh = {'attributes': {'POSITION': 0}, 'indices': 1}
write('plain', [plain, part], [{'bufferView': 0, **vertices}, triangles], mesh)
moved = {'count': 1, 'indices': {'bufferView': 2, 'componentType': 5123}, 'values': {'bufferView': 3}}
write('sparse', [plain, part, (np.array([2, 0], np.uint16).tobytes(), {}),
                 (np.array([5, 6, 7], np.float32).tobytes(), {})],
      [{'bufferView': 0, **vertices, 'max': [5, 6, 7], 'sparse': moved}, triangles], mesh)
colours = np.zeros((4, 4), np.uint16)
colours[:, :3] = [[65535, 0, 0], [0, 32768, 0], [0, 0, 65535], [10000, 20000, 30000]]
write('colours', [plain, part, (colours.tobytes(), {'byteStride': 8})],
      [{'bufferView': 0, **vertices}, triangles, {'bufferView': 2, 'componentType': 5123,
                                                  'normalized': True, 'count': 4, 'type': 'VEC3'}],
      {'attributes': {'POSITION': 0, 'COLOR_0': 2}, 'indices': 1})
part, fan = indices([0, 1, 2, 3])
write('fan', [plain, part], [{'bufferView': 0, **vertices}, fan], {**mesh, 'mode': 6})
part, two = indices([3, 1])
write('cloud', [plain, part], [{'bufferView': 0, **vertices}, two], {**mesh, 'mode': 0})
PYTHON
cat >read.mjs <<'JAVASCRIPT'
import fs from 'node:fs';
import {NodeIO} from '@gltf-transform/core';
import {ALL_EXTENSIONS} from '@gltf-transform/extensions';
import {quantize} from '@gltf-transform/functions';

const io = new NodeIO().registerExtensions(ALL_EXTENSIONS);
const plain = await io.read('plain.gltf');
await plain.transform(quantize());
await io.write('quantised.glb', plain);
const read = {};
for (const name of ['plain.gltf', 'quantised.glb', 'sparse.gltf', 'colours.gltf', 'fan.gltf', 'cloud.gltf']) {
  const document = await io.read(name);
  const [node] = document.getRoot().listNodes();
  const [primitive] = node.getMesh().listPrimitives();
  const elements = (accessor) => accessor && Array.from({length: accessor.getCount()},
    (_, index) => accessor.getElement(index, []));
  const matrix = node.getWorldMatrix();
  read[name] = {
    vertices: elements(primitive.getAttribute('POSITION')).map((point) => [0, 1, 2].map((row) =>
      matrix[row] * point[0] + matrix[4 + row] * point[1] + matrix[8 + row] * point[2] + matrix[12 + row])),
    colours: elements(primitive.getAttribute('COLOR_0')),
    used: elements(primitive.getIndices()).flat()};
}
fs.writeFileSync('read.json', JSON.stringify(read));
JAVASCRIPT
cat >probe.py <<'PYTHON'
import json

import numpy as np
import trimesh

with open('read.json', encoding='utf-8') as file:
    wanted = json.load(file)


def load(name):
    return next(iter(trimesh.load(name, process=False).dump()), None)


off = {}
for name in 'plain.gltf', 'quantised.glb', 'sparse.gltf':
    off[name] = np.abs(load(name).vertices - wanted[name]['vertices']).max()
colours = np.asarray(load('colours.gltf').visual.vertex_colors)[:, :3]
true_colours = np.round(255 * np.array(wanted['colours.gltf']['colours'])).astype(int)
fan, cloud = load('fan.gltf'), load('cloud.gltf')
corners = 0 if fan is None else len(fan.vertices)
for name, value in off.items():
    print(f'{name}: vertices off by {value:.4g} m')
print('colours of 16 bits:', colours.tolist(), 'for', true_colours.tolist())
print('fan:', corners, 'vertices for', len(set(wanted['fan.gltf']['used'])))
print('indexed cloud:', len(cloud.vertices), 'points for', len(wanted['cloud.gltf']['used']))
as_seen = (off['plain.gltf'] < 1e-6 and off['quantised.glb'] > 1e4 and off['sparse.gltf'] > 4
           and colours[1, 1] == 0 and true_colours[1, 1] == 128 and corners == 0 and len(cloud.vertices) == 4)
raise SystemExit(not as_seen)
PYTHON
venv/bin/python write.py
node read.mjs
venv/bin/python probe.py
