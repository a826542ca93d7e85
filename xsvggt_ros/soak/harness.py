"""All that a fault may touch: the node, its camera, what is heard of it, its services."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
import random
import threading
import time
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
import rclpy
from rclpy.exceptions import InvalidHandle
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from xsvggt_ros.mapping.map_files import read_ply, read_tum
from xsvggt_ros.soak import checks, names
from xsvggt_ros.soak.camera import Edit, ROBOT, SoakCamera
from xsvggt_ros.soak.kinds import Crash, Failure, SETUPS
from xsvggt_ros.soak.node_process import NodeProcess
from xsvggt_ros.soak.observer import Observer
from xsvggt_ros.soak.world import RATE, ViewSequence

POLL = 0.01          # seconds
ANSWER = 1.0         # seconds after which a service that was not there is asked again
POSES = 200          # on ~/path, which is to be full soon
SURE = 0.06          # share by which a scale may be wrong that faults are then tried on
LOADING = 60.0       # seconds more that a process may take to start
IMAGE_TIMEOUT = 1.0  # of the node's diagnostics, in seconds, so that its words come soon

# What the node is told in each setup, while it is unconfigured
PARAMETERS: dict[str, dict[str, Any]] = {
    'camera': {}, 'process': {},
    'odometry': {'scale.mode': 'odometry'}, 'depth': {'scale.mode': 'depth'},
    'robot': {'base_frame': ROBOT}, 'compressed': {'image_transport': 'compressed'}}
DEFAULTS = {'scale.mode': 'none', 'base_frame': '', 'image_transport': 'raw'}


class Harness:
    """
    One run's node, camera and observer.

    A long class, as it is all that a fault may do and ask: faults are functions of a harness.
    """

    def __init__(self, folder: Path, patience: float, parameters: list[str]) -> None:
        """
        Draw the room and join the network of ROS.

        folder: for logs and maps; patience: seconds that anything may take; parameters: of the
        node, NAME:=VALUE.
        """
        self.folder, self.patience = folder, patience
        self.rng = random.Random(0)  # of the fault that is being injected
        self.maps = folder / 'maps'
        self.views = ViewSequence()
        self.context = rclpy.Context()
        rclpy.init(context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        self.ros = rclpy.create_node(
            'soak', context=self.context, namespace=names.SPACE)
        self.camera = SoakCamera(self.ros, self.views)
        self.observer = Observer(self.ros, self.camera)
        self.setup = 'camera'
        self.answers: list[float] = []   # seconds that services took in this trial
        self.end: float | None = None    # of the fault, if it said so itself
        self.shared: set[Path] = set()   # files in shared memory that nodes had
        self.running: NodeProcess | None = None  # the node's process
        self._log_begin = 0
        self.starts = 0
        self._parameters = parameters
        self._clients: dict[str, Any] = {}
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.ros)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, name='soak_ros', daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the node and leave the network."""
        self.camera.close()
        if self.running is not None:
            self.shared |= self.running.shared_files()
            self.running.kill()
        self._closing.set()
        self._thread.join()
        self._executor.shutdown()
        self.ros.destroy_node()
        rclpy.shutdown(context=self.context)

    @property
    def node(self) -> NodeProcess:
        """Return the node's process, which has been started."""
        assert self.running is not None
        return self.running

    # The node's process --------------------------------------------------------------------------

    def launch(self, namespace: str = '', injectable: bool = True) -> NodeProcess:
        """Start a process of the node and return it at once; see `await_active`."""
        values = {'map.save_directory': str(self.maps),
                  'diagnostics.image_timeout': IMAGE_TIMEOUT, 'path.max_poses': POSES,
                  # What is expected of poses, times and memory is that of the network's.
                  'trajectory.mode': 'network',
                  **PARAMETERS[self.setup]}
        words = [f'{name}:={value}' for name, value in values.items()] + self._parameters
        arguments = ['--ros-args']
        for word in words:
            arguments += ['-p', word]
        for old, new in names.REMAPPED.items():
            arguments += ['-r', f'{old}:={new}']
        arguments += ['-r', f'__ns:={names.SPACE}{namespace}']
        if namespace:  # a second node has the same frames
            arguments += ['-p', 'publish_tf:=false']
        self.starts += 1
        return NodeProcess(self.folder / f'node_{self.starts}.log', arguments, injectable)

    def start(self) -> None:
        """Start the node, in place of one that has ended, and wait until it tracks."""
        if self.running is not None:
            self.shared |= self.running.shared_files()
            self.running.kill()
        self.observer.expect_restart()
        self.running, self._log_begin = self.launch(), 0
        self.await_active()

    def await_active(self) -> None:
        """Wait until the node is active; the fault, if it was its end, ends then."""
        self.until(lambda: self.state(ANSWER) == 'active', 'the node to be active',
                   patience=self.patience + LOADING)
        self.end = time.monotonic()
        if self.camera.is_sending:
            self.tracked()

    def switch_setup(self, setup: str) -> None:
        """Set the node up in another way, through its lifecycle, in the same process."""
        if setup == self.setup:
            return
        self.setup = setup
        self.change('deactivate')
        self.observer.expect_restart()
        self.change('cleanup')
        for name, value in {**DEFAULTS, **PARAMETERS[setup]}.items():
            self.set(name, value)
        for transition in ('configure', 'activate'):
            self.change(transition)
        self.camera.start(SETUPS[setup])
        self.tracked()
        self.settle()

    def reset_stream(self) -> None:
        """Have the node begin a new stream, so that one fault does not spoil the next trial."""
        self.trigger('reset')
        self.tracked()
        self.settle()

    def settle(self) -> None:
        """Wait until what the setup is for is there: metres from a hint."""
        def is_sure() -> bool:
            status = self.observer.status
            return status.metric and status.scale_uncertainty < SURE

        if self.setup in ('odometry', 'depth'):
            self.until(is_sure, f'a scale that is sure to {100 * SURE:.0f} %')

    # Waiting -------------------------------------------------------------------------------------

    def until(
        self, condition: Callable[[], Any], what: str, kind: str = 'hang',
        patience: float | None = None,
    ) -> Any:
        """Wait until a condition holds and return its value; raise Failure if it never does."""
        patience = patience or self.patience
        deadline = time.monotonic() + patience
        while not (value := condition()):
            if self.running is not None and self.running.exit_code is not None:
                raise Crash(f'the node ended with exit code {self.node.exit_code}')
            if time.monotonic() > deadline:
                raise Failure(kind, f'waited {patience:.0f} s in vain for {what}'
                              + (f' ({self.node.doing()})' if kind == 'hang' else ''))
            time.sleep(POLL)
        return value

    def tracked(self, since: float | None = None) -> float:
        """Wait until an image sent from now on was tracked; return when that was."""
        since = time.monotonic() if since is None else since
        return self.until(lambda: self.observer.recovered(since), 'an image to be tracked')

    def await_shots(self, count: int) -> None:
        """Wait until the camera has sent so many shots more."""
        wanted = self.camera.shots + count
        self.until(lambda: self.camera.shots >= wanted, 'the camera')

    def play(self, edit: Edit | None, shots: int = 10, rate: float = RATE) -> None:
        """Have the camera send so many shots as an edit makes them."""
        with self.camera.playing(edit, rate):
            self.await_shots(shots)

    def await_complaint(self, task: str, *words: str, or_log: bool = False) -> None:
        """
        Wait until diagnostics complain in a task, with one of these words if any are given.

        or_log: whether a warning or an error in the log will do, for what is over too soon for
        diagnostics. Raises Failure.
        """
        def fits(message: str) -> bool:
            return not words or any(word in message for word in words)

        def heard() -> bool:
            return (any(one.task == task and fits(one.message)
                        for one in list(self.observer.said))
                    or or_log and any(fits(line) for line in self.complaints()))

        about = ' of ' + ' or '.join(words) if words else ''
        self.until(heard, f"diagnostics' task {task} to complain{about}", 'silent')

    def complaints(self) -> list[str]:
        """Return the warnings and errors that the node has logged since this trial began."""
        lines = self.node.output(self._log_begin).splitlines()
        return [line for line in lines if line.startswith(('[WARN]', '[ERROR]', '[FATAL]'))]

    def begin_trial(self, seed: int) -> None:
        """Forget what was heard and saved before; seed: of what the fault draws."""
        self.rng = random.Random(seed)
        self.answers, self.end = [], None
        self.observer.begin()
        self.clear_maps()
        self._log_begin = self.node.log.stat().st_size

    def hears_diagnostics(self) -> None:
        """Wait until diagnostics have come from now on."""
        now = time.monotonic()
        self.until(lambda: self.observer.diagnostics_at > now, 'diagnostics')

    # Faults inside the node ----------------------------------------------------------------------

    def break_inside(self, point: str, effect: str, times: int = 1) -> None:
        """Have a function of the node fail, and wait until it has."""
        with self.broken(point, effect, times) as fired:
            self.until(lambda: fired() >= times, f'"{effect}" in "{point}" to happen')

    @contextmanager
    def broken(self, point: str, effect: str, times: int = 1) -> Iterator[Callable[[], int]]:
        """Have a function of the node fail while the block runs; gives how often it has."""
        node = self.node
        number = node.arm(point, effect, times)
        self.until(lambda: node.is_armed(number), 'the node to take a fault')
        try:
            yield lambda: node.fired(number)
        finally:
            node.release()

    # Services and lifecycle ----------------------------------------------------------------------

    def call(self, kind: type, name: str, request: Any) -> Any:
        """Call a service of the node and return its response; raise Failure without one."""
        begin = time.monotonic()
        future = self.ask(kind, name, request)
        self.until(future.done, f'an answer of {name}')
        self.answers.append(time.monotonic() - begin)
        return future.result()

    def ask(self, kind: type, name: str, request: Any) -> Future:
        """Call a service of the node and do not wait."""
        client = self.client(kind, name)
        self.until(client.service_is_ready, f'the service {name}')
        return client.call_async(request)

    def client(self, kind: type, name: str) -> Any:
        """Return the client of a service of the node."""
        if name not in self._clients:
            self._clients[name] = self.ros.create_client(kind, f'{names.NODE}/{name}')
        return self._clients[name]

    def trigger(self, name: str) -> Trigger.Response:
        """Call ~/reset or ~/save_map."""
        return self.call(Trigger, name, Trigger.Request())

    def enable(self, on: bool) -> SetBool.Response:
        """Call ~/enable."""
        return self.call(SetBool, 'enable', SetBool.Request(data=on))

    def set(self, name: str, value: Any) -> bool:
        """Set a parameter of the node; return whether it took it."""
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, 'set_parameters', request).results[0].successful

    def try_change(self, transition: str) -> bool:
        """Ask the node for a transition; return whether it made it."""
        request = ChangeState.Request(
            transition=Transition(id=getattr(Transition, 'TRANSITION_' + transition.upper())))
        return self.call(ChangeState, 'change_state', request).success

    def change(self, transition: str) -> None:
        """Have the node make a transition, which it may refuse while it is busy."""
        self.until(lambda: self.try_change(transition), f'the transition {transition}', 'wrong')

    def activate(self) -> None:
        """Have the node become active from whatever state it is in."""
        def is_active() -> bool:
            state = self.state()
            if state in ('unconfigured', 'inactive'):
                self.try_change('configure' if state == 'unconfigured' else 'activate')
            return state == 'active'

        self.until(is_active, 'the node to be active')

    def state(self, patience: float | None = None) -> str:
        """Return the node's lifecycle state; empty if it gives none in time."""
        future = self.client(GetState, 'get_state').call_async(GetState.Request())
        deadline = time.monotonic() + (patience or self.patience)
        while not future.done() and time.monotonic() < deadline:
            if self.node.exit_code is not None:
                return ''
            time.sleep(POLL)
        return future.result().current_state.label if future.done() else ''

    # What was built ------------------------------------------------------------------------------

    def clear_maps(self) -> None:
        """Delete all maps that were saved, and what else is in their folder."""
        for file in self.maps.glob('*'):
            file.unlink()

    def save_map(self) -> None:
        """Have the map saved, and check the files; raise Failure if that is not right."""
        before = set(self.maps.glob('*.ply'))  # of earlier streams, it may be
        count = self.saved_maps()
        response = self.trigger('save_map')
        if not response.success:  # a busy node says that it will save it later
            self.until(lambda: self.saved_maps() > count,
                       f'a map, of which the node said: {response.message}', 'lost')
        self.check_maps(self.observer.earlier, before)
        self.clear_maps()

    def saved_maps(self) -> int:
        """Return how many maps there are, with their ways."""
        return sum(file.with_suffix('.tum').exists() for file in self.maps.glob('*.ply'))

    def check_maps(self, earlier: Collection[int] = (), before: Collection[Path] = ()) -> None:
        """
        Check all maps that were saved: whole, nothing else left behind; raise Failure.

        earlier: stamps of streams that must not be in them, but in those of `before`.
        """
        strange = [file.name for file in self.maps.glob('*')
                   if file.suffix not in ('.ply', '.tum', '.safetensors')]
        if strange:
            raise Failure('lost', f'saving a map left {", ".join(strange)} behind')
        for file in self.maps.glob('*.ply'):
            cloud = read_ply(file)
            way = [pose.stamp_ns for pose in read_tum(file.with_suffix('.tum'))]
            words = checks.trajectory_faults(
                way, self.camera.sent, () if file in before else earlier)
            if not len(cloud) or not way:
                words.append(f'{len(cloud)} points and {len(way)} poses')
            if words:
                raise Failure('lost', f'a saved map: {"; ".join(words)}')

    def _spin(self) -> None:
        while not self._closing.is_set():
            with suppress(InvalidHandle):  # of what was destroyed while it was waited for
                self._executor.spin_once(timeout_sec=0.1)
