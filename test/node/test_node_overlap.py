"""One image is published while the network has the next: with a fake engine, without a node."""

import threading
import time

from fake_stream import HEIGHT, LateCopies, PATIENCE, WIDTH
import numpy as np
import pytest
import rclpy

from xsvggt_ros.engine.host_copy import HostCopy
from xsvggt_ros.node.tracked_pose import TrackedPose


def test_an_image_is_published_while_the_network_has_the_next(make_stream):
    stream = make_stream()
    gates = stream.gates
    stream.hold(0)
    gates.wait_for('finish', 0)
    stream.send(1)
    gates.wait_for('step', 1)
    assert ('status', 0) not in gates.log
    stream.send(2)      # waits, and gives way to the next
    stream.send(3)
    stream.release(0)
    for index in (0, 1, 3):
        gates.wait_for('status', index)
    assert gates.order(('step', 0), ('publish', 0), ('step', 1), ('status', 0), ('publish', 1),
                       ('status', 1), ('publish', 3), ('status', 3))
    assert gates.order(('status', 0), ('step', 3))      # one image ahead, no more
    assert gates.threads['step'] == {'xsvggt_worker'}
    assert gates.threads['publish'] == gates.threads['status'] == {'xsvggt_publishing'}
    last = stream.statuses()[-1]
    assert (last.frames_received, last.frames_processed, last.frames_dropped) == (4, 3, 1)
    assert [s.frames_processed for s in stream.statuses()] == [1, 2, 3]


def test_without_overlap_all_is_done_in_the_workers_thread(make_stream):
    stream = make_stream(overlaps=False)
    stream.process(0, 1)
    assert stream.gates.log == [('reset',)] + [
        (event, index) for index in (0, 1) for event in ('step', 'publish', 'finish', 'status')]
    assert stream.gates.threads['publish'] == {'xsvggt_worker'}


def test_where_the_camera_is_waits_for_nothing_else_that_is_published(make_stream, monkeypatch):
    stream = make_stream(overlaps=False)
    processor, seen = stream.pipeline.processor, []
    complete, copy = processor._complete, processor._start_host_copy

    def note(call):
        return lambda *arguments: (seen.append([len(stream.topics[name].messages) for name in (
            'tf', 'odometry', 'depth')]), call(*arguments))[1]

    monkeypatch.setattr(processor, '_complete', note(complete))
    monkeypatch.setattr(processor, '_start_host_copy', note(copy))
    stream.process(0, 1)
    assert seen == [[1, 1, 0], [1, 1, 0], [2, 2, 1], [2, 2, 1]]
    latencies = stream.pipeline.statistics.odometry_latencies
    assert len(latencies) == 2
    for until_odometry, status in zip(latencies, stream.statuses()):
        assert 0 < until_odometry < status.latency_total


@pytest.mark.parametrize('overlaps', [False, True])
def test_the_worker_leaves_pythons_lock_to_who_publishes_a_tracked_pose(
        make_stream, monkeypatch, overlaps):
    stream = make_stream(overlaps)
    trajectory, outputs = stream.pipeline.stream.trajectory, stream.pipeline.outputs
    locate, seen = outputs.locate, []

    def complete(result):
        seen.append(len(stream.topics['odometry'].messages))
        return result

    monkeypatch.setattr(type(trajectory), 'is_on', True)
    monkeypatch.setattr(trajectory, 'begin', lambda *arguments: None)
    monkeypatch.setattr(trajectory, 'track', lambda pixels, camera, result, *more: (result, None))
    monkeypatch.setattr(trajectory, 'complete', complete)
    monkeypatch.setattr(outputs, 'locate', lambda frame: (time.sleep(0.05), locate(frame)))
    stream.process(0, 1)
    assert seen == [1, 2]


def told_early(monkeypatch, stream, when=lambda index: True):
    """Have a trajectory that knows some images' poses before the network has seen them."""
    trajectory = stream.pipeline.stream.trajectory
    tracked = TrackedPose('tracks', 60, 0.4, 1e-4 * np.eye(6), None, None, None)
    begun = []

    def begin(pixels, camera, stamp_ns, frame_id, early):
        begun.append(early)
        if early is not None and when(len(begun)):
            early(np.eye(4), tracked)

    monkeypatch.setattr(type(trajectory), 'is_on', True)
    monkeypatch.setattr(trajectory, 'begin', begin)
    monkeypatch.setattr(trajectory, 'track',
                        lambda pixels, camera, result, *more: (result, tracked))
    monkeypatch.setattr(trajectory, 'complete', lambda result: result)
    return begun


