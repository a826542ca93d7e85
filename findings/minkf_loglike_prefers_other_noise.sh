#!/usr/bin/env bash
# minkf 0.0.5 (Kalman filter and smoother, PyPI): what it calls the log-likelihood is neither that nor its negative: half of the
# misfit and the whole of the log determinant. Noises that are tuned with it come out far too small.
#
# Of Gaussian innovations e with covariance S the log-likelihood is the sum of -(e' S^-1 e + log det 2 pi S) / 2.
#
# Guess: the observation noise at which `loglike` has its extremum is that of the data, whatever its sign and constant are (its
# README: for hyperparameter tuning).
# Seen: for 2,000 samples of a random walk (variance 0.05 a step) observed with a variance of 0.3 its one minimum is at 0.14,
# and it has no maximum; the likelihood has its maximum at 0.30. The states are the textbook's. With half of the determinant,
# too, the extremum is at 0.30.
# What to do: sum it from yp and Cyp, which run_filter(..., likelihood=True, predict_y=True) returns.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check minkf==0.0.5 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
import minkf
import numpy as np

STEP, NOISE, ONE = 0.05, 0.3, np.eye(1)
random = np.random.default_rng(0)
walk = np.cumsum(random.normal(0, STEP ** 0.5, 2000))
seen = walk + random.normal(0, NOISE ** 0.5, len(walk))


def textbook(noise):
    """Log-likelihood and filtered states of the random walk, prior (0, 1) before the first step."""
    mean, variance, total, states = 0.0, 1.0, 0.0, []
    for value in seen:
        variance += STEP
        spread, off = variance + noise, value - mean
        total -= (off ** 2 / spread + np.log(2 * np.pi * spread)) / 2
        mean += variance / spread * off
        variance -= variance ** 2 / spread
        states.append(mean)
    return total, np.array(states)


noises = np.array([0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.7, 1.0])
values, right, halved = [], [], []
same = True
for noise in noises:
    result = minkf.run_filter(seen[:, None], np.zeros(1), ONE, ONE, ONE, STEP * ONE, noise * ONE, likelihood=True, predict_y=True)
    total, states = textbook(noise)
    same &= np.allclose(np.ravel(result['x']), states)
    spread, off = np.ravel(result['Cyp']), seen - np.ravel(result['yp'])
    values.append(float(result['loglike']))
    right.append(total)
    halved.append(-float((off ** 2 / spread + np.log(2 * np.pi * spread)).sum() / 2))
    same &= np.isclose(values[-1], (off ** 2 / spread / 2 + np.log(2 * np.pi * spread)).sum())
    print(f'noise {noise}: loglike {values[-1]:.1f}, log-likelihood {total:.1f}, from yp and Cyp {halved[-1]:.1f}')
lowest, best, mended = noises[np.argmin(values)], noises[np.argmax(right)], noises[np.argmax(halved)]
print(f'lowest loglike at {lowest}, greatest likelihood at {best}, from yp and Cyp at {mended}; states as the textbook: {same}')
turns = np.sign(np.diff(values))
as_seen = same and 0.08 <= lowest <= 0.16 and 0.25 <= best <= 0.35 and mended == best and np.count_nonzero(np.diff(turns)) == 1
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
