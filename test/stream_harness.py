"""The real node in a process of its own, and a camera and a robot around it in this one."""

from array import array
from pathlib import Path
import re
import signal
import subprocess
import sys
import threading
import time

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
import numpy as np
from rcl_interfaces.srv import GetParameters, SetParameters
import rclpy
from rclpy.duration import Duration
from rclpy.exceptions import InvalidHandle
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage
from tiny_stream import make_model

from xsvggt_ros.model.checkpoint import save_checkpoint
from xsvggt_ros.msg import CacheStatus, StreamStatus

ROOT = Path(__file__).parents[1]
FRAME_ID = 'test_optical_frame'
OK, WARN, ERROR = b'\x00', b'\x01', b'\x02'    # levels of diagnostics
DEADLINE = 240.0  # seconds after which a test gives up; only one that fails ever waits so long
STALE = 3  # reports of the node that may have been made before what was sent had come


def write_tiny_checkpoint(folder, network):
    """Save a tiny golden network, one of `tiny_stream.NETWORKS`; return its file in a folder."""
    path = folder / f'{network}.safetensors'
    save_checkpoint(make_model(network), path)
    return path


def frame_tokens(network, width=70, height=56):
    """Return the tokens of an image of a tiny network."""
    return make_model(network).cache_layout(height, width).tokens.tokens_per_step


def qos(depth, reliable):
    reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability)


def make_image(index, width=70, height=56, encoding='rgb8', stamp=None):
    """Return an image message whose pixels depend on the index."""
    channels = {'rgb8': 3, 'mono8': 1}[encoding]
    y, x, c = np.mgrid[:height, :width, :channels]
    message = Image()
    message.header.frame_id = FRAME_ID
    seconds, nanoseconds = stamp or (1700000000 + index, 123456789 + index)
    message.header.stamp.sec, message.header.stamp.nanosec = seconds, nanoseconds
    message.width, message.height, message.encoding = width, height, encoding
    message.step = width * channels
    data = array('B')
    data.frombytes(((x * 3 + y * 5 + c * 40 + index * 7) % 256).astype(np.uint8).tobytes())
    message.data = data
    return message


def has_nothing_to_do(report):
    """Return whether the node says in its diagnostics that all images it got are done with."""
    values = {value.key: value.value for status in report.status for value in status.values
              if status.name in ('xsvggt: Input', 'xsvggt: Inference')}
    done = [values.get(name) for name in ('processed', 'dropped', 'skipped', 'rejected')]
    done.append(values.get('collected', 0))   # for the beginning of a stream
    return None not in done and int(values['received']) == sum(map(int, done))


