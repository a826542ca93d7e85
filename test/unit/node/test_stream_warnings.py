"""What is said of a stream that is not well: each fault, in diagnostics, status and log."""

from dataclasses import replace
import logging
from types import SimpleNamespace

from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np
import pytest
from std_msgs.msg import Header
import torch

from xsvggt_ros.engine.cache_stats import CacheStats
from xsvggt_ros.geometry.similarity import scales
from xsvggt_ros.kv_cache.health import CacheHealth
from xsvggt_ros.mapping.point_map import MapFill
from xsvggt_ros.mapping.scale import Scale
from xsvggt_ros.msg import StreamStatus
from xsvggt_ros.node.opening import Opening
from xsvggt_ros.node.outputs.frame_outputs import cloud_fault
from xsvggt_ros.node.outputs.map_output import MapReport
from xsvggt_ros.node.settings import DEFAULTS
from xsvggt_ros.node.status import lasting_fault
from xsvggt_ros.node.status.diagnostics import build_statuses
from xsvggt_ros.node.status.fault_log import Fault, FaultLog
from xsvggt_ros.node.status.snapshot import Snapshot
from xsvggt_ros.node.status.stream_statistics import FrameReport, Latency, StreamStatistics
from xsvggt_ros.node.status.stream_status import StatusPublisher
from xsvggt_ros.node.supervisor import Supervisor
from xsvggt_ros.node.tracked_pose import Localization, LoopState, TrackedPose
from xsvggt_ros.trajectory.corrections import Corrections
from xsvggt_ros.trajectory.loop_closer import LoopReport
from xsvggt_ros.trajectory.map_frame import MapFrame

METRES = 2.5    # of a unit, by the saved map
MANY = 'keyframes that were not recognised: few 7'


def tracked(since, is_metric):
    """Return a pose of a stream that looks for itself in a saved map."""
    similarity = np.diag([METRES, METRES, METRES, 1.0])
    corrections = Corrections.none() if since is None else Corrections.none().moved(similarity)
    loops = LoopState(
        MapFrame(corrections, np.eye(4), is_localized=since is not None), 3,
        LoopReport(0, {}, 0.0, 0.0), np.eye(4)[None],
        localization=Localization(since, 0 if since is None else 4, {'few': 7}, is_metric))
    return TrackedPose('tracks', 80, 0.5, np.eye(6), None, None, loops)


def report(depth_error=0.08, fault='', since=None, is_metric=True):
    cache = CacheStats(
        frames=9, tokens_per_frame=25, tokens_per_layer=(100, 100), budget=100, occupancy=1.0,
        evicted_this_frame=25, evicted_total=125, camera_tokens=36, camera_budget=64,
        bytes_used=5_000_000, bytes_reserved=6_000_000,
        health=CacheHealth(25.0, 25.0, 50.0, 5.5, 0.93))
    return FrameReport(
        latency=Latency(0.05, 0.001, 0.002, 0.04, 0.004, 0.003), cache=cache,
        confidence_mean=1.5, depth_error=depth_error, points=0, predicted_fx=400.0,
        predicted_fy=401.0, tracked=tracked(since, is_metric), cloud_fault=fault)


def snapshot(of, **changes):
    return replace(Snapshot(
        state='active', topic='/cam', publishers=['driver'], image_timeout=5.0, active_for=60.0,
        start_fault=None, image_fault=None, frame_fault=None, tf_fault=None, stamp_fault=None,
        map_fault=None, process_bytes=10**9, image_age=0.1, max_depth_error=0.35, report=of,
        map=MapReport(MapFill(0, 4000, 0, 0), 0.05, 0.002)), **changes)


def status_of(name, seen):
    return next(status for status in build_statuses(seen, 'x') if status.name == f'x: {name}')


def host_of(error, count, pixels=1000):
    return {'typical_error': torch.tensor(error), 'cloud_size': torch.tensor(count),
            'cloud': torch.zeros(pixels, 5)}


@pytest.mark.parametrize('error, count, changes, is_told', [
    (0.9, 0, {}, True), (0.9, 30, {}, True), (0.9, 51, {}, False), (0.4, 0, {}, False),
    (0.9, 30, {'cloud.confidence_percentile': 50.0}, False),    # half of 1000 stay at most
    (0.9, 0, {'cloud.max_error': 0.0}, False), (0.9, 0, {'cloud.max_error': 1.0}, False)])
