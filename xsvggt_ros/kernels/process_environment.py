"""
What numpy, SciPy and torch read from the environment: imported before these are.

What the environment says already stays.

- One thread for numpy's and SciPy's matrix products: the trajectory's are of a few hundred numbers
  each. The threads of numpy's OpenBLAS wait for each other in loops: on two cores a frame took
  more than twice the processor time, and images were lost beside other programs.
- Pages of 2 MB for torch's larger tensors, where Linux has them for whoever asks: those of 4 KB
  cost the caches a twentieth of a second when they are first written, and small networks 3 % of
  each frame (docs/performance.md).
"""

import os

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')
