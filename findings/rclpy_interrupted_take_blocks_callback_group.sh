#!/usr/bin/env bash
# ros-rclpy 9.1.2 (rmw_fastrtps 9.3.3): what a Python signal handler raises while a message is being
# taken comes out as something else, and the node hears nothing afterwards.
#
# Guess: KeyboardInterrupt raised by a handler leaves spin_once as KeyboardInterrupt, wherever it
# strikes; a caller that catches it and spins on gets the next messages.
# Seen: in the conversion of a message it leaves as RuntimeError "Unable to convert call argument '0'
# to Python object" (of pybind11). From then on neither that subscription nor a timer of the same
# callback group is called again, in this executor or a new one: the group still counts as busy. An
# error raised by a callback itself does not have this effect.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  ros-rclpy==9.1.2 ros-rmw-fastrtps-cpp==9.3.3 ros-geometry-msgs==5.5.1 numpy==2.4.6 pyyaml
cd "$folder"
cat >probe.py <<'PYTHON'
import os
import random
import signal
import time

os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
os.environ.setdefault('ROS_DOMAIN_ID', str(random.randrange(1, 100)))

from geometry_msgs.msg import Pose, PoseArray
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

LONG = PoseArray(poses=[Pose() for _ in range(20_000)])   # takes a while to convert
SHORT = PoseArray()


def interrupt(number, frame):
    raise KeyboardInterrupt


class Probe:
    def __init__(self, number, fails=False):
        self.node = Node(f'probe_{number}')
        self.taken, self.ticks, self.fails = [], 0, fails
        self.node.create_subscription(PoseArray, f'poses_{number}', self.take, 10)
        self.publisher = self.node.create_publisher(PoseArray, f'poses_{number}', 10)
        self.node.create_timer(0.05, self.tick)
        self.renew()
        while self.publisher.get_subscription_count() == 0:
            self.executor.spin_once(timeout_sec=0.1)

    def renew(self):
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)

    def take(self, message):
        self.taken.append(len(message.poses))
        if self.fails and len(self.taken) == 1:
            raise ValueError('of the callback')

    def tick(self):
        self.ticks += 1

    def spin(self, seconds, count=10 ** 9):
        end = time.monotonic() + seconds
        while time.monotonic() < end and len(self.taken) < count:
            self.executor.spin_once(timeout_sec=0.05)

    def goes_on(self):
        self.executor.remove_node(self.node)
        self.renew()
        messages, ticks = len(self.taken), self.ticks
        for _ in range(5):
            self.publisher.publish(SHORT)
        self.spin(2.0)
        return len(self.taken) - messages, self.ticks - ticks


rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
signal.signal(signal.SIGALRM, interrupt)
rng = random.Random(0)
probe = Probe('first')
probe.publisher.publish(LONG)
time.sleep(0.5)
start = time.perf_counter()
probe.spin(60, 1)
needed = time.perf_counter() - start
own = Probe('own', fails=True)
own.publisher.publish(SHORT)
try:
    own.spin(5)
except ValueError as error:
    print('a callback that fails:', error, '| afterwards (messages, ticks)', own.goes_on())
for number in range(100):
    probe = Probe(number)
    probe.publisher.publish(LONG)
    time.sleep(0.1)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-4 + rng.random() * needed)
        probe.spin(2, 1)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        pass
    except RuntimeError as error:
        print(f'round {number}: {type(error).__name__}: {str(error)[:60]}')
        after = probe.goes_on()
        print('afterwards (messages, ticks)', after)
        raise SystemExit(after != (0, 0) or own.goes_on()[0] != 5)
raise SystemExit('KeyboardInterrupt came out as itself, or not at all, in each of 100 rounds')
PYTHON
venv/bin/python probe.py
