#!/usr/bin/env bash
# taustar 0.2.0 (Allan deviations, PyPI): its Théo1 of white noise is 36 to 47 % below the theory, which its other deviations
# follow.
#
# Théo1 is made to equal the Allan deviation of white frequency noise at 0.75 m samples (IEEE 1139, NIST SP 1065).
#
# Guess: of white noise of 1 all its deviations follow the theory, within what 4,000 samples allow.
# Seen: adev, oadev, mdev, hdev, ohdev and totdev do. theo1 gives 0.37, 0.24, 0.16, 0.11 for m of 4, 8, 16, 32, where the theory
# and allantools 2024.6 give 0.58, 0.41, 0.29, 0.20. The 0.75 of the definition multiplies in place of dividing, and each pair
# has the weight 2/m in place of one over its stride. Its docs: a bias-removed estimator.
# What to do: allantools.theo1.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check taustar==0.2.0 allantools==2024.6 numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
import allantools
import numpy as np
import taustar

white = np.random.default_rng(0).normal(size=4000)
as_seen = True
for name, factor in (('adev', 1), ('oadev', 1), ('mdev', 0.5 ** 0.5), ('hdev', 1), ('ohdev', 1), ('totdev', 1)):
    taus, got = (np.asarray(part) for part in getattr(taustar, name)(white, tau0=1.0)[:2])
    some = (taus >= 8) & (taus <= 128)
    ratio = got[some] * taus[some] ** 0.5 / factor
    print(f'{name}: ratio to the theory {ratio.round(2).tolist()}')
    as_seen &= np.abs(ratio - 1).max() < 0.3
taus, got = (np.asarray(part) for part in taustar.theo1(white, tau0=1.0)[:2])
some = taus <= 128
taus, got = taus[some], got[some]
theirs, right, *_ = allantools.theo1(white, rate=1.0, data_type='freq', taus=taus)
theory = 1 / (0.75 * taus) ** 0.5
for tau, value, other, wanted in zip(taus, got, right, theory):
    print(f'theo1, m {tau:.0f}: {value:.3f}, allantools {other:.3f}, theory {wanted:.3f}, ratio {value / wanted:.2f}')
print('factors of allantools', theirs.tolist())
as_seen &= len(right) == len(got) and np.abs(right / theory - 1).max() < 0.3 and (got / right).max() < 0.75
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