def test_a_cloud_that_max_error_empties_is_told_with_what_to_do(error, count, changes, is_told):
    fault = cloud_fault(host_of(error, count), DEFAULTS.changed(changes).cloud)
    assert bool(fault) == is_told
    if is_told:
        for words in (f'cloud.max_error, 50 %, leaves out all but {count} points', '90 %',
                      'model.checkpoint', '~/occupancy'):
            assert words in fault
        status = status_of('Map', snapshot(report(fault=fault)))
        assert status.level == DiagnosticStatus.WARN and fault in status.message
    assert status_of('Map', snapshot(report())).level == DiagnosticStatus.OK


def test_no_cloud_that_nobody_wants_is_made_for_that():
    assert cloud_fault({'typical_error': torch.tensor(0.9)}, DEFAULTS.cloud) == ''


def test_no_warning_of_tracking_hides_another():
    status = status_of('Tracking', snapshot(
        report(0.9), tf_fault=Fault('an edge is refused', 1, np.inf)))
    assert status.level == DiagnosticStatus.WARN
    for words in ('an edge is refused', 'not localised', MANY, 'map.localize_in', '90 %',
                  'diagnostics.max_depth_error, 35 %'):
        assert words in status.message
    assert status_of('Tracking', snapshot(report(0.1, since=5))).level == DiagnosticStatus.OK


@pytest.mark.parametrize('scale, since, is_metric, metres', [
    (None, None, True, None), (None, 5, False, None), (None, 5, True, METRES),
    (Scale(3.0, 0.1), 5, True, 3.0), (Scale(3.0, 0.1), None, True, 3.0)])
def test_lengths_are_metres_once_a_stream_is_found_in_a_map_in_metres(
        scale, since, is_metric, metres):
    seen = report(since=since, is_metric=is_metric)
    loops = seen.tracked.loops
    assert (loops.map_metres is not None) == (since is not None and is_metric)
    if loops.map_metres is not None:
        assert loops.map_metres == pytest.approx(
            float(scales(loops.map_frame.corrections.at(loops.keyframe))))
    published, statistics = [], StreamStatistics()
    statistics.report, statistics.last_header = seen, Header(frame_id='camera')
    intake = SimpleNamespace(dropped=0, refused=0, skipped=0, received=9,
                             meter=statistics.out_meter)
    StatusPublisher(
        SimpleNamespace(status=SimpleNamespace(publish=published.append)),
        SimpleNamespace(description='tiny', random_weights=False,
                        engine=SimpleNamespace(frames=1)), intake, statistics,
        FaultLog(print), Opening(1, statistics)).publish(StreamStatus.TRACKING, scale)
    assert published[0].metric == (metres is not None)
    assert published[0].scale == pytest.approx(metres or 1.0)
    status = status_of('Tracking', snapshot(seen, scale=scale))
    values = {each.key: each.value for each in status.values}
    assert values['scale'].startswith(
        "the network's own unit" if metres is None else f'{metres:.4g} m per unit')
    if since is not None:
        assert ('in metres' in status.message) == (metres is not None)


def test_what_lasts_is_in_the_log_and_so_is_its_end(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(lasting_fault, 'LASTS', 0.0)
    node = SimpleNamespace(get_logger=logging.getLogger, create_publisher=lambda *args: None,
                           create_timer=lambda *args, **options: None)
    supervisor = Supervisor(node, None, FaultLog(print))
    bad = report(0.9, 'cloud.max_error leaves out all points')
    for seen in (snapshot(None), snapshot(bad, paused=True), snapshot(bad, image_age=9.0)):
        supervisor._check_stream(seen)
    assert caplog.text == ''
    supervisor._check_stream(snapshot(bad))
    for words in ('not localised', MANY, 'diagnostics.max_depth_error', 'leaves out all points'):
        assert words in caplog.text
    caplog.clear()
    supervisor._check_stream(snapshot(None))     # a new stream: nothing is known of it
    assert caplog.text == ''
    supervisor._check_stream(snapshot(report(since=5)))
    assert [one.message for one in caplog.records] == [
        'the network knows the scene again', 'clouds have points again']
