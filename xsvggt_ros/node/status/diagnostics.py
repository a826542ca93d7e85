"""What /diagnostics says: seven statuses, each with what to do where something is wrong."""

import os
import time

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from xsvggt_ros.geometry.quaternions import BACKEND as QUATERNIONS
from xsvggt_ros.node.message_fields import fill
from xsvggt_ros.node.status.snapshot import ERROR, OK, Part, RECENT, Snapshot, WARN
from xsvggt_ros.node.status.stream_statistics import PERCENTILES, percentiles
from xsvggt_ros.node.status.tracking_status import tracking_status

FOCAL_DOUBT = 0.2  # calibrated and predicted focal lengths may differ by this share
GPU_WARN, GPU_ERROR = 0.8, 0.9  # share of the device's memory in use


def build_statuses(snapshot: Snapshot, prefix: str) -> list[DiagnosticStatus]:
    """Return the statuses, names beginning with ``prefix``."""
    parts = {
        'Input': _input, 'Inference': _inference, 'KV cache': _cache, 'Map': _map,
        'GPU memory': _memory, 'Tracking': tracking_status, 'Model': _model}
    statuses = []
    for name, build in parts.items():
        level, message, values = build(snapshot)
        statuses.append(fill(
            DiagnosticStatus(), level=level, name=f'{prefix}: {name}', message=message,
            hardware_id=snapshot.device,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()]))
    return statuses


def no_image_message(snapshot: Snapshot) -> str:
    """Return what may be wrong when no image comes, or none comes any more."""
    topic, publishers = snapshot.topic, '; '.join(snapshot.publishers)
    silent = f'no image on {topic} for {snapshot.silence:.0f} s'
    if snapshot.images_came and not publishers:
        return (f'{silent}, and nobody publishes it any more: the recording has ended, or the '
                'driver of the camera has stopped')
    if snapshot.images_came:
        return (f'{silent}, though it is still published by {publishers}. Check that the camera '
                'is plugged in, what its driver says, and the network in between')
    if not publishers:
        return (f'{silent}: nobody publishes this topic; start the camera, or remap it '
                '(-r image:=/your/topic, or image_topic:= with launch)')
    return (f'{silent}, though it is published by {publishers}. Check its type '
            '(sensor_msgs/msg/Image), its QoS (input.reliability), and the middleware profile '
            '(config/fastdds.xml)')


def hanging_message(what: str, seconds: float) -> str:
    """Return what is wrong when something is in progress for much too long."""
    age = f'{seconds:.{int(seconds < 10)}f} s, since {clock_time(seconds)}'
    return (f'{what} has been in progress for {age}: the network, the device or the middleware '
            'is stuck. Requests made meanwhile are executed when it is done; if it never is, '
            'restart the node. Raise diagnostics.frame_timeout if images normally take this long')


def clock_time(age: float) -> str:
    """Return the local time so many seconds ago, as hours, minutes and seconds."""
    return time.strftime('%H:%M:%S', time.localtime(time.time() - age))


def process_memory() -> int:
    """Return the resident memory of this process in bytes."""
    with open('/proc/self/statm', encoding='ascii') as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE')


def _input(s: Snapshot) -> Part:
    values: dict[str, object] = {
        'topic': s.topic, 'publishers': '; '.join(s.publishers) or 'none',
        'rate (Hz)': f'{s.image_rate:.2f}', 'camera_info rate (Hz)': f'{s.info_rate:.2f}',
        'image': s.image_description or 'none yet', 'received': s.received,
        'rejected': s.rejected, 'calibration': s.calibration} | _focal_values(s)
    if s.cameras:
        values['cameras'] = s.cameras
    if s.scale_hint:
        values['scale hint'] = s.scale_hint
    if s.odometry:
        values['odometry'] = s.odometry
    if s.state != 'active':
        return WARN, f'the node is {s.state}', values
    if s.paused:
        return OK, 'paused: images are ignored until ~/enable is called with true', values
    if s.silence > s.image_timeout:
        return ERROR, no_image_message(s), values
    warnings = _input_warnings(s)
    if s.image_fault is not None and s.image_fault.age < RECENT:
        return ERROR, '; '.join((s.image_fault.message, *warnings)), values
    if warnings:
        is_lost = bool(s.camera_faults) and s.camera_faults[0][0] == 0  # 0: the reference
        return ERROR if is_lost else WARN, '; '.join(warnings), values
    if s.info_rate > 1.0 and s.image_rate < 0.5 * s.info_rate:
        return WARN, (
            f'camera_info arrives at {s.info_rate:.1f} Hz but images at {s.image_rate:.1f} Hz: '
            'the middleware loses images; use the profile config/fastdds.xml on both sides '
            '(FASTDDS_DEFAULT_PROFILES_FILE), or input.reliability:=reliable'), values
    if _focal_is_doubtful(s):
        return WARN, (
            'the calibrated focal length differs from the predicted one by more than '
            f'{100 * FOCAL_DOUBT:.0f} %: the calibration may belong to another resolution or '
            'camera, or the network estimate it wrongly; compare both with the data sheet'), values
    return OK, f'{s.image_rate:.1f} images/s', values


