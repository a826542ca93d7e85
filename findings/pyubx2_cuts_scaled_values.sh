#!/usr/bin/env bash
# pyubx2 1.4.0 (u-blox GNSS): a message that is made of the values of a parsed one is not that message, and
# of ephemerides the small terms are rounded away when they are parsed.
#
# UBX fields are integers with a scale: the heading of NAV-PVT counts in 1e-5 degrees, DOP in 0.01.
#
# Guess: a value with as many digits as the field has is written as that integer, so that a message parsed
# and made again of its values (simulators, recordings cut or corrected) is the same, byte for byte; and
# parsed values carry all of the integer's digits.
# Seen: the quotient is cut, not rounded: a DOP of 1.15 is sent as 1.14, 2.3 as 2.29, a heading of
# 123.45678 degrees as 123.45677. Of 2000 messages made again of what was parsed the heading is one unit
# nearer to zero in 1085 and the DOP in 253. Latitudes and longitudes (1e-7) happen to be right.
# Parsed values are rounded to 12 decimals: in MGA-GPS-EPH the clock's drift af1 (unit 1.1e-13 s/s) of -5
# units comes out as -1e-12, 9 units, which is 3 ns or 0.9 m of range after two hours.
# What to do: give values a tenth of a unit more, away from zero; read ephemerides from the payload.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyubx2==1.4.0
cd "$folder"
cat >probe.py <<'PYTHON'
from pyubx2 import GET, SET, UBXMessage, UBXReader


def parsed(message):
    return UBXReader.parse(message.serialize(), msgmode=message.msgmode)


def from_units(count):
    """Return a NAV-PVT payload of so many units of heading, made byte by byte."""
    payload = bytearray(UBXMessage('NAV', 'NAV-PVT', GET, iTOW=1000).payload)
    payload[64:68] = count.to_bytes(4, 'little')  # headMot
    payload[76:78] = (count % 10000).to_bytes(2, 'little')  # pDOP
    payload[28:32] = (count * 170).to_bytes(4, 'little')  # lat
    return bytes(payload)


changed = {'headMot': 0, 'pDOP': 0, 'lat': 0}
total = 2000
for count in range(800_000, 800_000 + total):
    payload = from_units(count)
    read = UBXReader.parse(UBXMessage('NAV', 'NAV-PVT', GET, payload=payload).serialize())
    again = UBXMessage('NAV', 'NAV-PVT', GET, iTOW=1000, headMot=read.headMot, pDOP=read.pDOP, lat=read.lat)
    for name, where in (('headMot', slice(64, 68)), ('pDOP', slice(76, 78)), ('lat', slice(28, 32))):
        changed[name] += again.payload[where] != payload[where]
print(f'of {total} parsed and made again, changed:', changed)
pairs = []
for name, value in ('pDOP', 1.15), ('pDOP', 2.3), ('headMot', 123.45678):
    pairs.append((value, getattr(parsed(UBXMessage('NAV', 'NAV-PVT', GET, **{name: value})), name)))
    print(f'{name} {value}: sent as {pairs[-1][1]}')

UNIT = 2 ** -43
payload = bytearray(UBXMessage('MGA', 'MGA-GPS-EPH', SET, type=1, version=0).payload)
where = next(at for at in range(len(payload) - 1) if UBXMessage(
    'MGA', 'MGA-GPS-EPH', SET, type=1, version=0, af1=256.5 * UNIT).payload[at:at + 2] == b'\0\1')
payload[where:where + 2] = (-5).to_bytes(2, 'little', signed=True)
drift = parsed(UBXMessage('MGA', 'MGA-GPS-EPH', SET, payload=bytes(payload))).af1
print(f'af1 of -5 units ({-5 * UNIT:.3e} s/s): parsed as {drift}, {drift / UNIT:.1f} units')
raise SystemExit(not (changed['headMot'] > 0.2 * total and changed['pDOP'] > 0.01 * total
                      and all(sent < value for value, sent in pairs)
                      and drift < -7 * UNIT))
PYTHON
venv/bin/python probe.py
