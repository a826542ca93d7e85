"""
The node as `stream_node` starts it, with faults that can be set off from outside.

`--soak-control FD` names a socket of lines of JSON. It is told `{"arm": POINT, "effect": EFFECT,
"times": N, "id": I}`, `{"release": true}` or `{"trim": I}`, and says `{"armed": I}`,
`{"trimmed": I}` and, at each call that it spoils, `{"fired": I}`. When whoever holds the other
end is gone, the node ends too.
"""

import ctypes
from functools import partial
import gc
import json
import os
import signal
import socket
import sys
import threading
from typing import Any

from xsvggt_ros.node import stream_node
from xsvggt_ros.soak.patches import Patches

OPTION = '--soak-control'


def main() -> None:
    """Run the node until it is told to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):  # until the node has its own
        signal.signal(number, lambda *_: os._exit(0))
    place = sys.argv.index(OPTION)
    control = socket.socket(fileno=int(sys.argv[place + 1]))
    del sys.argv[place:place + 2]
    patches = Patches()
    patches.install()
    threading.Thread(
        target=listen, args=(control, patches), name='soak_control', daemon=True).start()
    stream_node.main()


def listen(control: socket.socket, patches: Patches) -> None:
    """Do what is asked for, until the other end is closed."""
    lock = threading.Lock()

    def say(content: dict[str, Any]) -> None:
        with lock:
            control.sendall(json.dumps(content).encode() + b'\n')

    with control.makefile('r') as lines:
        for line in lines:
            order = json.loads(line)
            if 'release' in order:
                patches.release()
                continue
            if 'trim' in order:
                trim()
                say({'trimmed': order['trim']})
                continue
            number = order['id']
            try:
                patches.arm(order['arm'], order['effect'], order['times'],
                            partial(say, {'fired': number}))
                say({'armed': number})
            except KeyError as error:
                say({'refused': number, 'why': str(error)})
    patches.release()
    os.kill(os.getpid(), signal.SIGTERM)


def trim() -> None:
    """Give memory that is free back to the system, so that what is left is in use."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:  # not glibc
        pass


if __name__ == '__main__':
    main()