class NodeProcess:
    """
    The node as a user starts it, with its output in a file.

    A with block ends it as `end` does, or kills it if the block fails.
    """

    def __init__(self, log, namespace='/', **parameters):
        command = [sys.executable, '-m', 'xsvggt_ros.node.stream_node', '--ros-args',
                   '-r', 'image:=/cam/image_raw', '-r', 'camera_info:=/cam/camera_info',
                   '-r', f'__ns:={namespace}']
        # What is published is the network's own, unless a test asks for more.
        for name, value in ({'trajectory__mode': 'network'} | parameters).items():
            command += ['-p', f"{name.replace('__', '.')}:={value}"]
        self.log = log
        with open(log, 'w') as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))

    def output(self):
        return self.log.read_text()

    def resident_bytes(self):
        pages = Path(f'/proc/{self.process.pid}/statm').read_text().split()[1]
        return int(pages) * 4096

    def shared_memory(self):
        """Return the files of shared memory that the node has mapped, and this process has not."""
        own, others = (set(re.findall(r'/dev/shm/\S+', Path(f'/proc/{pid}/maps').read_text()))
                       for pid in (self.process.pid, 'self'))
        return {Path(name) for name in own - others}

    def stop(self, presses=1):
        """Press Ctrl-C, or so often; return the exit code and the seconds it took."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        for _ in range(presses - 1):
            time.sleep(0.1)
            self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(DEADLINE)
        finally:
            self.process.kill()
        return code, time.monotonic() - start

    def end(self):
        """Stop it if it runs; it must go with code 0 and never have had a traceback."""
        if self.process.poll() is None:
            code, _ = self.stop()
            assert code == 0, self.output()
        assert 'Traceback' not in self.output(), self.output()

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        if error is None:
            self.end()
        else:
            self.process.kill()


class Robot:
    """Publishes images and records what the node says, spinning in a thread."""

    def __init__(self):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('test_robot', context=self.context)
        self.images = self.node.create_publisher(Image, '/cam/image_raw', qos(10, reliable=False))
        self.infos = self.node.create_publisher(
            CameraInfo, '/cam/camera_info', qos(10, reliable=True))
        self.received = {}
        self._record('points', PointCloud2, '/xsvggt/points', qos(50, reliable=True))
        self._record('points_best_effort', PointCloud2, '/xsvggt/points', qos(50, reliable=False))
        self._record('odometry', Odometry, '/xsvggt/odometry', qos(50, reliable=True))
        self._record('tf', TFMessage, '/tf', qos(50, reliable=True))
        self._record('cache', CacheStatus, '/xsvggt/cache_status', qos(50, reliable=True))
        self._record('status', StreamStatus, '/xsvggt/status', qos(50, reliable=True))
        self._record('diagnostics', DiagnosticArray, '/diagnostics', qos(50, reliable=True))
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()

    def _spin(self):
        while not self._closing.is_set():
            try:
                self.executor.spin_once(timeout_sec=0.1)
            except InvalidHandle:  # a subscription was destroyed while its events were waited for
                pass

    def record(self, name, kind, topic):
        """Keep what is published on a topic as ``received[name]``."""
        self._record(name, kind, topic, qos(50, reliable=True))

    def _record(self, name, kind, topic, profile):
        messages = self.received[name] = []
        self.node.create_subscription(kind, topic, messages.append, profile)

    def wait(self, condition, what, node=None):
        """Wait until a condition holds, and fail with ``what`` if it never does."""
        end = time.monotonic() + DEADLINE
        while not (value := condition()):
            assert self._thread.is_alive(), f'the robot ended while it waited for {what}'
            dead = node is not None and node.process.poll() is not None
            if dead or time.monotonic() > end:
                raise AssertionError(f'waited in vain for {what}\n{node.output() if node else ""}')
            time.sleep(0.005)
        return value

    def wait_until_subscribed(self, node):
        """Wait until the node is active and everything of it is connected."""
        self.wait(lambda: self.images.get_subscription_count() > 0, 'the node to subscribe', node)
        self.wait(lambda: self.node.count_publishers('/xsvggt/points') > 0, 'publishers', node)
        self.meet(node)

    def meet(self, node, name='/xsvggt'):
        """
        Wait until the node and this robot know all topics of each other, as they are now.

        Endpoints become known in the order in which they were made. So all are known when the
        newest ones are: those of a service that answers, and a subscription that gets something.
        """
        self.pass_by(node, name)
        heard = []
        newest = self.node.create_subscription(
            DiagnosticArray, '/diagnostics', heard.append, qos(1, reliable=True))
        try:
            own = f'{name.strip("/")}: '
            self.wait(lambda: any(status.name.startswith(own) for message in list(heard)
                                  for status in message.status), 'diagnostics', node)
        finally:
            self.node.destroy_subscription(newest)
        for subscription in list(self.node.subscriptions):
            if self.node.count_publishers(subscription.topic_name):
                self.wait(lambda: subscription.get_publisher_count() > 0,
                          f'a publisher of {subscription.topic_name}', node)

    def pass_by(self, node, name='/xsvggt'):
        """
        Wait until the node has taken what has reached it, one message of each topic.

        Its executor serves what is ready in turn, subscriptions before services, so a service
        that answers comes after them.
        """
        client = self.node.create_client(GetParameters, f'{name}/get_parameters')
        self.wait(client.service_is_ready, f'the services of {name}', node)
        futures = []

        def answered():
            if not futures or time.monotonic() > again[0]:  # asked too early for an answer
                again[0] = time.monotonic() + 5.0
                futures.append(client.call_async(GetParameters.Request()))
            return any(future.done() for future in futures)

        again = [0.0]
        self.wait(answered, f'an answer of {name}', node)
        self.node.destroy_client(client)

    def send(self, node, publisher, message):
        """Publish on a reliable topic, and wait until the node has taken it."""
        self.wait(lambda: publisher.get_subscription_count() > 0, publisher.topic_name, node)
        publisher.publish(message)
        assert publisher.wait_for_all_acked(Duration(seconds=DEADLINE)), publisher.topic_name
        self.pass_by(node)

    def tracked(self):
        """Return the statuses of processed images, without those in between."""
        return [s for s in list(self.received['status']) if s.state == StreamStatus.TRACKING]

    def process(self, node, message):
        """
        Publish an image and wait until the node has processed it; return its status.

        Images are best effort: one that the node has not received, going by what it reports of
        itself, was lost on the way and is sent once more.
        """
        stamp, before = message.header.stamp, len(self.received['status'])
        sent = self._reports()
        self.images.publish(message)

        def found():
            nonlocal sent
            # What it has done is published before the report that counts it, but may come after.
            reports = list(self.received['diagnostics'])[sent + STALE:-1]
            newer = list(self.received['status'])[before:]
            status = next((s for s in reversed(newer) if s.state == StreamStatus.TRACKING
                           and s.header.stamp == stamp), None)
            if status is None and any(map(has_nothing_to_do, reports)):
                sent = self._reports()
                self.images.publish(message)
            return status

        return self.wait(found, f'frame {stamp}', node)

    def _reports(self):
        return len(self.received['diagnostics'])

    def diagnostic(self, name):
        """Return the newest status of a diagnostics task."""
        for array_message in reversed(list(self.received['diagnostics'])):
            for status in array_message.status:
                if status.name == f'xsvggt: {name}':
                    return status
        return None

    def wait_for_diagnostic(self, node, name, *words):
        """Wait until a task's newest message contains all words; return the status."""
        def found():
            status = self.diagnostic(name)
            return status if status and all(word in status.message for word in words) else None

        return self.wait(found, f'diagnostics "{name}" to say {words}', node)

    def set_parameter(self, name, value):
        """Change a parameter of the node; return the result."""
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, '/xsvggt/set_parameters', request).results[0]

    def change_states(self, *transitions):
        """Take the node through transitions of its lifecycle, as 'deactivate', all of which do."""
        for name in transitions:
            number = getattr(Transition, f'TRANSITION_{name.upper()}')
            request = ChangeState.Request(transition=Transition(id=number))
            assert self.call(ChangeState, '/xsvggt/change_state', request).success, name

    def call(self, kind, service, request):
        """Call a service and return its response."""
        client = self.node.create_client(kind, service)
        assert client.wait_for_service(timeout_sec=DEADLINE), service
        future = client.call_async(request)
        self.wait(future.done, f'service {service}')
        self.node.destroy_client(client)
        return future.result()

    def close(self):
        self._closing.set()
        self._thread.join()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)
