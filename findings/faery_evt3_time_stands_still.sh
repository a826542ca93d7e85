#!/usr/bin/env bash
# faery 0.7.1 (streams and files of event cameras, PyPI): EVT3 files that it has written come back with the clock stopped
# at 16.8 s, if the scene was still for 8 ms at that moment.
#
# EVT3 has 24 bits for microseconds, so its clock starts again every 16.8 s; the high 12 bits come in words of their own.
#
# Guess: events written with to_file(version='evt3') and read with events_stream_from_file() have their times, for
# as long a recording as one likes.
# Seen: they have if events come at least every 4 ms. If none come for 10 ms where the clock starts again, all later ones
# lie within the 4 ms after that moment, to the next such place at the earliest: of 5000 events spread over a minute 3,605
# are up to 34 s early, 2,334 of them at one instant. The same pause anywhere else does no harm. The file is good: read by
# the published format it has all times, and files that step through every high word, as sensors do, are read right. A
# recording that was filtered (noise, a region) and saved again is such a file. EVT2, DAT and AEDAT4 keep all times.
# Nothing is said.
# What to do: save as AEDAT4 or DAT.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check faery==0.7.1 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
from pathlib import Path

import faery
import numpy as np

TURN = 1 << 24  # microseconds until EVT3's clock starts again
SIZE = (1280, 720)


def events(times):
    """Return events at the given times in microseconds."""
    made = np.zeros(len(times), dtype=faery.EVENTS_DTYPE)
    made['t'], made['x'], made['y'] = times, np.arange(len(times)) % SIZE[0], np.arange(len(times)) // 7 % SIZE[1]
    return made


def round_trip(made, name, **version):
    """Return the events that come back from a file."""
    faery.events_stream_from_array(made, SIZE).to_file(name, **version)
    return faery.events_stream_from_file(name).to_array()


def decode(name):
    """Return the times in the file by the published format (0x8: high 12 bits, 0x6: low 12 bits, 0x2: an event)."""
    data, start = Path(name).read_bytes(), 0
    while data[start:start + 1] == b'%':
        start = data.index(b'\n', start) + 1
    times, high, low, turns = [], None, 0, 0
    for word in np.frombuffer(data[start:], '<u2').tolist():
        kind, value = word >> 12, word & 0xFFF
        if kind == 0x8:
            turns += high is not None and value < high
            high = value
        elif kind == 0x6:
            low = value
        elif kind == 0x2:
            times.append(turns * TURN + (high << 12) + low)
        elif kind != 0x0:
            raise SystemExit(f'type {kind} is not expected')
    return np.array(times)


def encode(made, name):
    """Write the file as a sensor does, with all the words for the high bits."""
    words, high = [], -1
    for t, x, y in zip(made['t'].tolist(), made['x'].tolist(), made['y'].tolist()):
        while high < t >> 12:
            high += 1
            words.append(0x8000 | high & 0xFFF)
        words += [0x6000 | t & 0xFFF, y, 0x2000 | x]
    head = f'% evt 3.0\n% format EVT3;width={SIZE[0]};height={SIZE[1]}\n% geometry {SIZE[0]}x{SIZE[1]}\n% end\n'
    Path(name).write_bytes(head.encode() + np.array(words, '<u2').tobytes())


def early(made, got):
    """Return by how many microseconds the events that came back are early."""
    return made['t'].astype(np.int64) - got['t'].astype(np.int64)


as_seen = True
for pause in (1000, 3000, 10_000, 1_000_000):
    for middle in (TURN // 2, TURN):
        made = events(np.r_[0:middle - pause // 2:1000, middle + pause // 2:20_000_000:1000])
        got = round_trip(made, 'pause.raw', version='evt3')
        off, after = early(made, got), made['t'] > TURN
        print(f'{pause / 1000:g} ms without events about {middle / 1e6:.3f} s: {np.count_nonzero(off)} events are early, by '
              f'up to {off.max() / 1e6:.3f} s; those after 16.777 s lie within {np.ptp(got["t"][after]) / 1e6:.3f} s')
        if middle == TURN and pause > 8000:
            as_seen &= (off[after] > 0).all() and np.ptp(got['t'][after]) < 4096 and off.max() > 3e6
        else:
            as_seen &= not off.any()
        as_seen &= np.array_equal(decode('pause.raw'), made['t'])
made = events(np.sort(np.random.default_rng(0).integers(0, 60_000_000, 5000)))
made['t'][0] = 0
got = round_trip(made, 'sparse.raw', version='evt3')
off = early(made, got)
print(f'5000 events in a minute: {np.count_nonzero(off)} are early, by up to {off.max() / 1e6:.1f} s; '
      f'{np.unique(got["t"], return_counts=True)[1].max()} of them have one time stamp')
as_seen &= np.count_nonzero(off) > 3000 and off.max() > 3e7 and np.array_equal(decode('sparse.raw'), made['t'])
encode(made, 'sensor.raw')
as_seen &= np.array_equal(faery.events_stream_from_file('sensor.raw').to_array()['t'], made['t'])
for name, version in (('e.raw', {'version': 'evt2'}), ('e.dat', {'version': 'dat2'}), ('e.aedat4', {})):
    as_seen &= np.array_equal(round_trip(made, name, **version)['t'], made['t'])
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
