"""What diagnostics and the fault log say in situations that are slow or hard to bring about."""

from dataclasses import replace
import time

from diagnostic_msgs.msg import DiagnosticStatus
import pytest
import rclpy
from rclpy.serialization import deserialize_message, serialize_message

from xsvggt_ros.engine.stream_engine import CacheStats
from xsvggt_ros.kv_cache.cache import CacheHealth
from xsvggt_ros.mapping.point_map import MapFill
from xsvggt_ros.node.lifecycle import XsvggtNode
from xsvggt_ros.node.outputs.map_output import full_message, MapReport
from xsvggt_ros.node.status.diagnostics import build_statuses
from xsvggt_ros.node.status.fault_log import Fault, FaultLog
from xsvggt_ros.node.status.snapshot import GpuMemory, Snapshot
from xsvggt_ros.node.status.stream_statistics import (
    FrameReport,
    Latency,
    RateMeter,
)

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

CACHE = CacheStats(
    frames=9, tokens_per_frame=25, tokens_per_layer=(100, 100), budget=100, occupancy=1.0,
    evicted_this_frame=25, evicted_total=125, camera_tokens=36, camera_budget=64,
    bytes_used=5_000_000, bytes_reserved=6_000_000,
    health=CacheHealth(25.0, 25.0, 50.0, 5.5, 0.93))
REPORT = FrameReport(
    latency=Latency(0.05, 0.001, 0.002, 0.04, 0.004, 0.003), cache=CACHE, confidence_mean=1.5,
    depth_error=0.08, points=1000, predicted_fx=400.0, predicted_fy=401.0)
HEALTHY = Snapshot(
    state='active', topic='/cam', publishers=['driver (sensor_msgs/msg/Image, reliable)'],
    image_timeout=5.0, active_for=60.0, start_fault=None, image_fault=None, frame_fault=None,
    tf_fault=None, stamp_fault=None, map_fault=None,
    process_bytes=10**9, image_age=0.03, image_rate=30.0, info_rate=30.0,
    image_description='rgb8 640x480', calibrated_focal=(390.0, 390.0), received=300,
    processed=300, rate_out=30.0, latencies=[0.05], report=REPORT, model='tiny', device='cpu',
    map=MapReport(MapFill(1000, 4000, 0, 0), 0.05, 0.002))


def status_of(name, **changes):
    statuses = {s.name: s for s in build_statuses(replace(HEALTHY, **changes), 'xsvggt')}
    assert len(statuses) == 7
    return statuses[f'xsvggt: {name}']


def test_a_healthy_node_is_ok_everywhere():
    for status in build_statuses(HEALTHY, 'xsvggt'):
        assert status.level == OK, status
        assert deserialize_message(serialize_message(status), DiagnosticStatus) == status


def test_predicted_and_calibrated_focal_lengths_are_both_shown():
    values = {v.key: v.value for v in status_of('Input', calibration='pinhole').values}
    assert values['calibration'] == 'pinhole'
    assert values['predicted focal fx, fy (px)'] == '400.0, 401.0'
    assert values['calibrated focal fx, fy (px)'] == '390.0, 390.0'


def test_a_calibration_that_does_not_fit_the_picture_is_doubted():
    status = status_of('Input', calibrated_focal=(800.0, 800.0))
    assert status.level == WARN and 'another resolution' in status.message
    assert status_of('Input', calibrated_focal=(430.0, 340.0)).level == OK
    assert status_of('Input', calibrated_focal=(800.0, 800.0), random_weights=True).level == OK
    assert status_of('Input', calibrated_focal=None).level == OK


def test_depth_that_is_expected_to_be_far_off_is_a_warning():
    status = status_of('Tracking', max_depth_error=0.35)
    assert status.level == OK
    assert {v.key: v.value for v in status.values}['expected depth error (%)'] == '8'
    unsure = replace(REPORT, depth_error=0.41)
    status = status_of('Tracking', report=unsure, max_depth_error=0.35)
    assert status.level == WARN and '41 %' in status.message
    assert 'model.checkpoint' in status.message
    assert 'diagnostics.max_depth_error, 35 %' in status.message
    assert status_of('Tracking', report=unsure, max_depth_error=0.0).level == OK
    unknown = status_of('Tracking', report=replace(REPORT, depth_error=0.0), max_depth_error=0.35)
    assert {v.key: v.value for v in unknown.values}['expected depth error (%)'] == 'not known'


def test_a_calibration_that_cannot_be_used_is_a_warning():
    fault = Fault('camera_info on /cam/camera_info is not used', 1, time.monotonic())
    status = status_of('Input', camera_info_fault=fault)
    assert status.level == WARN and status.message == fault.message


