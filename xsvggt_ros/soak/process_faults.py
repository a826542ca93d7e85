"""Signals, kills and restarts; each ends the node's process and starts another."""

import signal
import time
from typing import Any

from std_srvs.srv import SetBool, Trigger

from xsvggt_ros.soak import names
from xsvggt_ros.soak.file_faults import WRITING
from xsvggt_ros.soak.harness import Harness
from xsvggt_ros.soak.kinds import Crash, fault

GROUP = 'process'
ENDS = 'ends with exit code 0; the next one begins'


def end(harness: Harness, number: signal.Signals) -> None:
    """Send a signal to the node and see it end as it should."""
    harness.shared |= harness.node.shared_files()
    begin = time.monotonic()
    harness.node.signal(number)
    code = harness.node.wait(harness.patience)
    harness.answers.append(time.monotonic() - begin)
    if code is None:
        raise Crash(f'the node did not end {harness.patience:.0f} s after {number.name}')
    if code != 0:
        raise Crash(f'the node ended with exit code {code} after {number.name}: '
                    + harness.node.output()[-300:])


@fault(GROUP, ENDS, setup='process', new_stream=True)
def interrupted(harness: Harness) -> None:
    """Send SIGINT while images are processed."""
    time.sleep(harness.rng.uniform(0, 0.2))
    end(harness, signal.SIGINT)
    harness.start()


@fault(GROUP, ENDS, setup='process', new_stream=True)
def terminated(harness: Harness) -> None:
    """Send SIGTERM while images are processed."""
    time.sleep(harness.rng.uniform(0, 0.2))
    end(harness, signal.SIGTERM)
    harness.start()


@fault(GROUP, ENDS, setup='process', new_stream=True)
def a_signal_while_it_starts(harness: Harness) -> None:
    """Send SIGINT or SIGTERM to a node that is loading."""
    end(harness, signal.SIGTERM)
    harness.observer.expect_restart()  # it may come so far
    harness.running = harness.launch()
    time.sleep(harness.rng.uniform(0.5, 4.0))
    end(harness, harness.rng.choice((signal.SIGINT, signal.SIGTERM)))
    harness.start()


@fault(GROUP, ENDS, setup='process', new_stream=True)
def a_signal_while_it_hangs(harness: Harness) -> None:
    """Send SIGTERM or SIGINT while a frame stands still."""
    with harness.broken('network', 'hang') as fired:
        harness.until(fired, 'a hang')
        end(harness, harness.rng.choice((signal.SIGINT, signal.SIGTERM)))
    harness.start()


@fault(GROUP, ENDS, setup='process', new_stream=True)
def calls_while_it_ends(harness: Harness) -> None:
    """Call services without waiting, and send SIGINT."""
    for _ in range(10):
        harness.ask(Trigger, 'save_map', Trigger.Request())
        harness.ask(SetBool, 'enable', SetBool.Request(data=True))
        harness.ask(Trigger, 'reset', Trigger.Request())
    end(harness, signal.SIGINT)
    harness.start()
    harness.save_map()  # removes what an end in the middle of a file left, and checks


@fault(GROUP, 'the next one begins as if nothing had been', setup='process', new_stream=True)
def killed(harness: Harness) -> None:
    """Send SIGKILL while images are processed."""
    time.sleep(harness.rng.uniform(0, 0.2))
    harness.start()  # kills what is there


@fault(GROUP, 'leaves no map that is not whole', setup='process', new_stream=True)
def killed_while_it_saves(harness: Harness) -> None:
    """Send SIGKILL while the map is written."""
    with harness.broken(harness.rng.choice(WRITING), 'hang') as fired:
        harness.ask(Trigger, 'save_map', Trigger.Request())
        harness.until(fired, 'a map to be written')
        harness.start()
    harness.save_map()  # removes what the killed process had no chance to, and checks


@fault(GROUP, 'goes on when it is let', setup='process')
def stopped_and_continued(harness: Harness) -> None:
    """Send SIGSTOP, and SIGCONT three seconds later."""
    harness.node.signal(signal.SIGSTOP)
    harness.await_shots(45)
    harness.node.signal(signal.SIGCONT)


@fault(GROUP, 'write two maps', setup='process')
def two_nodes_that_save_into_one_folder(harness: Harness) -> None:
    """Start a second node on the same camera, and have both save their maps at once."""
    second = harness.launch(namespace='/second')
    try:
        other: Any = harness.ros.create_client(Trigger, f'{names.SPACE}/second/xsvggt/save_map')
        harness.until(lambda: 'stream begins' in second.output() or second.exit_code is not None,
                      'the second node to track')
        harness.until(other.service_is_ready, "the second node's services")
        harness.await_shots(10)
        futures = [other.call_async(Trigger.Request()),
                   harness.ask(Trigger, 'save_map', Trigger.Request())]
        harness.until(lambda: all(future.done() for future in futures), 'two maps')
        harness.until(lambda: harness.saved_maps() == 2, 'two files', 'lost')
        harness.save_map()
        harness.ros.destroy_client(other)
    finally:
        harness.shared |= second.shared_files()
        second.kill()
