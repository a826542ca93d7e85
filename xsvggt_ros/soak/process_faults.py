"""Signals, kills and restarts; each ends the node's process and starts another."""

import signal
import time
from typing import Any

from std_srvs.srv import SetBool, Trigger

from xsvggt_ros.soak import names
from xsvggt_ros.soak.file_faults import WRITING
from xsvggt_ros.soak.kinds import Crash, fault
from xsvggt_ros.soak.stage import Stage

GROUP = 'process'
ENDS = 'ends with exit code 0; the next one begins'


def end(stage: Stage, number: signal.Signals) -> None:
    """Send a signal to the node and see it end as it should."""
    stage.shared |= stage.node.shared_files()
    begin = time.monotonic()
    stage.node.signal(number)
    code = stage.node.wait(stage.patience)
    stage.answers.append(time.monotonic() - begin)
    if code is None:
        raise Crash(f'the node did not end {stage.patience:.0f} s after {number.name}')
    if code != 0:
        raise Crash(f'the node ended with exit code {code} after {number.name}: '
                    + stage.node.output()[-300:])


@fault(GROUP, ENDS, setup='process', new_stream=True)
def interrupted(stage: Stage) -> None:
    """Send SIGINT while images are processed."""
    time.sleep(stage.rng.uniform(0, 0.2))
    end(stage, signal.SIGINT)
    stage.start()


@fault(GROUP, ENDS, setup='process', new_stream=True)
def terminated(stage: Stage) -> None:
    """Send SIGTERM while images are processed."""
    time.sleep(stage.rng.uniform(0, 0.2))
    end(stage, signal.SIGTERM)
    stage.start()


@fault(GROUP, ENDS, setup='process', new_stream=True)
def a_signal_while_it_starts(stage: Stage) -> None:
    """Send SIGINT or SIGTERM to a node that is loading."""
    end(stage, signal.SIGTERM)
    stage.observer.expect_new_life()  # it may come so far
    stage.running = stage.launch()
    time.sleep(stage.rng.uniform(0.5, 4.0))
    end(stage, stage.rng.choice((signal.SIGINT, signal.SIGTERM)))
    stage.start()


@fault(GROUP, ENDS, setup='process', new_stream=True)
def a_signal_while_it_hangs(stage: Stage) -> None:
    """Send SIGTERM or SIGINT while a frame stands still."""
    with stage.broken('network', 'hang') as fired:
        stage.until(fired, 'a hang')
        end(stage, stage.rng.choice((signal.SIGINT, signal.SIGTERM)))
    stage.start()


@fault(GROUP, ENDS, setup='process', new_stream=True)
def calls_while_it_ends(stage: Stage) -> None:
    """Call services without waiting, and send SIGINT."""
    for _ in range(10):
        stage.ask(Trigger, 'save_map', Trigger.Request())
        stage.ask(SetBool, 'enable', SetBool.Request(data=True))
        stage.ask(Trigger, 'reset', Trigger.Request())
    end(stage, signal.SIGINT)
    stage.start()
    stage.save_map()  # removes what an end in the middle of a file left, and checks


@fault(GROUP, 'the next one begins as if nothing had been', setup='process', new_stream=True)
def killed(stage: Stage) -> None:
    """Send SIGKILL while images are processed."""
    time.sleep(stage.rng.uniform(0, 0.2))
    stage.start()  # kills what is there


@fault(GROUP, 'leaves no map that is not whole', setup='process', new_stream=True)
def killed_while_it_saves(stage: Stage) -> None:
    """Send SIGKILL while the map is written."""
    with stage.broken(stage.rng.choice(WRITING), 'hang') as fired:
        stage.ask(Trigger, 'save_map', Trigger.Request())
        stage.until(fired, 'a map to be written')
        stage.start()
    stage.save_map()  # removes what the killed process had no chance to, and checks


@fault(GROUP, 'goes on when it is let', setup='process')
def stopped_and_continued(stage: Stage) -> None:
    """Send SIGSTOP, and SIGCONT three seconds later."""
    stage.node.signal(signal.SIGSTOP)
    stage.shots(45)
    stage.node.signal(signal.SIGCONT)


@fault(GROUP, 'write two maps', setup='process')
def two_nodes_that_save_into_one_folder(stage: Stage) -> None:
    """Start a second node on the same camera, and have both save their maps at once."""
    second = stage.launch(namespace='/second')
    try:
        other: Any = stage.ros.create_client(Trigger, f'{names.SPACE}/second/xsvggt/save_map')
        stage.until(lambda: 'stream begins' in second.output() or second.exit_code is not None,
                    'the second node to track')
        stage.until(other.service_is_ready, "the second node's services")
        stage.shots(10)
        futures = [other.call_async(Trigger.Request()),
                   stage.ask(Trigger, 'save_map', Trigger.Request())]
        stage.until(lambda: all(future.done() for future in futures), 'two maps')
        stage.until(lambda: stage.saved_maps() == 2, 'two files', 'lost')
        stage.save_map()
        stage.ros.destroy_client(other)
    finally:
        stage.shared |= second.shared_files()
        second.kill()