def test_what_is_wrong_with_a_calibration_is_said_for_as_long_as_it_lasts_beside_all_else():
    hour = time.monotonic() - 3600
    status = status_of(
        'Input', camera_info_fault=Fault('K is singular', 1, hour), scale_fault='no scale yet',
        stamp_fault=Fault('two images have the same stamp', 1, time.monotonic()))
    assert status.level == WARN
    for words in ('K is singular', 'no scale yet', 'the same stamp'):
        assert words in status.message
    status = status_of('Input', camera_info_fault=Fault('K is singular', 1, hour),
                       image_fault=Fault('image refused', 1, time.monotonic()))
    assert status.level == ERROR and 'K is singular' in status.message


def test_images_lost_by_the_middleware_are_noticed():
    status = status_of('Input', image_rate=2.0)
    assert status.level == WARN
    assert 'fastdds.xml' in status.message and '2.0 Hz' in status.message


@pytest.mark.parametrize('publishers, words', [
    ([], ('nobody publishes', 'image:=')),
    (['driver (sensor_msgs/msg/CompressedImage, reliable)'], ('CompressedImage', 'type')),
])
def test_silence_is_explained(publishers, words):
    status = status_of('Input', publishers=publishers, image_age=None)
    assert status.level == ERROR
    assert all(word in status.message for word in words)


@pytest.mark.parametrize('publishers, words', [
    ([], ('any more', 'recording has ended')),
    (['driver (sensor_msgs/msg/Image, reliable)'], ('still published by driver', 'plugged in')),
])
def test_images_that_came_and_stopped_are_another_silence(publishers, words):
    status = status_of('Input', publishers=publishers, image_age=23.0)
    assert status.level == ERROR and 'no image on /cam for 23 s' in status.message
    assert all(word in status.message for word in words)
    # The stream before the node was activated again says nothing of this one.
    assert 'image_topic:=' in status_of(
        'Input', publishers=[], image_age=23.0, active_for=20.0).message


def test_overload_names_the_parameter_to_turn():
    status = status_of('Inference', rate_out=5.0, processed=50, dropped=250)
    assert 'model.image_size' in status.message and '83 %' in status.message
    lost = status_of('Inference', rate_out=5.0, processed=50, dropped=250,
                     camera_faults=[(0, 'the reference sends nothing')])
    assert 'model.image_size' not in lost.message and '83 %' in lost.message


def test_shares_of_the_stages_and_of_waiting_make_the_whole():
    shares = REPORT.latency.shares()
    assert sum(shares.values()) == pytest.approx(1.0) and shares['waiting'] == pytest.approx(0)
    values = {v.key: v.value for v in status_of('Inference').values}
    assert values['shares (%)'] == (
        'waiting 0, decode 2, upload 4, inference 80, pack 8, publish 6')
    late = replace(REPORT.latency, total=0.1)
    assert late.shares()['waiting'] == pytest.approx(0.5)


def test_a_network_that_hangs_is_an_error():
    status = status_of('Inference', busy_for=40.0)
    assert status.level == ERROR and '40 s' in status.message


@pytest.mark.parametrize('free, level', [(50, OK), (15, WARN), (5, ERROR)])
def test_gpu_memory_running_out(free, level):
    status = status_of('GPU memory', gpu=GpuMemory(10, 20, free, 100))
    assert status.level == level
    assert (level == OK) == ('cache.max_tokens' not in status.message)


def test_a_cache_without_a_limit_is_a_warning():
    report = replace(REPORT, cache=replace(CACHE, budget=None))
    status = status_of('KV cache', report=report)
    assert status.level == WARN and 'cache.policy' in status.message


def test_faults_are_told_once_and_counted():
    told = []
    log = FaultLog(told.append, period=1000.0)
    for _ in range(5):
        log.report('image', 'bad encoding')
    log.report('model', 'no file')
    assert told == ['bad encoding', 'no file']
    assert log.get('image').count == 5
    log.clear('image')
    assert log.get('image') is None


def test_every_new_fault_is_told_but_no_flood_of_them():
    told = []
    log = FaultLog(told.append, period=1000.0)
    for i in range(20):
        log.report('image', f'bad size {i}')
    assert told == [f'bad size {i}' for i in range(FaultLog.MAX_NEW)]
    assert log.get('image').message == 'bad size 19'


def test_a_fault_is_told_again_after_a_while_with_its_count():
    told = []
    log = FaultLog(told.append, period=0.0)
    log.report('image', 'bad')
    log.report('image', 'bad')
    assert told == ['bad', 'bad (2 times)']