def _input_warnings(s: Snapshot) -> list[str]:
    """Return all that is wrong with what comes in; none of it hides another."""
    warnings = [text for _, text in s.camera_faults]
    warnings += s.sender_faults
    if not s.sender_faults and s.jump_fault is not None and s.jump_fault.age < RECENT:
        warnings.append(s.jump_fault.message)
    if s.scale_fault:
        warnings.append(s.scale_fault)
    if s.odometry_fault:
        warnings.append(s.odometry_fault)
    if s.stamp_fault is not None and s.stamp_fault.age < RECENT:
        warnings.append(s.stamp_fault.message)
    if s.camera_info_fault is not None:  # it lasts until a calibration of use comes
        warnings.append(s.camera_info_fault.message)
    return warnings


def _inference(s: Snapshot) -> Part:
    values: dict[str, object] = {
        'rate (Hz)': f'{s.rate_out:.2f}', 'processed': s.processed, 'dropped': s.dropped,
        'skipped': s.skipped}
    if s.to_collect:
        values['collected'] = s.collected
    if s.report is not None:
        latency = s.report.latency
        values |= {f'{name} (ms)': f'{1e3 * getattr(latency, name):.1f}'
                   for name in ('total', 'decode', 'upload', 'inference', 'pack', 'publish')}
        values['shares (%)'] = ', '.join(
            f'{name} {100 * share:.0f}' for name, share in latency.shares().items())
        for what, latencies in (('latency', s.latencies), ('odometry', s.odometry_latencies)):
            values |= {f'{what} p{share} (ms)': f'{1e3 * seconds:.2f}'
                       for share, seconds in zip(PERCENTILES, percentiles(latencies))}
        values |= {'history limit (tokens)': s.report.cache.limit or 'none',
                   'mean confidence': f'{s.report.confidence_mean:.3f}',
                   'points': s.report.points}
    if s.last_failure is not None:
        values['last failure'] = (
            f'{clock_time(s.last_failure.age)}, {s.last_failure.message}')
    if s.busy_for > s.patience:
        return ERROR, hanging_message(s.busy_with, s.busy_for), values
    if s.frame_fault is not None and s.frame_fault.age < RECENT:
        return ERROR, s.frame_fault.message, values
    for fault in (s.worker_fault, s.callback_fault):
        if fault is not None and fault.age < RECENT:
            return ERROR, fault.message, values
    if s.last_failure is not None and s.last_failure.age < RECENT:
        return WARN, f'{s.last_failure.message} (images are processed again)', values
    if s.to_collect:
        return OK, (f'{s.collected} of the {s.to_collect} images collected that the network sees '
                    'together at the beginning (model.first_frames)'), values
    if s.report is None:
        return OK, 'no image processed yet', values
    if s.deadline_fault:
        return WARN, s.deadline_fault, values
    share = s.dropped / max(1, s.received)
    message = f'{s.rate_out:.1f} frames/s, {100 * share:.0f} % of the images dropped'
    if (s.dropped > s.skipped and s.rate_out < 0.5 * s.image_rate and s.image_fault is None
            and not s.camera_faults):   # the images of a set that is not complete are dropped
        message += (': the network is slower than the camera and takes the newest image; '
                    'for more frames lower model.image_size or cache.max_tokens')
    return OK, message, values


