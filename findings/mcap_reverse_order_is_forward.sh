#!/usr/bin/env bash
# mcap 1.6.0 (reads and writes MCAP, PyPI): iter_messages(reverse=True) goes forward in files without a chunk index, so what
# is taken for the last message is the first.
#
# Files without chunks are valid MCAP; rosbag2 writes them with its preset "fastwrite". By the documentation messages come
# "in descending log time order" if log_time_order and reverse are True; the former is the default.
#
# Guess: reverse=True gives the order of the plain call reversed, for any file.
# Seen: it does for files with a chunk index. Of a file without chunks, or with chunks that no index lists, it gives the
# messages in ascending order, exactly as without reverse, from make_reader() on a seekable file. NonSeekingReader, given
# the same file, has them in descending order. The same files with log_time_order=False and reverse=True
# are read in the order of the file, while those with an index raise. Nothing is said.
# What to do: NonSeekingReader for the reverse order, or list(...)[::-1].
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mcap==1.6.0
cd "$folder"
cat >probe.py <<'PYTHON'
import io

from mcap.reader import NonSeekingReader, make_reader
from mcap.writer import CompressionType, IndexType, Writer

STAMPS = [10, 30, 20, 25, 5, 35, 40, 15]  # of log, in the order of the file


def write(**options):
    """Return an MCAP file with one message for each stamp."""
    file = io.BytesIO()
    writer = Writer(file, compression=CompressionType.NONE, **options)
    writer.start()
    channel = writer.register_channel('/odometry', 'json', writer.register_schema('any', 'jsonschema', b'{}'))
    for count, stamp in enumerate(STAMPS):
        writer.add_message(channel, stamp, b'{}', stamp, count)
    writer.finish()
    return file.getvalue()


def stamps(reader, **options):
    return [message.log_time for _, _, message in reader.iter_messages(**options)]


down = sorted(STAMPS, reverse=True)
kinds = {'chunks and their index': {'chunk_size': 100}, 'no chunks': {'use_chunking': False},
         'chunks without an index': {'chunk_size': 100, 'index_types': IndexType.NONE}}
as_seen = True
for kind, options in kinds.items():
    file = write(**options)
    plain = stamps(make_reader(io.BytesIO(file)))
    turned = stamps(make_reader(io.BytesIO(file)), reverse=True)
    last = next(make_reader(io.BytesIO(file)).iter_messages(reverse=True))[2].log_time
    other = stamps(NonSeekingReader(io.BytesIO(file)), reverse=True)
    print(f'{kind}: in order {plain}, reversed {turned}, "last" {last}; NonSeekingReader, reversed {other}')
    as_seen &= plain == down[::-1] and other == down
    if kind == 'chunks and their index':
        as_seen &= turned == down and last == 40
        try:
            stamps(make_reader(io.BytesIO(file)), reverse=True, log_time_order=False)
        except ValueError:
            continue
        as_seen = False
    else:
        as_seen &= turned == plain and last == 5
        as_seen &= stamps(make_reader(io.BytesIO(file)), reverse=True, log_time_order=False) == STAMPS
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