def test_a_fault_that_lasts_is_told_more_and_more_seldom(monkeypatch):
    now, told = [100.0], []
    monkeypatch.setattr('time.monotonic', lambda: now[0])
    log = FaultLog(lambda message: told.append(now[0] - 100))
    for _ in range(4000):  # an hour and more of a report a second
        log.report('silence', f'no image for {now[0]} s', key='nobody publishes')
        now[0] += 1
    assert told == [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430, 3030, 3630]


def test_a_fault_that_was_away_is_new(monkeypatch):
    now, told = [100.0], []
    monkeypatch.setattr('time.monotonic', lambda: now[0])
    log = FaultLog(lambda message: told.append(now[0] - 100))
    for second in [*range(100), *range(120, 135), 150]:
        now[0] = 100.0 + second
        log.report('silence', 'no image')
    assert told == [0, 10, 30, 70, 120, 130, 150]


def test_another_cause_is_told_at_once_and_none_of_them_twice(monkeypatch):
    now, told = [100.0], []
    monkeypatch.setattr('time.monotonic', lambda: now[0])
    log = FaultLog(lambda message: told.append((now[0] - 100, message)))
    for second, cause in enumerate('aaabbbab'):
        now[0] = 100.0 + second
        assert log.report('silence', cause) == (told[-1][0] == second)
    assert told == [(0, 'a'), (3, 'b')]


def test_rates(monkeypatch):
    now = [100.0]
    monkeypatch.setattr('time.monotonic', lambda: now[0])
    meter = RateMeter(window=5.0)
    assert meter.rate() == 0.0 and meter.age() is None
    for _ in range(101):
        meter.tick()
        now[0] += 0.1
    assert meter.rate() == pytest.approx(10.0, rel=0.03)
    now[0] += 10
    assert meter.rate() == 0.0
    assert meter.age() == pytest.approx(10.1)


def test_a_network_slower_than_the_meters_window_has_a_rate(monkeypatch):
    now, meter = [100.0], RateMeter(window=5.0)
    monkeypatch.setattr('time.monotonic', lambda: now[0])
    meter.tick(2)
    for _ in range(3):
        now[0] += 8.0
        meter.tick(2)
        for _ in range(2):
            assert meter.rate() == pytest.approx(0.25)
            now[0] += 4.0
        now[0] -= 8.0
    now[0] += 17.0
    assert meter.rate() == 0.0


def test_a_rig_without_one_of_its_cameras_and_metres_that_are_missing():
    left_out = status_of('Input', camera_faults=[(1, '/right is silent')], cameras='2, by TF')
    assert (left_out.level, left_out.message) == (WARN, '/right is silent')
    assert {v.key: v.value for v in left_out.values}['cameras'] == '2, by TF'
    reference = status_of('Input', camera_faults=[(0, '/left is silent'), (1, '/right, too')])
    assert (reference.level, reference.message) == (ERROR, '/left is silent; /right, too')
    scale = status_of('Input', scale_fault='no depth image has come')
    assert (scale.level, scale.message) == (WARN, 'no depth image has come')


def test_a_full_map_is_a_warning_and_no_map_is_none():
    status = status_of('Map')
    assert '1000 points, 25 %' in status.message
    fill = MapFill(4000, 4000, 900, 12_000)
    status = status_of('Map', map=MapReport(fill, 0.05, 0.002),
                       map_fault=Fault(full_message(fill), 1, time.monotonic()))
    values = {v.key: v.value for v in status.values}
    assert status.level == WARN and '900 points' in status.message
    assert 'map.max_points' in status.message and values['points lost in all'] == '12000'
    status = status_of('Map', map=None)
    assert status.level == OK and 'map.enable' in status.message


def test_images_that_are_collected_for_the_beginning_are_counted():
    status = status_of('Inference', report=None, collected=3, to_collect=8)
    assert status.level == OK and status.message.startswith('3 of the 8 images collected')
    assert {v.key: v.value for v in status.values}['collected'] == '3'
    assert status_of('Inference', report=None).message == 'no image processed yet'


def test_how_the_network_runs_is_told_with_the_model():
    status = status_of('Model', acceleration={
        'kernels': 'portable', 'graphs': 'off'})
    values = {v.key: v.value for v in status.values}
    assert (values['kernels'], values['graphs']) == ('portable', 'off')
    assert status.level == OK


def test_faults_and_warnings_of_one_node_can_both_be_told():
    # rclpy refuses a second severity from the same line of the program.
    rclpy.init()
    try:
        node = XsvggtNode()
        for log in (node.supervisor.silence, node.faults, node.supervisor.silence):
            assert log.report('kind', f'something of {id(log)}') or log is node.supervisor.silence
        node.destroy_node()
    finally:
        rclpy.shutdown()
