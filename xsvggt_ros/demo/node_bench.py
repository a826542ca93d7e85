"""`xsvggt bench node`: the real node beside a camera, and what it adds to the network's time."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
import sys
from tempfile import TemporaryDirectory
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
import torch

from xsvggt_ros.bench.frame_bench import summary
from xsvggt_ros.console.arguments import network_image_size
from xsvggt_ros.console.environment import device_name, package_version
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.measurement import (
    check_image_size,
    check_writable,
    choose_device,
    load_network,
    write_json,
)
from xsvggt_ros.console.processes import ChildProcess, deferred_interrupts, end_all
from xsvggt_ros.console.progress import ProgressBar
from xsvggt_ros.demo.camera_publisher import CameraOptions, CameraPublisher
from xsvggt_ros.demo.node_faults import NodeFaults
from xsvggt_ros.demo.ros_environment import config_file
from xsvggt_ros.demo.ros_messages import from_stamp
from xsvggt_ros.engine.factory import build_engine, EngineOptions
from xsvggt_ros.msg import StreamStatus
from xsvggt_ros.node.status.stream_statistics import LATENCIES, PERCENTILES
from xsvggt_ros.recordings.frame_source import WorldSource
from xsvggt_ros.recordings.source_frame import SourceFrame

NODE = 'xsvggt_bench'
TOPIC = '/xsvggt_bench_camera/image_raw'
CLIP = 24               # frames made before; they are played to their end and back again
WARM_UP = 1 / 3         # share of the frames that does not count
STAGES = ('total', 'decode', 'upload', 'inference', 'pack', 'publish')   # of ~/status
START_TIMEOUT = 900.0   # seconds until the first pose
SILENCE_TIMEOUT = 60.0  # seconds without another
END_PATIENCE = 5.0      # seconds for the node to end by itself


def run_bench_node(options: argparse.Namespace) -> None:
    """Measure the node as the options say; raise ToolError for what is wrong."""
    check_writable(options.json)
    if options.frames < 3:
        raise ToolError('--frames: 3 at least, of which the last two count')
    torch.set_num_threads(1)
    source = WorldSource(options.world, options.image, options.rate, CLIP)
    clip = list(source.frames())
    spent = _engine_seconds(options, clip)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    with TemporaryDirectory(prefix='xsvggt_bench') as folder:
        bench = _NodeBench(options, source, clip, Path(folder))
        try:
            content = bench.measure()
        finally:
            bench.close()
    engine = _summary(spent[int(WARM_UP * len(spent)):])
    latest = _summary(spent[-LATENCIES:])   # of which the node tells its own
    content = {**_settings(options), **content, 'engine_ms': engine, 'engine_latest_ms': latest}
    # The engine's own step ends when the pose is known: the network, and bringing the image to it.
    content['overhead_ms'] = round(content['odometry_ms']['p50'] - engine['p50'], 3)
    content['above_engine_ms'] = round(
        content['receipt_to_odometry_ms']['p50'] - latest['p50'], 3)
    print(_table(content), flush=True)
    if options.json is not None:
        write_json(options.json, content)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    return {'version': package_version(), 'checkpoint': Path(options.checkpoint).name,
            'image': '{}x{}'.format(*options.image), 'rate': options.rate,
            'frames': options.frames, 'parameters': options.parameter,
            'hardware': device_name(choose_device(options.device))}


def _engine_seconds(options: argparse.Namespace, clip: list[SourceFrame]) -> list[float]:
    """
    Return what the engine alone takes for each image until a pose is known.

    It is built as the node builds it, without the point head, which the node asks for with
    cloud.source alone, and sees as many images: its caches grow as the node's do.
    """
    device = choose_device(options.device)
    given = dict(name.split(':=', 1) for name in options.parameter if ':=' in name)
    loaded = load_network(options.checkpoint, options.size, device,
                          given.get('model.weights', 'auto'), given.get('model.dtype', 'auto'))
    width = network_image_size(options)
    check_image_size(width or loaded.config.img_size, loaded.config.patch_size)
    engine = build_engine(loaded, EngineOptions(image_size=width or None), device)
    engine.want_points(given.get('cloud.source') == 'points')
    count = options.frames
    bar = ProgressBar('engine', count, sys.stderr)
    spent = []
    for number, frame in zip(range(count), _to_and_fro(clip)):
        start = time.perf_counter()
        engine.step(frame.pixels).pose_encoding.to('cpu')
        spent.append(time.perf_counter() - start)
        engine.finish_frame()
        bar.update(number + 1)
    bar.close(count)
    torch.set_num_threads(1)
    return spent


def _to_and_fro(clip: list[SourceFrame]) -> Iterator[SourceFrame]:
    """Yield a clip's frames forwards and backwards for ever: a motion without a jump."""
    while True:
        yield from clip[:-1]
        yield from clip[:0:-1]


