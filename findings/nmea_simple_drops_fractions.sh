#!/usr/bin/env bash
# nmea-simple 3.3.0 (npm): RMC loses the fraction of the second when it is read; GGA loses it, and the centimetres
# of the height, when it is written.
#
# Guess: the GGA and the RMC of one epoch of a 10 Hz receiver are read with one time, to the millisecond, and what
# was read from a GGA and written again reads the same, to the digits that the receiver had sent.
# Seen: GGA, GLL, GNS, GST and ZDA are read with their fraction, RMC without: ten fixes of a second have
# one time, and speed and course come up to 0.9 s before the position that they belong to (12 m at 50 km/h).
# GGA, GLL and GNS are written with whole seconds, heights with one decimal and positions with six decimals of a
# minute: an RTK fix of 1 cm becomes one of 5 cm. Nothing is said.
# What to do: take the time from GGA or ZDA; npm's gps 0.9.0 and Python's pynmeagps read RMC right.
#
# Exit 0: it is so. Exit 1: it has changed. Needs Node.js.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund nmea-simple@3.3.0 gps@0.9.0
cat >probe.cjs <<'JAVASCRIPT'
const {parseNmeaSentence: parse, encodeNmeaPacket: write} = require('nmea-simple');
const {GPS} = require('gps');

/** Return a sentence with its checksum. */
function sentence(body) {
  const sum = [...body].reduce((total, letter) => total ^ letter.charCodeAt(0), 0);
  return `$${body}*${sum.toString(16).toUpperCase().padStart(2, '0')}`;
}

const read = {RMC: new Set(), GGA: new Set(), ZDA: new Set(), 'RMC by gps': new Set()};
let height = 0, seconds = 0;
for (let tenth = 0; tenth < 10; tenth++) {
  const time = `115959.${tenth}00`;
  const place = '4800.1234567,N,01100.7654321,E';
  const gga = sentence(`GNGGA,${time},${place},4,12,0.87,512.${340 + tenth},M,46.912,M,0.7,0023`);
  const rmc = sentence(`GNRMC,${time},A,${place},27.000,84.40,020126,3.2,E`);
  const fix = parse(gga), again = parse(write(fix, 'GN'));
  read.GGA.add(fix.time.getTime());
  read.RMC.add(parse(rmc).datetime.getTime());
  read.ZDA.add(parse(sentence(`GNZDA,${time},02,01,2026,00,00`)).datetime.getTime());
  read['RMC by gps'].add(GPS.Parse(rmc).time.getTime());
  height = Math.max(height, Math.abs(again.altitudeMeters - fix.altitudeMeters));
  seconds = Math.max(seconds, Math.abs(again.time - fix.time) / 1000);
}
console.log('times read of ten epochs in a second:',
  Object.entries(read).map(([name, times]) => `${name} ${times.size}`).join(', '));
console.log(`GGA read, written and read again: time off by up to ${seconds} s, `
  + `height by ${height.toFixed(3)} m`);
const asSeen = read.RMC.size === 1 && read.GGA.size === 10 && read.ZDA.size === 10
  && read['RMC by gps'].size === 10 && seconds > 0.8 && height > 0.03;
process.exit(asSeen ? 0 : 1);
JAVASCRIPT
node probe.cjs
