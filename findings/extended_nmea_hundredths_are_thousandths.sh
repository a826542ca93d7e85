#!/usr/bin/env bash
# extended-nmea 2.1.3 (npm): the fraction of a second in NMEA 0183 is read as a number of milliseconds: 12:00:00.90 is
# 12:00:00.090. @signalk/nmea0183-signalk 3.20.1 drops it in all sentences of positions but RMC.
#
# Guess: the ten fixes of a 10 Hz receiver are 100 ms apart, whichever sentence they are taken from.
# Seen: extended-nmea has the fixes hhmmss.00, .10, … .90, as many receivers write them, 10 ms apart, and 910 ms to the next
# second; with three digits they are right, with one it raises. RMC, GGA and GLL alike. In nmea0183-signalk
# all ten fixes of GGA, GLL and GNS have the time of the full second, while RMC's are right, so position and speed of
# one epoch are up to 0.9 s apart (12 m at 50 km/h). Nothing is said.
# What to do: a receiver that sends three digits; npm's gps 0.9.0 reads all of them right.
#
# Exit 0: it is so. Exit 1: it has changed. Needs Node.js.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund extended-nmea@2.1.3 @signalk/nmea0183-signalk@3.20.1 gps@0.9.0
cat >probe.cjs <<'JAVASCRIPT'
const {Decoder} = require('extended-nmea');
const Signalk = require('@signalk/nmea0183-signalk');
const {GPS} = require('gps');

/** Return a sentence with its checksum and end. */
function sentence(body) {
  const sum = [...body].reduce((total, letter) => total ^ letter.charCodeAt(0), 0);
  return `$${body}*${sum.toString(16).toUpperCase().padStart(2, '0')}`;
}

const PLACE = '4916.4500,N,01131.1200,E';
const SENTENCES = {
  RMC: time => `GPRMC,${time},A,${PLACE},005.5,054.7,150726,,,A`,
  GGA: time => `GPGGA,${time},${PLACE},4,12,0.9,545.4,M,46.9,M,,`,
  GLL: time => `GPGLL,${PLACE},${time},A,A`,
  GNS: time => `GNGNS,${time},${PLACE},RR,13,0.9,25.6,11.2,,`,
};
const NOON = 12 * 3600e3;
const READERS = {
  'extended-nmea': line => {
    const read = Decoder.decode(line + '\r\n');
    if (!read.valid) throw new Error('not valid');
    return read.time.totalMilliseconds - NOON;
  },
  'nmea0183-signalk': line => Date.parse(new Signalk().parse(line).updates[0].timestamp) % 86400e3 - NOON,
  gps: line => GPS.Parse(line).time.getTime() % 86400e3 - NOON,
};

let asSeen = true;
const tenths = [...Array(10).keys()];
for (const [name, read] of Object.entries(READERS)) {
  for (const [kind, body] of Object.entries(SENTENCES)) {
    if (kind === 'GNS' && name !== 'nmea0183-signalk') continue;
    for (const digits of name === 'extended-nmea' ? [2, 3] : [1, 2, 3]) {
      const times = tenths.map(tenth => read(sentence(body(`120000.${tenth}${'0'.repeat(digits - 1)}`))));
      console.log(`${name}, ${kind}, ${digits} digits: ${times} ms after noon`);
      let step = 100;
      if (name === 'extended-nmea') step = 10 ** (digits - 1);
      if (name === 'nmea0183-signalk' && kind !== 'RMC') step = 0;
      asSeen &&= times.every((time, tenth) => time === tenth * step);
    }
  }
}
process.exit(asSeen ? 0 : 1);
JAVASCRIPT
node probe.cjs
