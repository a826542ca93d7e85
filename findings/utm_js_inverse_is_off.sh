#!/usr/bin/env bash
# utm 1.1.1 (npm): toLatLon() is up to 0.77 m off, and so is the way there and back.
#
# It is a translation of the Python package utm; pages that show a robot's path in metres put it on a map with it.
#
# Guess: toLatLon(fromLatLon(position)) is the position to a millimetre within the zone, as with the Python package
# and PROJ.
# Seen: fromLatLon agrees with PROJ to a millimetre. toLatLon is 3 cm off one degree of longitude from the middle of the
# zone, 23 cm at two and 77 cm at its edge, on the equator; 20 cm at the edge at 40 degrees north. It grows with the
# cube of that distance: where the formula has the second eccentricity squared (0.0067), there is another
# constant (0.0017), which the Python package has corrected.
# What to do: proj4, as below, or any other of PROJ.
#
# Exit 0: it is so. Exit 1: it has changed. Needs Node.js.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund utm@1.1.1 proj4@2.22.0
cat >probe.mjs <<'JAVASCRIPT'
import proj4 from 'proj4';
import utm from 'utm';

const EAST = 9;
const zone = `+proj=utm +zone=32 +datum=WGS84 +units=m`;
const RADIUS = 6378137;

function metres(latitude, one, other) {
  const north = one.latitude - other.latitude;
  const east = (one.longitude - other.longitude) * Math.cos(latitude * Math.PI / 180);
  return Math.hypot(north, east) * Math.PI / 180 * RADIUS;
}

let asSeen = true;
for (const latitude of [0, 20, 40, 60]) {
  for (const away of [0, 1, 2, 3]) {
    const truth = {latitude, longitude: EAST + away};
    const [easting, northing] = proj4(zone, [truth.longitude, latitude]);
    const there = utm.fromLatLon(latitude, truth.longitude, 32);
    const forward = Math.hypot(there.easting - easting, there.northing - northing);
    const back = metres(latitude, utm.toLatLon(easting, northing, 32, 'N'), truth);
    const [longitude, latitudeBack] = proj4(zone).inverse([easting, northing]);
    const projs = metres(latitude, {latitude: latitudeBack, longitude}, truth);
    console.log(`${latitude} N, ${away} degrees off the middle: there ${(1e3 * forward).toFixed(2)} mm off; ` +
      `back ${back.toFixed(4)} m off, PROJ ${projs.toFixed(4)} m`);
    asSeen &&= forward < 1.5e-3 && projs < 1e-4;
    if (away === 0) asSeen &&= back < 1e-3;
    if (away === 3 && latitude <= 40) asSeen &&= back > 0.15 && back < 1;
    if (away === 3 && latitude === 0) asSeen &&= back > 0.7;
  }
}
process.exit(asSeen ? 0 : 1);
JAVASCRIPT
node probe.mjs
