#!/usr/bin/env bash
# gpxparser 3.0.8 and @we-gold/gpxjs 1.2.0 (npm): the distance of a GPX track counts the gaps between its segments as travelled.
#
# GPX 1.1: a segment is a continuous span of points; where reception was lost or the receiver was off, a new one starts.
#
# Guess: a track of two segments, 954 m and 322 m, 67 km and 25 minutes apart, is 1,277 m long and climbs by 179 m.
# Seen: 68,179 m and 237 m in both. The points are one list, so where the segments end cannot be seen any more, and a map draws
# a straight line. gpx 2026.4.0 (PyPI) gives 1,278 m and 179 m.
# What to do: read <trkseg> oneself and add up.
#
# Exit 0: it is so. Exit 1: it has changed. Needs Node.js.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check gpx==2026.4.0
cd "$folder"
npm install --silent --no-audit --no-fund gpxparser@3.0.8 @we-gold/gpxjs@1.2.0 jsdom@26.1.0
cat >write.py <<'PYTHON'
import math
from datetime import datetime, timedelta

import gpx

START = datetime(2026, 11, 20, 9)


def segment(points, start):
    """Give a <trkseg> of (latitude, longitude, height) triples 5 s apart."""
    text = ''.join(f'<trkpt lat="{lat}" lon="{lon}"><ele>{height}</ele>'
                   f'<time>{(start + timedelta(seconds=5 * place)).isoformat()}Z</time></trkpt>'
                   for place, (lat, lon, height) in enumerate(points))
    return f'<trkseg>{text}</trkseg>'


def length(points):
    """Add up great circles in metres."""
    total = 0.0
    for one, other in zip(points, points[1:]):
        (lat, lon), (lat2, lon2) = (map(math.radians, point[:2]) for point in (one, other))
        total += 2 * 6371008.8 * math.asin(math.sqrt(math.sin((lat2 - lat) / 2)**2
                                                     + math.cos(lat) * math.cos(lat2) * math.sin((lon2 - lon) / 2)**2))
    return total


first = [(47 + 0.001 * math.sin(place / 5) + 2e-5 * place, 8 + 1e-4 * place, 400 + 50 * math.sin(place / 7))
         for place in range(60)]
second = [(47.5 + 1e-4 * place, 8.5, 500 + place) for place in range(30)]
with open('track.gpx', 'w') as stream:
    stream.write('<?xml version="1.0" encoding="UTF-8"?><gpx version="1.1" creator="made" '
                 'xmlns="http://www.topografix.com/GPX/1/1"><trk>'
                 f'{segment(first, START)}{segment(second, START + timedelta(minutes=30))}</trk></gpx>')
track = gpx.read_gpx('track.gpx').trk[0]
print(f'by hand {length(first):.0f} and {length(second):.0f} m;',
      f'gpx: {float(track.total_distance):.0f} m, climb {track.total_ascent:.0f} m')
raise SystemExit(abs(float(track.total_distance) - length(first) - length(second)) > 5)
PYTHON
venv/bin/python write.py
cat >probe.mjs <<'JAVASCRIPT'
import {readFileSync} from 'node:fs';
import {JSDOM} from 'jsdom';

globalThis.window = new JSDOM('').window;
globalThis.document = window.document;
globalThis.DOMParser = window.DOMParser;
const {default: GpxParser} = await import('gpxparser');
const {parseGPX} = await import('@we-gold/gpxjs');

const text = readFileSync('track.gpx', 'utf8');
const one = new GpxParser();
one.parse(text);
const [other, error] = parseGPX(text);
const found = [
  ['gpxparser', one.tracks[0].distance.total, one.tracks[0].elevation.pos, one.tracks[0].points.length],
  ['@we-gold/gpxjs', other.tracks[0].distance.total, other.tracks[0].elevation.positive, other.tracks[0].points.length],
];
for (const [name, metres, climb, points] of found)
  console.log(`${name}: ${metres.toFixed(0)} m, climb ${climb.toFixed(0)} m, ${points} points in one list`);
const asSeen = error === null && found.every(([, metres, climb, points]) =>
  Math.abs(metres - 68179) < 50 && Math.abs(climb - 237) < 1 && points === 90);
process.exit(asSeen ? 0 : 1);
JAVASCRIPT
node --no-warnings probe.mjs
