#!/usr/bin/env bash
# small-mcap 0.16.0: read backwards, messages come in the order of their log times; read forwards,
# they do not.
#
# Guess: both directions are in the order of log times, as with the package mcap, and one is the
# reverse of the other. (A recorder that writes several topics from several threads leaves messages
# a little out of order within a chunk.)
# Seen: forwards, messages of a chunk come as they lie in the file: 10, 20, 15, 30. Backwards they
# are sorted: 30, 20, 15, 10. Two recordings that are read together are merged by what comes next,
# so a message of the second one ends up between the wrong neighbours: 10, 12, 18, 20, 15, 30, 33.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check small-mcap==0.16.0 mcap==1.6.0
cd "$folder"
cat >probe.py <<'PYTHON'
import io

from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer
from small_mcap import read_message


def recording(*times):
    stream = io.BytesIO()
    writer = Writer(stream, compression=CompressionType.NONE)
    writer.start()
    channel = writer.register_channel('/a', 'raw', writer.register_schema('x', 'raw', b''))
    for time in times:
        writer.add_message(channel, time, b'', time)
    writer.finish()
    stream.seek(0)
    return stream


def times(messages):
    return [message.log_time for _, _, message in messages]


one = (10, 20, 15, 30)
seen = {
    'mcap': times(make_reader(recording(*one)).iter_messages()),
    'small-mcap': times(read_message(recording(*one))),
    'small-mcap backwards': times(read_message(recording(*one), reverse=True)),
    'small-mcap, two files': times(read_message([recording(*one), recording(12, 18, 33)]))}
for name, order in seen.items():
    print(f'{name:24}', order)
raise SystemExit(list(seen.values()) != [
    [10, 15, 20, 30], [10, 20, 15, 30], [30, 20, 15, 10], [10, 12, 18, 20, 15, 30, 33]])
PYTHON
venv/bin/python probe.py
