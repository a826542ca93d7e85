"""
Compile every kernel for a GPU that need not be there: `compile_kernels.py CAPABILITY`.

Fails if one does not compile, spills registers, or takes more shared memory than a block gets.
Needs a process of its own, in which Triton does not interpret.
"""

from pathlib import Path
import re
import subprocess
import sys
import tempfile

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import compiler as nvidia
from triton.compiler import ASTSource

from xsvggt_ros.kernels import gemv, packed, qkv

SHARED_BYTES = {80: 163 << 10, 87: 163 << 10, 89: 99 << 10, 90: 227 << 10}
POINTERS = {
    'row_of': 'i64', 'slot_of': 'i64', 'id_of': 'i64',
    'statistics': 'fp16', 'rows': 'i32', 'row_of_slot': 'i32',
    'key_payload': 'u8', 'key_scale': 'fp16', 'value_payload': 'u8', 'value_scale': 'fp16',
    'query_weight': 'fp32', 'query_bias': 'fp32', 'key_weight': 'fp32', 'key_bias': 'fp32',
    'cosines': 'fp32', 'sines': 'fp32', 'weights': 'i8'}
# In the precision that is computed in.
FLOATS = ('query', 'key', 'value', 'out', 'keys', 'values', 'packed', 'x', 'scales', 'bias',
          'residual')


def build(function, constants, kind, capability, warps):
    """Compile one kernel, and check what it takes of a multiprocessor."""
    pointers = {**POINTERS, **dict.fromkeys(FLOATS, kind)}
    signature = {}
    for name in function.arg_names:
        signature[name] = f'*{pointers[name]}' if name in pointers else 'i32'
        if name in ('factor', 'eps'):
            signature[name] = 'fp32'
        if name in constants:
            signature[name] = 'constexpr'
    source = ASTSource(function, signature, constexprs={
        (function.arg_names.index(name),): value for name, value in constants.items()})
    target = GPUTarget('cuda', capability, 32)
    kernel = triton.compile(source, target=target, options={'num_warps': warps})
    name = f'{function.__name__} in {kind} for {capability}'
    if kernel.metadata.shared > SHARED_BYTES[capability]:
        raise SystemExit(f'{name} takes {kernel.metadata.shared} bytes of shared memory')
    with tempfile.TemporaryDirectory() as folder:
        ptx = Path(folder, 'kernel.ptx')
        ptx.write_text(kernel.asm['ptx'])
        said = subprocess.run(
            [nvidia.get_ptxas(capability).path, '-v', f'--gpu-name=sm_{capability}'
             + 'a' * (capability == 90), ptx, '-o', Path(folder, 'kernel.cubin')],
            check=True, stderr=subprocess.PIPE, text=True).stderr
    spilled = sum(map(int, re.findall(r'(\d+) bytes spill', said)))
    registers, = re.findall(r'Used (\d+) registers', said)
    print(f'{name}: {registers} registers, {kernel.metadata.shared} bytes shared, '
          f'{spilled} bytes spilled')
    if spilled:
        raise SystemExit(f'{name} spills {spilled} bytes of registers')


def main():
    """Compile all kernels in all precisions for the capability that is asked for."""
    capability = int(sys.argv[1])
    for kind in ('bf16', 'fp16', 'fp32'):
        block = {'HALF': 32, 'BITS': 4, 'TOKENS': packed.TOKENS}
        queries, keys = packed.TILE_FP32 if kind == 'fp32' else packed.TILE
        tile = {'HALF': 32, 'BITS': 4, 'QUERIES': queries, 'KEYS': keys, 'WIDE': False}
        build(packed._fit, {'DIM': 64, 'TOKENS': packed.TOKENS}, kind, capability, 4)
        build(packed._insert, block, kind, capability, 4)
        build(packed._decode, block, kind, capability, 4)
        build(packed._attend, tile, kind, capability, 8)
        build(qkv._split, {'NORM': True, 'ROTARY': True, 'DIM': 64, 'TOKENS': qkv.TOKENS},
              kind, capability, 4)
        build(gemv._product, {'BIAS': True, 'GELU': True, 'RESIDUAL': True,
                              'OUTPUTS': gemv.OUTPUTS, 'INPUTS': gemv.INPUTS}, kind, capability, 4)


if __name__ == '__main__':
    main()
