#!/usr/bin/env bash
# allan-variance-analyzer 1.0.4 (IMU noise for Kalibr): with overlap=0.5 the noise comes out far too small.
#
# AllanVarianceAnalyzer(config, folder, overlap=...)(data) writes Kalibr's imu.yaml from a recording of an IMU
# at rest. More overlap of the bins is meant to use the recording better.
#
# Guess: white noise and a random walk of known density come back within a half, with and without overlap.
# Seen: without overlap they do. With overlap=0.5 the noise densities are a ninth of the truth and the
# random walks a sixtieth (20 Hz, an hour, periods up to 100 s; with the default of 1000 s it is a
# thousandth). A filter tuned by such a file trusts its IMU far too much. Nothing is said. Two things go
# together: half of a bin in samples is taken where a fraction of a bin is meant, so that each bin
# begins one sample after the last; and neighbouring bins are compared, although they share all but one
# sample then, instead of bins one whole length apart, as the overlapping Allan variance (allantools) does.
# The array that is given is changed as well: its last three columns are degrees afterwards, so that a
# second run on the same array has a gyroscope 57 times as noisy.
# What to do: leave overlap at 0 and give a copy, or use allantools.oadev.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
  allan-variance-analyzer==1.0.4 numpy==2.4.6 scipy==1.17.1 pyyaml==6.0.3 tqdm==4.67.1 loguru==0.7.3 \
  matplotlib==3.10.7 contourpy==1.3.3 cycler==0.12.1 fonttools==4.60.1 kiwisolver==1.4.9 \
  packaging==25.0 pillow==12.0.0 pyparsing==3.2.5 python-dateutil==2.9.0.post0 six==1.17.0
cd "$folder"
cat >probe.py <<'PYTHON'
import contextlib
import io

import numpy as np
import yaml
from allan_variance_analyzer import AllanVarianceAnalyzer

RATE, SECONDS = 20, 3600
DENSITY = np.array([2e-3, 2e-3, 2e-3, 1e-4, 1e-4, 1e-4])  # m/s^2/sqrt(Hz), rad/s/sqrt(Hz)
WALK = DENSITY / 10
NAMES = ('accelerometer_noise_density', 'accelerometer_random_walk', 'gyroscope_noise_density',
         'gyroscope_random_walk')
TRUE = np.array([DENSITY[0], WALK[0], DENSITY[3], WALK[3]])


def analyse(data, overlap):
    """Return what imu.yaml says, as parts of the truth."""
    with open('config.yaml', 'w', encoding='utf-8') as file:
        yaml.safe_dump({'imu_rate': RATE, 'measure_rate': RATE}, file)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        AllanVarianceAnalyzer('config.yaml', '.', overlap=overlap, period_max=100)(data)
    with open('imu.yaml', encoding='utf-8') as file:
        found = yaml.safe_load(file)
    return np.array([found[name] for name in NAMES]) / TRUE


rng = np.random.default_rng(1)
shape = RATE * SECONDS, 6
data = (DENSITY * np.sqrt(RATE) * rng.normal(size=shape)
        + np.cumsum(WALK / np.sqrt(RATE) * rng.normal(size=shape), 0))
kept = data.copy()
plain = analyse(data, 0)
again = analyse(data, 0)
overlapped = analyse(kept.copy(), 0.5)
bins = np.cumsum(kept[:, 0])  # overlapping Allan deviation of half a second
size = RATE // 2
means = (bins[size:] - bins[:-size]) / size
reference = np.sqrt(np.mean((means[size:] - means[:-size]) ** 2) / 2 * 0.5) / DENSITY[0]
for name, parts in (('overlap=0', plain), ('overlap=0 again', again), ('overlap=0.5', overlapped)):
    print(f'{name:16}', *(f'{key} {part:.3f}' for key, part in zip(NAMES, parts, strict=True)))
print(f'overlapping as published: noise density {reference:.3f} (all as parts of the truth)')
as_seen = bool((abs(plain - 1) < 0.5).all() and abs(reference - 1) < 0.1
               and (overlapped[[0, 2]] < 0.5).all() and (overlapped[[1, 3]] < 0.05).all()
               and again[2] > 20 and not np.array_equal(data, kept))
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py 2>venv/log || { tail -n 5 venv/log; exit 1; }
