"""
One thread for the matrix products of numpy and SciPy: imported before these are.

The trajectory's products are of a few hundred numbers each. The threads of numpy's OpenBLAS wait
for each other in loops: on two cores a frame took more than twice the processor time, and images
were lost beside other programs (docs/performance.md). What the environment says already stays.
"""

import os

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
