#!/usr/bin/env bash
# CPython 3.10 to 3.13: a KeyboardInterrupt that was caught still ends the process by SIGINT,
# if it passed through a text that exec() was given; under `python -m` even after sys.exit(0).
#
# Nodes catch KeyboardInterrupt and end with code 0, so that launch files and supervisors see a clean
# end. Libraries give texts to exec() (dataclasses, namedtuple, attrs, generated wrappers), and a
# signal may arrive there.
#
# Guess: the end of a module that calls sys.exit(0) is code 0, as for a script, whatever was caught before.
# Seen: run as a script with sys.exit(0) it is 0; run by `python -m` the same file dies of SIGINT
# (130 in a shell, -2 for subprocess and launch), and so does a script that ends without
# sys.exit. Nothing is printed. One more exec('') after the interrupt was caught makes it 0.
# Why: a flag of the interpreter is set when the exception leaves the text, cleared only by the next
# text, and read when the interpreter ends.
#
# Tried with 3.10.13, 3.11.7, 3.12.1 and 3.13.0. No package is needed.
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >ends.py <<'PYTHON'
import os
import signal
import sys
import time

try:
    exec('os.kill(os.getpid(), signal.SIGINT); time.sleep(1)')
except KeyboardInterrupt:
    print('caught', flush=True)
if 'clear' in sys.argv:
    exec('')
if 'exit' in sys.argv:
    sys.exit(0)
PYTHON
python3 --version
code() { local code=0; "$@" >out.txt 2>&1 || code=$?; test "$(cat out.txt)" = caught; echo "$code"; }
script=$(code python3 ends.py) script_exit=$(code python3 ends.py exit)
module_exit=$(code python3 -m ends exit) cleared=$(code python3 -m ends exit clear)
echo "script: $script, script with sys.exit(0): $script_exit, module with sys.exit(0):" \
  "$module_exit, and exec('') before: $cleared"
test "$script $script_exit $module_exit $cleared" = "130 0 130 0"