def _focal_values(s: Snapshot) -> dict[str, object]:
    values: dict[str, object] = {}
    for kind, focal in (('predicted', _predicted_focal(s)), ('calibrated', s.calibrated_focal)):
        if focal is not None:
            values[f'{kind} focal fx, fy (px)'] = f'{focal[0]:.1f}, {focal[1]:.1f}'
    return values


def _predicted_focal(s: Snapshot) -> tuple[float, float] | None:
    return None if s.report is None else (s.report.predicted_fx, s.report.predicted_fy)


def _focal_is_doubtful(s: Snapshot) -> bool:
    predicted = _predicted_focal(s)
    if predicted is None or s.calibrated_focal is None or s.random_weights:
        return False
    return any(abs(there / here - 1) > FOCAL_DOUBT
               for here, there in zip(s.calibrated_focal, predicted))


def _cache(s: Snapshot) -> Part:
    if s.report is None:
        return OK, 'empty', {}
    cache, health = s.report.cache, s.report.cache.health
    assert health is not None  # there has been a frame
    used = max(cache.tokens_per_layer, default=0)
    values: dict[str, object] = {
        'tokens per layer': used, 'budget': cache.budget or 'none', 'frames': cache.frames,
        'tokens per frame': cache.tokens_per_frame,
        'evicted per frame': cache.evicted_this_frame, 'evicted in all': cache.evicted_total,
        'frames represented': f'{health.steps:.1f}',
        'attention kept': f'{health.attention_kept:.3f}',
        'camera head tokens': cache.camera_tokens,
        'camera head budget': cache.camera_budget or 'none',
        'bytes used': cache.bytes_used, 'bytes reserved': cache.bytes_reserved}
    size = f'{cache.bytes_used / 1e6:.1f} MB'
    if cache.budget is None:
        return WARN, (f'{used} tokens per layer, {size} and growing: policy full has no limit; '
                      'choose another cache.policy for long runs'), values
    if s.budget_warning is not None:
        return WARN, s.budget_warning, values
    full = ', full and steady' if used == cache.budget else ''
    if cache.limit is not None and cache.limit < cache.budget:
        full = f', {cache.limit} at most for deadline_ms'
    return OK, f'{used} of {cache.budget} tokens per layer, {size}{full}', values


def _map(s: Snapshot) -> Part:
    if s.map is None:
        return OK, 'none: map.enable is false, or the node is not configured', {}
    fill = s.map.fill
    values: dict[str, object] = {
        'points': fill.points, 'room for': fill.capacity, 'voxel size': f'{s.map.voxel_size:.4g}',
        'points lost, newest cloud': fill.lost, 'points lost in all': fill.lost_total,
        'added in (ms)': f'{1e3 * s.map.seconds:.1f}'}
    if s.map_fault is not None and s.map_fault.age < RECENT:
        return WARN, s.map_fault.message, values
    if s.report is not None and s.report.cloud_fault:
        return WARN, f'{s.report.cloud_fault} ({fill.points} points in the map)', values
    share = 100 * fill.points / fill.capacity
    return OK, f'{fill.points} points, {share:.0f} % of its capacity', values


def _memory(s: Snapshot) -> Part:
    values: dict[str, object] = {
        'process (bytes)': s.process_bytes, 'GPU allocated (bytes)': s.gpu.allocated,
        'GPU reserved (bytes)': s.gpu.reserved, 'GPU free (bytes)': s.gpu.free,
        'GPU total (bytes)': s.gpu.total}
    message = f'process {s.process_bytes / 1e6:.0f} MB'
    if not s.gpu.total:
        return OK, message, values
    share = 1 - s.gpu.free / s.gpu.total
    message += f', GPU {100 * share:.0f} % of {s.gpu.total / 1e9:.1f} GB in use'
    if share < GPU_WARN:
        return OK, message, values
    level = WARN if share < GPU_ERROR else ERROR
    return level, message + '; lower cache.max_tokens or model.image_size', values


def _model(s: Snapshot) -> Part:
    values = {'weights': s.model or 'not loaded', 'device': s.device, **s.acceleration,
              'quaternions': QUATERNIONS}
    if s.start_fault is not None:
        return ERROR, s.start_fault.message, values
    if s.random_weights:
        return WARN, f'{s.model}: the published geometry is meaningless', values
    return OK, s.model or 'not loaded', values
