"""The real node is paused, goes through its lifecycle, and ends with Ctrl-C at any time."""

import threading

from lifecycle_msgs.srv import GetState
from node_fixtures import robot_fixture
import pytest
from std_srvs.srv import SetBool
from stream_harness import make_image, OK

from xsvggt_ros.msg import StreamStatus

robot = robot_fixture('function')


def test_a_paused_node_ignores_images_and_keeps_the_stream(robot, start):
    node = start()
    robot.process(node, make_image(0))
    assert robot.call(SetBool, '/xsvggt/enable', SetBool.Request(data=False)).success
    robot.images.publish(make_image(1))
    robot.wait(lambda: robot.received['status'][-1].state == StreamStatus.PAUSED, 'PAUSED', node)
    assert robot.wait_for_diagnostic(node, 'Input', 'paused').level == OK
    assert robot.call(SetBool, '/xsvggt/enable', SetBool.Request(data=True)).success
    status = robot.process(node, make_image(2))
    assert (status.frames_received, status.frames_processed, status.reset_count) == (2, 2, 0)
    assert [cache.frame_index for cache in robot.received['cache']] == [0, 1]


@pytest.mark.both_networks
def test_lifecycle_down_and_up_again(robot, start):
    node = start()
    for i in range(6):
        robot.process(node, make_image(i))
    states = []
    for transition in ('deactivate', 'cleanup', 'configure', 'activate'):
        robot.change_states(transition)
        state = robot.call(GetState, '/xsvggt/get_state', GetState.Request())
        states.append(state.current_state.label)
    assert states == ['inactive', 'unconfigured', 'inactive', 'active']
    robot.wait_until_subscribed(node)
    status = robot.process(node, make_image(7))
    assert status.frames_received == 1
    assert robot.received['cache'][-1].frame_index == 0


def test_ctrl_c_while_images_arrive_is_quiet(robot, start):
    node = start(model__image_size=140, diagnostics__frame_timeout=600.0)   # or it says 'stuck'
    stopping = threading.Event()

    def publish():
        for i in range(2000):
            if stopping.wait(0.01):
                return
            robot.images.publish(make_image(i))

    camera = threading.Thread(target=publish)
    camera.start()
    robot.wait(lambda: len(robot.tracked()) > 5, 'some frames', node)
    code, _ = node.stop()
    stopping.set()
    camera.join()
    assert code == 0
    assert 'ERROR' not in node.output() and 'Failed' not in node.output(), node.output()


# A launch passes on what its whole process group has had already.
@pytest.mark.parametrize('presses', [1, 2, 4])
def test_ctrl_c_while_loading_and_in_the_middle_of_a_frame(robot, start, presses):
    loading = start(wait=False)
    robot.wait(lambda: loading.resident_bytes() > 40e6, 'imports to begin', loading)
    code, _ = loading.stop(presses)
    assert code == 0, loading.output()
    idle = start()
    code, _ = idle.stop(presses)
    assert code == 0, idle.output()
    assert 'Traceback' not in idle.output()
    busy = start(model__checkpoint='random', model__image_size=1400)
    robot.images.publish(make_image(0, width=1400, height=1400))
    robot.wait(lambda: 'stream begins' in busy.output()
               or busy.resident_bytes() > 600e6, 'work to begin', busy)
    # Each is the size of some images, and stays until the machine is started again.
    taken = [path for path in busy.shared_memory() if 'fast' in path.name]
    code, _ = busy.stop(presses)
    assert code == 0, busy.output()
    assert 'Traceback' not in busy.output()
    assert not [path for path in taken if path.exists()]