class _NodeBench:
    """A camera and a listener in this process, the node in one of its own."""

    def __init__(self, options: argparse.Namespace, source: WorldSource,
                 clip: list[SourceFrame], folder: Path) -> None:
        self._options = options
        self._camera = CameraPublisher(source, CameraOptions(TOPIC))
        self._camera.create_subscription(Odometry, f'/{NODE}/odometry', self._on_odometry, 50)
        self._camera.create_subscription(StreamStatus, f'/{NODE}/status', self._on_status, 50)
        self._faults = NodeFaults(NODE)
        self._camera.create_subscription(
            DiagnosticArray, '/diagnostics', self._on_diagnostics, 50)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._camera)
        self._frames = _to_and_fro(clip)
        self._log = folder / 'node.log'
        self._node: ChildProcess | None = None
        self._sent: dict[int, float] = {}        # stamp: when it was sent, monotonic seconds
        self._poses: dict[int, float] = {}       # stamp: when its odometry was here
        self._statuses: dict[int, StreamStatus] = {}
        self._receipts: list[dict[str, float]] = []   # ms until odometry, as diagnostics had it

    def measure(self) -> dict[str, Any]:
        """Start the node beside the running camera and return what was seen, times in ms."""
        bar = ProgressBar('node', self._options.frames, sys.stderr)
        self._play_until(lambda: len(self._sent) >= 3, START_TIMEOUT)    # it streams already
        begun = time.monotonic()
        with deferred_interrupts():
            self._node = ChildProcess(
                'node', 'xsvggt_ros.node.stream_node', self._arguments(), self._log)
        self._play_until(lambda: bool(self._poses), START_TIMEOUT)
        first = min(self._poses.values())
        while len(self._statuses) < self._options.frames:
            known = len(self._statuses)
            self._play_until(lambda: len(self._statuses) > known, SILENCE_TIMEOUT)
            if known <= WARM_UP * self._options.frames < len(self._statuses):
                warm, spent = time.monotonic(), self._node.cpu_seconds()
            bar.update(len(self._statuses))
            self._node.resident_bytes()   # for `peak_bytes`
        bar.close(self._options.frames)
        seconds, spent = time.monotonic() - warm, self._node.cpu_seconds() - spent
        told = len(self._receipts)
        self._play_until(lambda: len(self._receipts) > told, SILENCE_TIMEOUT)
        stamps = sorted(self._statuses)[int(WARM_UP * self._options.frames):]
        last = self._statuses[stamps[-1]]
        return {
            'start_to_first_pose_s': round(first - begun, 3),
            'odometry_ms': _summary([self._poses[stamp] - self._sent[stamp] for stamp in stamps
                                     if stamp in self._poses]),
            'receipt_to_odometry_ms': self._receipts[-1],
            'stages_ms': {stage: _summary([getattr(self._statuses[stamp], f'latency_{stage}')
                                           for stamp in stamps]) for stage in STAGES},
            'rate_held': round(len(stamps) / seconds, 3),
            'cpu_seconds': round(spent / len(stamps), 5),
            'sent': sum(moment > first for moment in self._sent.values()),
            'received': last.frames_received,
            'processed': last.frames_processed, 'dropped': last.frames_dropped,
            'rejected': last.frames_rejected, 'skipped': last.frames_skipped,
            'memory_bytes': self._node.peak_bytes}

    def close(self) -> None:
        """Leave nothing behind, however it went."""
        if self._node is not None:
            end_all([self._node], END_PATIENCE)
        self._executor.shutdown()
        self._camera.destroy_node()
        if rclpy.ok():
            rclpy.shutdown()

    def _play_until(self, reached: Callable[[], bool], patience: float) -> None:
        """Send images at their rate and take what comes; raise ToolError if nothing does."""
        period = 1.0 / self._options.rate
        end = time.monotonic() + patience
        while not reached():
            now = time.monotonic()
            due = max(self._sent.values(), default=now - period) + period
            if now >= due:
                self._send()
            with deferred_interrupts():
                self._executor.spin_once(timeout_sec=max(0.0, min(due - now, 0.05)))
            if self._node is not None and self._node.exit_code is not None:
                raise ToolError(f'the node ended with exit code {self._node.exit_code}. Its '
                                f'log:\n{self._node.tail()}')
            if not self._poses and self._faults.first is not None:
                raise ToolError(f'the node does not start: {self._faults.first}')
            if now > end:
                log = self._node.tail() if self._node is not None else ''
                raise ToolError(f'nothing came from the node in {patience:.0f} s. Its log:\n{log}')

    def _send(self) -> None:
        stamp = time.time_ns()
        self._sent[stamp] = time.monotonic()
        with deferred_interrupts():
            self._camera.publish(SourceFrame(next(self._frames).pixels, 0), stamp)

    def _on_odometry(self, message: Odometry) -> None:
        self._poses.setdefault(from_stamp(message.header.stamp), time.monotonic())

    def _on_status(self, message: StreamStatus) -> None:
        stamp = from_stamp(message.header.stamp)
        if stamp and message.frames_processed > len(self._statuses):
            self._statuses[stamp] = message

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self._faults.take(message)
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            names = {f'p{share}': f'odometry p{share} (ms)' for share in PERCENTILES}
            if status.name == f'{NODE}: Inference' and set(names.values()) <= set(values):
                self._receipts.append({name: float(values[key]) for name, key in names.items()})

    def _arguments(self) -> list[str]:
        arguments = ['--ros-args', '--params-file', str(config_file('stream.yaml')),
                     '-r', f'__node:={NODE}', '-r', f'image:={TOPIC}',
                     '-r', f"camera_info:={TOPIC.rpartition('/')[0]}/camera_info"]
        parameters = [f'model.checkpoint:={self._options.checkpoint}',
                      f'model.size:={self._options.size}',
                      f'model.device:={self._options.device}',
                      f'model.image_size:={network_image_size(self._options)}']
        for parameter in (*parameters, *self._options.parameter):
            arguments += ['-p', parameter]
        return arguments


