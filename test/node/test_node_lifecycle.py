"""What the node does when its parts fail or hang: in this process, over real DDS."""

import gc
from itertools import count
import threading
import weakref

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import SetBool, Trigger
from stream_harness import make_image, Robot

from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.msg import StreamStatus
from xsvggt_ros.node import lifecycle, pipeline, run_node, runtime, supervisor
from xsvggt_ros.node.pipeline import Pipeline

PATIENCE = 60  # seconds; nothing takes that long
STAMPS = count()  # of all images, in seconds
SUCCESS, FAILURE, ERROR = (TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE,
                           TransitionCallbackReturn.ERROR)


class Gate:
    """In place of a function: calls wait in it while it is closed."""

    def __init__(self, function):
        self.function = function
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.inside = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, *arguments, **named):
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.entered.set()
        try:
            assert self.open.wait(PATIENCE)
            return self.function(*arguments, **named)
        finally:
            with self._lock:
                self.inside -= 1


@pytest.fixture
def make_node(checkpoint):
    """Make nodes of this process that nobody has configured yet."""
    nodes = []

    def make(*arguments, **parameters):
        settings = {'model.checkpoint': checkpoint, 'model.image_size': 70,
                    'cache.max_tokens': 100} | {
            name.replace('__', '.'): value for name, value in parameters.items()}
        args = ['--ros-args', '-r', 'image:=/cam/image_raw', '-r',
                'camera_info:=/cam/camera_info', *arguments]
        for name, value in settings.items():
            args += ['-p', f'{name}:={value}']
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        nodes.append(lifecycle.XsvggtNode())
        return nodes[-1]

    make.nodes = nodes
    yield make
    while nodes:
        node = nodes.pop()
        assert node.stop()
        node.destroy_node()
        rclpy.shutdown()
        del node
        gc.collect()    # 32 MB, for which the collector would not come of itself
    assert not workers()


@pytest.fixture
def spinning(make_node):
    """Return a node that is active, with its executor in a thread, and a robot around it."""
    node = make_node()
    node.start()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=run_node.spin, args=(node, executor, []))
    thread.start()
    robot = Robot()
    robot.wait(lambda: robot.images.get_subscription_count() > 0, 'a subscription')
    robot.wait(lambda: robot.node.count_publishers('/xsvggt/points') > 0, 'publishers')
    yield node, robot
    executor.shutdown()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    robot.close()


def workers():
    return [thread for thread in threading.enumerate() if thread.name == 'xsvggt_worker']


def reason(node):
    return node.faults.get('start').message


def change(robot, transition):
    request = ChangeState.Request(transition=Transition(id=transition))
    return robot.call(ChangeState, '/xsvggt/change_state', request).success


def state(robot):
    return robot.call(GetState, '/xsvggt/get_state', GetState.Request()).current_state.label


def send_until(robot, condition):
    """Send images until a condition holds: the first ones may be lost."""
    for _ in range(10_000):
        robot.images.publish(make_image(next(STAMPS)))
        if threading.Event().wait(0.1) or condition():
            return
    raise AssertionError('waited in vain')


def send_some(robot):
    """Send images until poses of some have come; return all poses so far."""
    before = len(robot.tracked())
    send_until(robot, lambda: len(robot.tracked()) > before + 2)
    return list(robot.received['odometry'])


def test_what_was_left_out_of_torch_is_loaded_when_something_fails(make_node, monkeypatch):
    waiting = ['loading', 'an image']   # what is to fail, once each
    asked = []
    monkeypatch.setattr(lifecycle, 'run_deferred', lambda: asked.append(1) or len(asked) == 1)
    load = lifecycle.load_engine

    def load_engine(*arguments):
        if waiting[0] == 'loading':
            raise NotImplementedError(f'no kernel for {waiting.pop(0)}')
        return load(*arguments)

    monkeypatch.setattr(lifecycle, 'load_engine', load_engine)
    node = make_node()
    assert node.start() and node.current.state == 'active' and asked == [1]
    monkeypatch.setattr(pipeline, 'run_deferred', lambda: waiting.pop(0) == 'an image')
    node.current.pipeline.on_error(NotImplementedError('no kernel'))
    assert not waiting


def test_what_a_destroyed_node_held_is_collected(make_node):
    node = make_node()
    assert node.start()
    pipeline = weakref.ref(node.current.pipeline)
    assert node.stop()
    node.destroy_node()
    rclpy.shutdown()
    make_node.nodes.clear()
    del node
    gc.collect()
    assert pipeline() is None



# Transitions that fail ---------------------------------------------------------------------------

@pytest.mark.parametrize('error', [MemoryError(), RuntimeError('CUDA error'), SystemExit(3)],
                         ids=repr)