@pytest.mark.parametrize('overlaps', [False, True])
def test_a_pose_that_needs_no_network_is_published_before_it_and_once(
        make_stream, monkeypatch, overlaps):
    stream = make_stream(overlaps)
    stream.process(0)
    told_early(monkeypatch, stream, when=lambda number: number != 2)
    predict, seen = stream.pipeline.processor._predict, []

    def note(*arguments):
        stream.pipeline.stream.publishing.join()
        seen.append(len(stream.topics['odometry'].messages))
        return predict(*arguments)

    monkeypatch.setattr(stream.pipeline.processor, '_predict', note)
    stream.process(1, 2, 3)
    assert seen == [2, 2, 4]   # the second had to wait for the network
    assert len(stream.topics['odometry'].messages) == len(stream.topics['tf'].messages) == 4
    assert len(stream.topics['depth'].messages) == 4 and stream.unaccounted() == 0
    assert len(stream.pipeline.statistics.odometry_latencies) == 4


@pytest.mark.parametrize('overlaps', [False, True])
def test_an_image_that_fails_behind_its_pose_is_rejected(make_stream, monkeypatch, overlaps):
    stream = make_stream(overlaps)
    stream.process(0)
    told_early(monkeypatch, stream)
    predict, calls = stream.pipeline.processor._predict, []

    def fail_once(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise RuntimeError('no memory')
        return predict(*arguments)

    monkeypatch.setattr(stream.pipeline.processor, '_predict', fail_once)
    stream.send(1)
    stream.rest()
    assert stream.pipeline.statistics.rejected == 1 and 'no memory' in ' '.join(stream.told)
    assert len(stream.topics['odometry'].messages) == 2
    stream.process(2)
    assert len(stream.topics['odometry'].messages) == 3 and stream.unaccounted() == 0
    assert stream.pipeline.statistics.processed == 2


@pytest.mark.parametrize('overlaps', [False, True])
def test_a_pose_comes_before_the_reset_by_its_own_image(make_stream, monkeypatch, overlaps):
    """The network may fail before the thread beside it has told the pose."""
    stream = make_stream(overlaps, **{'reset.on_failures': 1})
    stream.process(0)
    told_early(monkeypatch, stream)
    trajectory, outputs = stream.pipeline.stream.trajectory, stream.pipeline.outputs
    begin, failed, threads, seen = trajectory.begin, threading.Event(), [], []

    def begin_beside(*arguments):
        threads.append(threading.Thread(
            target=lambda: (failed.wait(60), time.sleep(0.1), begin(*arguments))))
        threads[-1].start()

    def fail(*arguments):
        failed.set()
        with stream.pipeline.stream.counting_failures():
            raise RuntimeError('no memory')

    forget = outputs.forget
    monkeypatch.setattr(trajectory, 'begin', begin_beside)
    monkeypatch.setattr(trajectory, 'settle', lambda: [one.join() for one in threads])
    monkeypatch.setattr(stream.pipeline.processor, '_predict', fail)
    monkeypatch.setattr(outputs, 'forget', lambda: (
        seen.append(len(stream.topics['odometry'].messages)), forget()))
    stream.send(1)
    stream.rest()
    assert stream.pipeline.statistics.resets == 1 and seen == [2]
    assert len(stream.topics['odometry'].messages) == 2 and stream.unaccounted() == 0


def test_a_pose_whose_unit_the_network_tells_waits_for_it(make_stream, monkeypatch):
    stream = make_stream(**{'scale.mode': 'odometry'})
    stream.process(0)
    begun = told_early(monkeypatch, stream)
    stream.process(1)
    assert begun == [None]


@pytest.mark.parametrize('overlaps', [False, True])
def test_images_whose_depth_fails_are_rejected_and_count_as_failures(
        make_stream, monkeypatch, overlaps):
    stream = make_stream(overlaps, **{'reset.on_failures': 2})
    stream.process(0)
    trajectory = stream.pipeline.stream.trajectory

    def fail(result):
        raise RuntimeError('no depth')

    monkeypatch.setattr(type(trajectory), 'is_on', True)
    monkeypatch.setattr(trajectory, 'begin', lambda *arguments: None)
    monkeypatch.setattr(trajectory, 'track', lambda pixels, camera, result, *more: (result, None))
    monkeypatch.setattr(trajectory, 'complete', fail)
    stream.send(1)
    stream.rest()
    assert stream.pipeline.stream.failures == 1 and stream.engine.frames == 1
    stream.send(2)
    stream.rest()
    assert stream.pipeline.statistics.resets == 1 and stream.unaccounted() == 0
    assert stream.pipeline.statistics.rejected == 2 and 'no depth' in ' '.join(stream.told)
    assert len(stream.statuses()) == 1


@pytest.mark.parametrize('overlaps', [False, True])
def test_every_message_has_its_own_images_values(make_stream, overlaps):
    stream = make_stream(overlaps)
    stream.process(*range(8))
    for index in range(8):
        depth, cloud = (stream.topics[name].messages[index] for name in ('depth', 'points'))
        assert (np.frombuffer(depth.data, np.float32) == 1 + index).all()
        rows = np.frombuffer(cloud.data, np.float32).reshape(-1, 5)
        assert len(rows) == HEIGHT * WIDTH and (rows[:, 2] == 1 + index).all()
        assert cloud.header.stamp == depth.header.stamp == stream.statuses()[index].header.stamp
        assert stream.topics['odometry'].messages[index].pose.pose.position.y == -index
        assert stream.topics['cache_status'].messages[index].frame_index == index
        assert stream.statuses()[index].points_published == HEIGHT * WIDTH
        assert stream.statuses()[index].confidence_mean == 2.0


def test_the_parts_of_the_latency_are_within_the_whole(make_stream):
    stream = make_stream()
    stream.process(*range(4))
    for status in stream.statuses():
        parts = [getattr(status, f'latency_{name}')
                 for name in ('decode', 'upload', 'inference', 'pack', 'publish')]
        assert min(parts) >= 0 and sum(parts) <= status.latency_total + 1e-6


def test_copies_stay_until_their_image_is_published(make_stream):
    stream = make_stream()
    stream.pipeline.processor._copies = HostCopy(LateCopies(stream.gates))
    clouds = []
    stream.pipeline.outputs.map.add = lambda header, make_cloud, *rest: clouds.append(
        make_cloud().copy())
    for index in range(0, 8, 2):
        stream.hold(index)
        stream.send(index + 1)
        stream.gates.wait_for('step', index + 1)    # its copy begins while the other is read
        stream.release(index)
        stream.gates.wait_for('status', index + 1)
    stream.rest()
    assert stream.gates.threads['arrive'] == {'xsvggt_publishing'}
    assert [set(cloud[:, 2]) for cloud in clouds] == [{1.0 + index} for index in range(8)]
    for index, depth in enumerate(stream.topics['depth'].messages):
        assert (np.frombuffer(depth.data, np.float32) == 1 + index).all()


def test_a_reset_waits_for_the_image_that_is_being_published(make_stream):
    stream = make_stream()
    stream.hold(0)
    thread, _ = stream.in_thread(lambda: stream.worker.run(stream.pipeline.reset, PATIENCE))
    stream.gates.wait_for('finish', 0)
    assert stream.gates.log.count(('reset',)) == 1      # that of the beginning
    stream.release(0)
    thread.join(PATIENCE)
    assert stream.gates.log[-2:] == [('status', 0), ('reset',)]
    assert stream.pipeline.statistics.report is None
    assert stream.pipeline.outputs.map.report.fill.points == 0
    stream.process(1)
    status = stream.statuses()[-1]
    assert (status.reset_count, status.frames_processed) == (1, 2)
    # The new stream goes on where the other one was.
    assert stream.topics['odometry'].messages[-1].pose.pose.position.y == 0.0


def test_a_stream_that_begins_by_itself_waits_too(make_stream):
    stream = make_stream()
    stream.hold(9)
    stream.send(1)      # its stamp is older: a new stream
    stream.release(9)
    stream.gates.wait_for('status', 1)
    log = stream.gates.log
    assert log.index(('status', 9)) < log.index(('reset',), 1) < log.index(('step', 1))
    assert [message.frame_index for message in stream.topics['cache_status'].messages] == [0, 0]
    assert stream.statuses()[-1].reset_count == 1


def test_a_saved_map_has_all_images_so_far(make_stream, tmp_path):
    stream = make_stream(**{'map.save_directory': str(tmp_path)})
    stream.process(0, 1)
    stream.hold(2)
    save = stream.pipeline.outputs.map.save
    stream.pipeline.outputs.map.save = lambda *values, **more: (
        stream.gates.pass_through('save'), save(*values, **more))[1]

    def ask():
        stream.gates.pass_through('asked')
        return stream.pipeline.save_map()

    thread, answer = stream.in_thread(lambda: stream.worker.run(ask, PATIENCE))
    stream.gates.wait_for('asked')
    stream.release(2)
    thread.join(PATIENCE)
    assert stream.gates.order(('status', 2), ('save',))
    assert '(3 poses)' in answer[0]
    assert stream.worker.stop(PATIENCE)
    assert '(3 poses)' in stream.pipeline.save_map()    # and without a worker


@pytest.mark.parametrize('overlaps', [False, True])
def test_what_cannot_be_published_is_counted_and_said_and_the_next_image_comes(
        make_stream, overlaps):
    stream = make_stream(overlaps)
    stream.process(0)
    stream.topics['points'].error = RuntimeError('no such middleware')
    stream.send(1)
    stream.gates.wait_for('finish', 1)      # it was remembered all the same
    stream.rest()
    assert 'no such middleware' in stream.told[-1] and 'RuntimeError' in stream.told[-1]
    assert stream.pipeline._faults.get('frame') is not None
    stream.process(2)
    status = stream.statuses()[-1]
    assert (status.frames_received, status.frames_processed, status.frames_rejected) == (3, 2, 1)
    assert ('status', 1) not in stream.gates.log
    assert stream.pipeline._faults.get('frame') is None
    assert [message.frame_index for message in stream.topics['cache_status'].messages] == [0, 2]


def test_a_broken_image_is_said_after_the_one_before_was_published(make_stream):
    stream = make_stream()
    stream.hold(0)
    stream.send(1, encoding='yuv999')
    stream.release(0)
    stream.gates.wait_for('status', 0)
    stream.rest()
    assert 'yuv999' in stream.pipeline._faults.get('image').message     # not cleared by image 0
    assert stream.pipeline.statistics.rejected == 1
    stream.process(2)
    assert stream.pipeline._faults.get('image') is None


def test_a_lost_pose_begins_a_new_stream_after_the_image_before(make_stream):
    stream = make_stream(**{'reset.on_lost': True})
    stream.engine.lost.add(1)
    stream.hold(0)
    stream.send(1)
    stream.gates.wait_for('step', 1)
    stream.release(0)
    stream.gates.wait_for('reset', times=2)
    assert stream.gates.order(('step', 1), ('status', 0))
    assert stream.gates.log[-1] == ('reset',)
    stream.process(2)
    status = stream.statuses()[-1]
    assert (status.frames_processed, status.frames_rejected, status.reset_count) == (2, 1, 1)


@pytest.mark.parametrize('overlaps', [False, True])
def test_a_unit_that_changes_with_an_image_that_is_refused_is_not_lost(make_stream, overlaps):
    stream = make_stream(overlaps, **{'scale.mode': 'fixed', 'scale.value': 1.0})
    stream.process(0, 1)
    stream.engine.lost.add(2)
    stream.pipeline.settings = stream.pipeline.settings.changed({'scale.value': 2.0})
    stream.send(2)
    stream.gates.wait_for('step', 2)
    stream.process(3)
    places = [message.pose.pose.position.y for message in stream.topics['odometry'].messages]
    # Where the camera was stays there; from there it went two units, which are four metres now.
    assert places == [0.0, -1.0, -5.0]
    assert [status.scale for status in stream.statuses()] == [1.0, 1.0, 2.0]


def test_the_deadline_hears_of_every_image_published(make_stream):
    stream = make_stream(deadline_ms=1.0, **{'map.enable': False})
    seconds = []
    stream.pipeline.deadline.update = lambda took, *rest: seconds.append(took)
    stream.process(0, 1, 2)
    stream.rest()
    assert len(seconds) == 3 and min(seconds) > 0


def test_the_end_waits_for_what_is_being_published_and_no_longer_than_it_may(make_stream):
    stream = make_stream()
    stream.hold(0)
    stream.gates.wait_for('finish', 0)
    assert not stream.worker.stop(0.05)
    stream.release(0)
    assert stream.worker.stop(PATIENCE)
    assert stream.gates.log[-1] == ('status', 0)


def test_a_process_that_ends_complains_of_nothing(make_stream, monkeypatch):
    stream = make_stream()
    stream.process(0)
    monkeypatch.setattr(rclpy, 'ok', lambda: False)
    stream.topics['points'].error = RuntimeError('the context is invalid')
    stream.send(1)
    stream.gates.wait_for('finish', 1)
    assert stream.worker.stop(PATIENCE)
    assert stream.told == [] and stream.pipeline.statistics.rejected == 0