def _summary(seconds: list[float]) -> dict[str, float]:
    """Return milliseconds of times."""
    return summary(1e3 * np.array(seconds))


def _table(content: dict[str, Any]) -> str:
    """Return the results for a person."""
    stages = content['stages_ms']
    lines = (
        f"{content['checkpoint']}, images {content['image']} at {content['rate']:g} Hz, "
        f"{content['hardware']}",
        f"first pose  {content['start_to_first_pose_s']:.1f} s after the node's start",
        f"odometry    p50 {content['odometry_ms']['p50']:.1f}, p99 "
        f"{content['odometry_ms']['p99']:.1f} ms after its image was sent, "
        f"{_against_engine(content['overhead_ms'])} ({content['engine_ms']['p50']:.1f} ms)",
        f"in the node p50 {content['receipt_to_odometry_ms']['p50']:.1f}, p99 "
        f"{content['receipt_to_odometry_ms']['p99']:.1f} ms from receipt to published odometry, "
        f"{_against_engine(content['above_engine_ms'])}",
        'stages      ' + ', '.join(f"{name} {stages[name]['p50']:.1f}" for name in STAGES)
        + ' ms (p50)',
        f"rate        {content['rate_held']:.1f} a second; {content['sent']} sent "
        f"after the first pose, {content['received']} received, {content['processed']} processed, "
        f"{content['dropped']} dropped",
        f"node        {1e3 * content['cpu_seconds']:.1f} ms of processor time a frame, at most "
        f"{content['memory_bytes'] / 1e6:.0f} MB")
    return '\n'.join(lines)


def _against_engine(milliseconds: float) -> str:
    """Return in words what is more than the engine needs; a pose may be out before it is done."""
    return (f"{abs(milliseconds):.1f} ms {'less' if milliseconds < 0 else 'more'} than the engine "
            'alone')
