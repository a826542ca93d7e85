#!/usr/bin/env bash
# pyais 3.3.1 (messages of ships' transponders, PyPI): the place in message 17 (corrections of a reference station) comes
# without its sign and in minutes.
#
# ITU-R M.1371: longitude (18 bits) and latitude (17 bits) of message 17 are signed, in tenths of minutes, as those of message 27.
#
# Guess: a station at 33 51.6 S, 151 12.0 W is read as -33.86, -151.2 degrees, and what pyais encodes it decodes to the same.
# Seen: 11075.6 and 17142.4: 2**17 and 2**18 less the tenths of minutes, divided by ten. North and east it gives minutes (2031.6
# for 33.86 degrees), where all other messages, 27 as well, are in degrees. Encoding -33.86, -151.2 and decoding gives
# 13073.4 and 26063.2. Nothing is said.
# What to do: take the 18 and 17 bits as two's complement, and 600 to the degree.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyais==3.3.1
cd "$folder"
cat >probe.py <<'PYTHON'
from functools import reduce

from pyais import decode
from pyais.encode import encode_dict


def sentence(*fields):
    """Pack (value, bits) pairs into one AIVDM sentence; negative values as two's complement."""
    text = ''.join(f'{value % 2**bits:0{bits}b}' for value, bits in fields)
    fill = -len(text) % 6
    text += '0' * fill
    codes = [int(text[place:place + 6], 2) for place in range(0, len(text), 6)]
    body = f'AIVDM,1,1,,A,{"".join(chr(code + (48 if code < 40 else 56)) for code in codes)},{fill}'
    return f'!{body}*{reduce(lambda one, other: one ^ other, body.encode()):02X}'


def station(lat, lon):
    """Give what pyais reads of message 17 and of message 27 at one place in degrees."""
    tenths = round(lon * 600), round(lat * 600)
    seventeen = decode(sentence((17, 6), (0, 2), (2734450, 30), (0, 2), (tenths[0], 18), (tenths[1], 17), (0, 5), (0, 40)))
    far = decode(sentence((27, 6), (0, 2), (2734450, 30), (1, 1), (0, 1), (0, 4), (tenths[0], 18), (tenths[1], 17), (5, 6), (90, 9),
                          (0, 1), (0, 1)))
    return seventeen.lat, seventeen.lon, far.lat, far.lon


as_seen = True
for place, wanted in (((33.86, 151.2), (2031.6, 9072.0)), ((-33.86, -151.2), (11075.6, 17142.4))):
    got = station(*place)
    print(place, 'message 17:', *got[:2], ' message 27:', *got[2:])
    as_seen &= got[:2] == wanted and all(abs(one - other) < 0.01 for one, other in zip(got[2:], place, strict=True))
own = decode(*encode_dict({'type': 17, 'mmsi': 2734450, 'lat': -33.86, 'lon': -151.2, 'data': b'\0'}, talker_id='AI'))
print('its own message of -33.86, -151.2:', own.lat, own.lon)
as_seen &= (own.lat, own.lon) == (13073.4, 26063.2)
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