def test_an_activation_that_fails_undoes_itself(make_node, monkeypatch, error):
    node = make_node()
    begin = Pipeline.begin

    def fail(pipeline, mailbox):
        monkeypatch.setattr(Pipeline, 'begin', begin)
        raise error

    monkeypatch.setattr(Pipeline, 'begin', fail)
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == ERROR
    assert type(error).__name__ in reason(node) and 'cannot activate' in reason(node)
    assert node._state_machine.current_state[1] == node.current.state == 'unconfigured'
    assert not node.inputs and not workers()
    assert node.current.pipeline is node.current.publishers is node.current.worker.current is None
    assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
    assert len(node.inputs) == 2 and len(workers()) == 1
    assert node.faults.get('start') is None


@pytest.mark.parametrize('name', ['load_engine', 'Publishers', 'TfListener', 'Pipeline'])
@pytest.mark.parametrize('error', [MemoryError(), SystemExit(3)], ids=repr)
def test_a_configuration_that_fails_undoes_itself(make_node, monkeypatch, name, error):
    node = make_node()
    publishers = {publisher.topic for publisher in node.publishers}
    subscriptions = {subscription.topic for subscription in node.subscriptions}

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, name, fail)
        assert node.trigger_configure() == FAILURE
    assert 'cannot start: ' + type(error).__name__ in reason(node)
    assert node._state_machine.current_state[1] == node.current.state == 'unconfigured'
    assert {publisher.topic for publisher in node.publishers} == publishers
    assert {subscription.topic for subscription in node.subscriptions} == subscriptions
    assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS


@pytest.mark.parametrize('override, words', [
    ('/xsvggt/points.publisher.reliability:=nonsense', ('~/points', 'nonsense')),
    ('/xsvggt/status.publisher.depth:=-1', ('~/status', 'depth'))])
def test_a_publisher_that_cannot_be_is_named(make_node, override, words):
    node = make_node('-p', f'qos_overrides.{override}')
    before = len(list(node.publishers))
    assert node.trigger_configure() == FAILURE
    assert all(word in reason(node) for word in ('cannot start', 'qos_overrides', *words))
    assert len(list(node.publishers)) == before
    node.supervisor.report()
    assert node.faults.get('diagnostics') is None


def test_a_subscription_that_cannot_be_is_named_and_the_node_stays_inactive(make_node):
    node = make_node(
        '-p', 'qos_overrides./cam/image_raw.subscription.reliability:=nonsense')
    assert node.trigger_configure() == SUCCESS
    for _ in range(2):
        assert node.trigger_activate() == FAILURE
        assert 'nonsense' in reason(node) and 'cannot activate' in reason(node)
        assert node._state_machine.current_state[1] == node.current.state == 'inactive'
        assert not node.inputs and not workers()
    assert node.trigger_cleanup() == SUCCESS


def test_a_topic_that_ros_refuses_is_named_and_another_one_is_taken(make_node):
    node = make_node('-p', "image_topics:=['/left/image-raw', '/right/image']")
    assert node.trigger_configure() == FAILURE
    assert '/left/image-raw' in reason(node) and 'image_topics' in reason(node)
    node.supervisor.report()
    assert node.faults.get('diagnostics') is None
    assert node.trigger_configure() == SUCCESS


@pytest.mark.parametrize('name', ['_unsubscribe', '_release'])
def test_a_transition_back_that_fails_lets_go_of_all(make_node, monkeypatch, name):
    node = make_node()
    assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
    original, calls = getattr(node, name), []

    def fail_once():
        original()
        if not calls:
            calls.append(1)
            raise RuntimeError('boom')

    monkeypatch.setattr(node, name, fail_once)
    results = [node.trigger_deactivate(), node.trigger_cleanup()]
    assert ERROR in results and 'boom' in reason(node)
    assert node._state_machine.current_state[1] == node.current.state == 'unconfigured'
    assert not node.inputs and not workers() and node.current.pipeline is None
    assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
    assert len(workers()) == 1


# An image that hangs -----------------------------------------------------------------------------

@pytest.fixture
def hanging(spinning, monkeypatch):
    """Return a node, its robot, and the gate in which an image hangs after some good ones."""
    gate = Gate(StreamEngine.step)
    monkeypatch.setattr(StreamEngine, 'step', lambda *args, **named: gate(*args, **named))
    node, robot = spinning
    node.settings = node.settings.changed({'diagnostics.frame_timeout': 0.1})
    send_until(robot, lambda: len(robot.tracked()) > 1)
    gate.open.clear()
    gate.entered.clear()
    send_until(robot, gate.entered.is_set)
    yield node, robot, gate
    gate.open.set()


