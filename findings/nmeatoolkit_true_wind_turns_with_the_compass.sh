#!/usr/bin/env bash
# nmeatoolkit 0.2 (NMEA 0183 pipes and converters, PyPI; with pynmea2 1.19.0): the true wind that
# its `truewind` pipe adds changes with the heading of the boat, and is off by knots and degrees.
#
# Apparent wind (MWV, reference R) and true wind (MWV, reference T) are both angles from the bow.
# The true one is the apparent one less the motion of the boat along the bow: a difference of
# vectors, in which the heading does not occur.
#
# Guess: for a valid HDT, VTG and MWV the pipe adds the MWV of that difference.
# Seen, at 6 knots with 14 knots of apparent wind at 45 degrees (true: 68.5 degrees, 10.6 knots):
#   heading 10: 64.0 degrees, 8.9 knots; heading 90: 63.4, 8.7; heading 200: 77.1, 17.5;
#   heading 300: 74.7, 14.8; heading 0: no sentence at all.
# With the apparent wind at 120 degrees there is none at the headings 10 and 300 either. Of the very
# same wind given in metres per second (M) or kilometres an hour (K) come other values again, marked
# as knots: 132.6 degrees and 1.3 knots for M. The unit of the sentence is not looked at.
# No message.
# Why: the speed is by the law of cosines with the angle between the apparent wind and a
# "true wind angle" that has the heading in it; the angle is by arc cosine of that speed.
# What to do: subtract the vectors.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  nmeatoolkit==0.2 pynmea2==1.19.0 python-dateutil==2.9.0.post0
cd "$folder"
cat >probe.py <<'PYTHON'
import math

import pynmea2
from nmeatoolkit.pipes.truewind import TrueWindPipe

KNOTS, WIND = 6.0, 14.0
UNITS = {'N': 1.0, 'M': 1852 / 3600, 'K': 1.852}


def truth(angle):
    """Angle from the bow and speed in knots of the true wind."""
    ahead = WIND * math.cos(math.radians(angle)) - KNOTS
    abeam = WIND * math.sin(math.radians(angle))
    return math.degrees(math.atan2(abeam, ahead)) % 360, math.hypot(ahead, abeam)


def piped(heading, angle, unit='N'):
    """What the pipe adds, or None."""
    pipe, added = TrueWindPipe(), []
    course = (f'{heading:.1f}', 'T', '', 'M', f'{KNOTS:.1f}', 'N', f'{KNOTS * 1.852:.3f}', 'K', 'A')
    wind = (f'{angle:.1f}', 'R', f'{WIND * UNITS[unit]:.3f}', unit, 'A')
    for made in (pynmea2.HDT('HE', 'HDT', (f'{heading:.1f}', 'T')),
                 pynmea2.VTG('GP', 'VTG', course), pynmea2.MWV('WI', 'MWV', wind)):
        sentence = pynmea2.parse(str(made), check=True)
        added = pipe.transform(sentence)[1:]
    return (float(added[0].wind_angle), float(added[0].wind_speed)) if added else None


results = {}
for angle in (45, 120):
    print(f'apparent {angle} degrees, {WIND} knots: true {truth(angle)}')
    for heading in (10, 90, 200, 300, 0):
        results[heading, angle] = piped(heading, angle)
        print(f'  heading {heading}: {results[heading, angle]}')
units = {unit: piped(90, 45, unit) for unit in UNITS}
print('one wind in three units at heading 90:', units)


def near(found, wanted, degrees=1.0, knots=0.1):
    if found is None:
        return False
    return abs(found[0] - wanted[0]) < degrees and abs(found[1] - wanted[1]) < knots


at_45 = [results[heading, 45] for heading in (10, 90, 200, 300)]
speeds = [found[1] for found in at_45 if found]
as_seen = len(speeds) == 4 and max(speeds) - min(speeds) > 5
as_seen &= not any(near(found, truth(angle)) for (_, angle), found in results.items())
as_seen &= results[0, 45] is None and results[0, 120] is None and results[10, 120] is None
as_seen &= not near(units['M'], units['N']) and not near(units['K'], units['N'])
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
