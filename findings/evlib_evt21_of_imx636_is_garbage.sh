#!/usr/bin/env bash
# evlib 0.13.2 (event cameras, PyPI): EVT 2.1 files of Sony's IMX636 (Prophesee EVK4) come as other events, or as none.
#
# By Prophesee's documentation ("EVT 2.1 Format") the IMX636 sends a word of 64 bits as two of 32, the upper one first, the
# GenX320 as one; the RAW header says which: "% endianness legacy" or "little".
#
# Guess: load_events() ("EVT2/EVT3/EVT2.1") gives the 3,000 events that were written, in either order, or refuses one.
# Seen: with "little" it does. With "legacy" detect_format() says EVT2.1 and 53,443 events come, many at (0, 0), whose times,
# places and polarities are those of halves of words. A file that evutils 0.3.18 has written (legacy, too) gives none of its
# 3,000. evutils reads both right. Nothing is raised or printed.
# What to do: swap the halves before, or read such files with evutils.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check evlib==0.13.2 evutils==0.3.18 polars==2.1.0 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
import struct

import evlib
import numpy as np
from evutils.io import EventReader
from evutils.io.encoders import EventEncoder_EVT
from evutils.types import Event_dtype

COUNT = 3000
random = np.random.default_rng(0)
events = np.zeros(COUNT, Event_dtype)
events['t'], events['x'] = np.sort(random.integers(0, 3_000_000, COUNT)), random.integers(0, 1280, COUNT)
events['y'], events['p'] = random.integers(0, 720, COUNT), random.integers(0, 2, COUNT)


def words():
    """Yield the words of the format: one for the high bits of the time where they change, one for each event."""
    high = None
    for t, x, y, p in zip(*(events[name].tolist() for name in 'txyp'), strict=True):
        if t >> 6 != high:
            high = t >> 6
            yield 8 << 60 | high << 32
        yield int(p) << 60 | (t & 63) << 54 | (x & ~31) << 43 | y << 32 | 1 << (x & 31)


def write(order):
    """Write the events with the words in this order of halves."""
    with open(f'{order}.raw', 'wb') as stream:
        stream.write(f'% date 2026-11-20 10:00:00\n% endianness {order}\n% evt 2.1\n% format EVT21;height=720;width=1280\n'
                     f'% geometry 1280x720\n% integrator_name Prophesee\n% end\n'.encode())
        for word in words():
            stream.write(struct.pack('<Q', word) if order == 'little' else struct.pack('<II', word >> 32, word & 0xFFFFFFFF))


def same(t, x, y, p):
    """Say whether these are the events that were written."""
    found = sorted(zip(*(np.asarray(part).astype(int).tolist() for part in (t, x, y, p)), strict=True))
    return found == sorted(zip(*(events[name].astype(int).tolist() for name in 'txyp'), strict=True))


def by_evlib(path):
    """Return how many events evlib reads, and whether they are those that were written."""
    frame = evlib.load_events(path).collect()
    times = frame['t'].dt.total_microseconds()
    return len(frame), same(times, frame['x'], frame['y'], frame['polarity'].to_numpy() > 0)


def by_evutils(path):
    """Say whether evutils reads the events that were written."""
    found = EventReader(path).read_all()
    found = found[0] if isinstance(found, tuple) else found
    return same(found['t'], found['x'], found['y'], found['p'])


write('little')
write('legacy')
with open('evutils.raw', 'w+b') as stream:
    encoder = EventEncoder_EVT(stream, 1280, 720, format='EVT21')
    encoder.init()
    encoder.write(events)
got = {name: by_evlib(f'{name}.raw') for name in ('little', 'legacy', 'evutils')}
right = [by_evutils('legacy.raw'), by_evutils('evutils.raw')]
print(f'evlib, of {COUNT} events: {got}; format {evlib.detect_format("legacy.raw")[0]}; evutils right: {right}')
raise SystemExit(not (got['little'] == (COUNT, True) and got['legacy'][0] > 10 * COUNT and not got['legacy'][1]
                      and got['evutils'] == (0, False) and right == [True, True]
                      and evlib.detect_format('legacy.raw')[0] == 'EVT2.1'))
PYTHON
venv/bin/python probe.py