def test_everything_answers_while_an_image_hangs_and_what_was_asked_for_follows(
        hanging, monkeypatch, tmp_path):
    node, robot, gate = hanging
    monkeypatch.setattr(runtime, 'SERVICE_TIMEOUT', 0.5)
    node.settings = node.settings.changed({'map.save_directory': str(tmp_path)})
    status = robot.wait_for_diagnostic(
        None, 'Inference', 'an image has been in progress for', 'since')
    assert status.level == DiagnosticStatus.ERROR
    robot.wait(lambda: robot.received['status'][-1].state == StreamStatus.DEGRADED, 'DEGRADED')
    answer = robot.call(Trigger, '/xsvggt/save_map', Trigger.Request())
    assert not answer.success and 'will be saved when the current work is done' in answer.message
    answer = robot.call(Trigger, '/xsvggt/reset', Trigger.Request())
    assert answer.success and 'the reset follows when the current work is done' in answer.message
    assert robot.call(SetBool, '/xsvggt/enable', SetBool.Request(data=True)).success
    assert gate.inside == 1 and node.current.pipeline.statistics.resets == 0
    said = len(robot.received['diagnostics'])
    robot.wait(lambda: len(robot.received['diagnostics']) > said + 1, 'more diagnostics')
    gate.open.set()
    robot.wait(lambda: node.current.pipeline.statistics.resets == 1, 'the reset')
    robot.wait(lambda: any(tmp_path.iterdir()), 'the map')
    send_until(robot, lambda: robot.received['status'][-1].state == StreamStatus.TRACKING)
    robot.wait(lambda: node.faults.get('hang') is None, 'the end of the fault')


def test_a_hundred_services_are_answered_while_an_image_hangs(hanging, monkeypatch):
    node, robot, gate = hanging
    monkeypatch.setattr(runtime, 'SERVICE_TIMEOUT', 0.5)
    client = robot.node.create_client(Trigger, '/xsvggt/reset')
    assert client.wait_for_service(timeout_sec=PATIENCE)
    futures = [client.call_async(Trigger.Request()) for _ in range(9)]
    robot.wait(lambda: all(future.done() for future in futures), 'all answers')
    assert all('follows' in future.result().message for future in futures)
    assert gate.inside == 1
    gate.open.set()
    robot.wait(lambda: node.current.pipeline.statistics.resets == 9, 'all resets')


def test_never_two_workers_on_one_engine(hanging, monkeypatch):
    node, robot, gate = hanging
    monkeypatch.setattr(runtime, 'SERVICE_TIMEOUT', 0.3)
    assert change(robot, Transition.TRANSITION_DEACTIVATE)
    assert state(robot) == 'inactive' and gate.inside == 1
    for transition in (Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_CLEANUP):
        assert not change(robot, transition)
        assert 'an image has been in progress since' in reason(node)
        assert state(robot) == 'inactive' and len(workers()) == 1
    robot.wait_for_diagnostic(None, 'Model', 'an image has been in progress since')
    robot.wait_for_diagnostic(None, 'Inference', 'an image has been in progress for')
    gate.open.set()
    robot.wait(lambda: change(robot, Transition.TRANSITION_ACTIVATE), 'the activation')
    robot.wait(lambda: robot.images.get_subscription_count() > 0, 'a subscription')
    hung = node.current.pipeline.statistics.last_header.stamp
    stamps = [message.header.stamp for message in send_some(robot)]
    assert hung not in stamps      # nothing of it was published
    assert gate.most == 1 and len(workers()) == 1


def test_a_node_can_be_shut_down_while_an_image_hangs(hanging, monkeypatch):
    node, robot, gate = hanging
    monkeypatch.setattr(lifecycle, 'STOP_TIMEOUT', 0.3)
    assert change(robot, Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert state(robot) == 'finalized' and gate.inside == 1
    gate.open.set()
    robot.wait(lambda: not workers(), 'the worker to end')
    monkeypatch.setattr(lifecycle, 'STOP_TIMEOUT', PATIENCE)


# Callbacks that fail -----------------------------------------------------------------------------

@pytest.mark.parametrize('error', [RuntimeError('boom'), SystemExit(3), GeneratorExit()], ids=repr)
def test_a_callback_that_fails_is_told_and_the_others_go_on(spinning, monkeypatch, error):
    node, robot = spinning
    send_until(robot, lambda: len(robot.tracked()) > 0)
    on_image, fired = node.current.pipeline.intake.meter.tick, threading.Event()

    def fail():
        if not fired.is_set():
            fired.set()
            raise error
        on_image()

    monkeypatch.setattr(node.current.pipeline.intake.meter, 'tick', fail)
    send_until(robot, fired.is_set)
    seen = len(robot.tracked())
    send_until(robot, lambda: len(robot.tracked()) > seen)
    assert type(error).__name__ in node.faults.last('callback').message
    status = robot.wait_for_diagnostic(None, 'Inference', 'a callback failed')
    assert status.level == DiagnosticStatus.ERROR


@pytest.mark.parametrize('error', [RuntimeError('boom'), SystemExit(3)], ids=repr)
def test_diagnostics_that_fail_come_again(spinning, monkeypatch, error):
    node, robot = spinning

    def fail(*_):
        monkeypatch.undo()
        raise error

    monkeypatch.setattr(supervisor, 'build_statuses', fail)
    robot.wait(lambda: node.faults.last('diagnostics') is not None, 'the fault')
    said = len(robot.received['diagnostics'])
    robot.wait(lambda: len(robot.received['diagnostics']) > said, 'diagnostics')
