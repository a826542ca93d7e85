#!/usr/bin/env bash
# expelliarmus 1.1.12 (event cameras): the times of EVT3 files, the format of Prophesee's newer sensors,
# grow twice as fast as they should, and EVT3 files that it writes have wrong times for everybody.
#
# EVT3 sends the upper and the lower 12 bits of a time in words of their own (EVT_TIME_HIGH,
# EVT_TIME_LOW), whenever they change; the lower ones start again as the upper ones count on.
#
# Guess: events of 2 s come out with their times to the microsecond, as faery reads them, however often
# the file repeats the time; a file that is written by Wizard.save() is read back with the same times.
# Seen: the last of 2 s of events is at 4 s: each new start of the lower 12 bits is counted as another
# 4096 us, on top of the upper ones. 99.8 per cent of the times are wrong, without a warning; so are
# all ways to write the words, also with a word every 16 us, as a sensor does. x, y and polarity are right.
# Of its own files faery reads the last event at less than 5 ms: only the first upper word is there.
# EVT2 and DAT files are right. Writing was reported in 2023 (its issue 20).
# What to do: faery, or evlib.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  expelliarmus==1.1.12 faery==0.7.1 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
import faery
import numpy as np
from expelliarmus import Wizard

HEADER = b'% evt 3.0\n% format EVT3;height=720;width=1280\n% geometry 1280x720\n% end\n'
TIME_HIGH, TIME_LOW, ADDRESS_X = 0x8000, 0x6000, 0x2000
COUNT, DURATION = 20000, 2_000_000
rng = np.random.default_rng(0)
events = np.zeros(COUNT, [('t', '<i8'), ('x', '<i2'), ('y', '<i2'), ('p', 'u1')])
events['t'] = np.sort(rng.integers(0, DURATION, COUNT))
events['x'], events['y'] = rng.integers(0, 1280, COUNT), rng.integers(0, 720, COUNT)
events['p'] = rng.integers(0, 2, COUNT)


def encode(path, every):
    """Write the events as EVT3, with the time's words also every so many microseconds (0: no more)."""
    words, high, low, row, tick = [], None, None, None, 0
    for t, x, y, p in events.tolist():
        while every and tick <= t:
            high, low = tick >> 12, tick & 0xfff
            words += [TIME_HIGH | high, TIME_LOW | low]
            tick += every
        if t >> 12 != high:
            high, low = t >> 12, None
            words.append(TIME_HIGH | high)
        if t & 0xfff != low:
            low = t & 0xfff
            words.append(TIME_LOW | low)
        if y != row:
            row = y
            words.append(row)
        words.append(ADDRESS_X | p << 11 | x)
    with open(path, 'wb') as file:
        file.write(HEADER + np.array(words, '<u2').tobytes())


def by_faery(path):
    return np.concatenate([part.copy() for part in faery.events_stream_from_file(path)])


as_seen = True
for every in 0, 256, 16:
    encode('made.raw', every)
    right, read = by_faery('made.raw'), Wizard(encoding='evt3').read('made.raw')
    wrong = (read['t'] != events['t']).mean()
    print(f'time every {every or "change"}: the last of {events["t"][-1]} us is at '
          f'{right["t"][-1]} us (faery), {read["t"][-1]} us (expelliarmus); {wrong:.1%} are wrong')
    as_seen &= bool((right['t'] == events['t']).all() and (right['x'] == events['x']).all()
                    and (read['x'] == events['x']).all() and (read['p'] == events['p']).all()
                    and wrong > 0.9 and read['t'][-1] > 1.8 * DURATION)
for encoding in 'evt2', 'evt3':
    Wizard(encoding=encoding).save(fpath='saved.raw', arr=events)
    right = by_faery('saved.raw')
    print(f'{encoding} saved by expelliarmus: faery reads the last at {right["t"][-1]} us')
    as_seen &= bool((right['t'] == events['t']).all()) == (encoding == 'evt2')
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
