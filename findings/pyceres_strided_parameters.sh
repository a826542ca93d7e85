#!/usr/bin/env bash
# pyceres 2.6: a parameter block that is a column of an array is optimised in the wrong places.
#
# Guess: a strided view of float64 (a column of an array of poses) is optimised in place, or refused
# as integers and float32 are.
# Seen: it is taken, and read and written as if its numbers lay side by side: of [[5, 6], [7, 8]] the
# column 0 with a prior at (1, 2) leaves [[1, 2], [7, 8]], that is, the other column is overwritten,
# the second number of this one is not touched, and the solver reports a cost of zero.
# What to do: numpy.ascontiguousarray before, and copy back.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyceres==2.6 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
import pyceres


def solve(block):
    problem = pyceres.Problem()
    prior = pyceres.factors.NormalPrior(np.array([1., 2.]), np.eye(2))
    problem.add_residual_block(prior, pyceres.TrivialLoss(), [block])
    summary = pyceres.SolverSummary()
    options = pyceres.SolverOptions()
    options.minimizer_progress_to_stdout = False
    pyceres.solve(options, problem, summary)
    return summary.final_cost


def optimised(select):
    values = np.array([[5., 6.], [7., 8.]])
    cost = solve(select(values))
    return values.round(3).tolist(), cost


row, row_cost = optimised(lambda values: values[0])
column, column_cost = optimised(lambda values: values[:, 0])
print('row 0:   ', row, f'cost {row_cost:.1e}; expected [[1, 2], [7, 8]]')
print('column 0:', column, f'cost {column_cost:.1e}; expected [[1, 6], [2, 8]]')
refused = []
for kind in (np.int64, np.float32):
    try:
        solve(np.array([5, 6], kind))
    except TypeError:
        refused.append(np.dtype(kind).name)
print('refused:', ', '.join(refused))
raise SystemExit(not (row == column == [[1, 2], [7, 8]] and column_cost < 1e-9
                      and refused == ['int64', 'float32']))
PYTHON
venv/bin/python probe.py
