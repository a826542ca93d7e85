"""Starts the node and a camera as processes of their own and records what comes out."""

import argparse
from collections.abc import Callable
from pathlib import Path
import re
import shlex
import time
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
import torch

from xsvggt_ros.console.arguments import network_image_size
from xsvggt_ros.console.environment import own_command
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.processes import (
    ChildProcess,
    deferred_interrupts,
    end_all,
    ignore_signals,
)
from xsvggt_ros.console.progress import ProgressBar
from xsvggt_ros.demo.camera_publisher import CAMERA_NAME
from xsvggt_ros.demo.node_log import NodeLog
from xsvggt_ros.demo.recorder import StreamRecorder
from xsvggt_ros.demo.ros_environment import config_file
from xsvggt_ros.mapping.map_files import parse_stamp
from xsvggt_ros.msg import StreamStatus
from xsvggt_ros.recordings.frame_source import open_source
from xsvggt_ros.recordings.inputs.bag import is_bag
from xsvggt_ros.recordings.recording import (
    describe_errors,
    MAP_FILE,
    PICTURE_FILE,
    Recording,
    writing,
)

TOPIC = '/camera/image_raw'
READY_TIMEOUT = 900.0       # seconds; the large network takes minutes to read from a slow disk
CAMERA_TIMEOUT = 120.0      # seconds without a first image
QUIET_TIME = 4.0            # seconds without news after which nothing more is expected
SILENCE = 0.3               # seconds without a message after which all that was sent is here
DRAIN_TIME = 5.0            # seconds until that is no longer waited for
FEW = 0.05                  # share of the images that may be dropped without advice
END_PATIENCE = 5.0          # seconds for node and camera to end by themselves
INTERRUPT_PATIENCE = 1.4    # the same on Ctrl-C
_MEMORY_PERIOD = 0.5        # seconds between looks at the node's memory
_NEWS_PERIOD = 0.2          # seconds between looks at the node's log


def run_demo(options: argparse.Namespace) -> None:
    """
    Run camera, node and recorder until the last frame is through, and write the results.

    Raises ToolError if the node or the camera fails, KeyboardInterrupt on Ctrl-C; either way both
    processes are gone then, and what was recorded is written, but for the picture. Ctrl-C is how
    a camera of this machine ends while it plays.
    """
    is_live = False
    if options.input is not None:    # so that a wrong folder or calibration is said at once
        source = open_source(options.input, rate=options.rate, count=options.frames,
                             size=options.size, calibration=options.calibration,
                             topic=options.input_topic)
        options.frames = source.count
        is_live = getattr(source, 'is_live', False)
        if source.calibration is None:
            print('calibration: none in the recording or beside it, so the network estimates the '
                  'focal length and lens distortion stays (CALIBRATION=FILE with make demo, or '
                  '--calibration)', flush=True)
    Recording.check_folder(options.out)
    # The map is built beside the node, which has the cores: threads would wait for each other.
    torch.set_num_threads(1)
    demo = _Demo(options)
    try:
        demo.start()
        demo.wait_for_node()
        try:
            demo.play()
        except KeyboardInterrupt:
            if not is_live:
                raise
            print('\nthe camera is ended; Ctrl-C again: without a picture', flush=True)
        demo.end(END_PATIENCE)
    except KeyboardInterrupt:
        demo.save('interrupted: ending node and camera')
        raise
    except ToolError:
        if demo.has_frames:
            demo.save('ended by an error; what was recorded until then is saved')
        raise
    finally:
        demo.close()
    try:
        demo.write(picture=True)
    except KeyboardInterrupt:
        demo.save('interrupted: without a picture')
        raise
    demo.print_summary()


class _Demo:
    """The processes of one run and what is recorded of it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self._recorder = StreamRecorder(image_topic=TOPIC)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._recorder)
        self._children: list[ChildProcess] = []
        self._node: ChildProcess    # from `start` on, as the next two
        self._camera: ChildProcess
        self._log: NodeLog
        self._next_memory_time = self._next_news_time = 0.0
        self._files: list[Path] = []

    # Stages --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start node and camera; the camera prepares its images while the node loads."""
        with deferred_interrupts():
            self._node = ChildProcess(
                'node', 'xsvggt_ros.node.stream_node', _node_arguments(self._options),
                self._options.out / 'node.log')
            self._children.append(self._node)
            self._log = NodeLog(self._node.log)
            self._camera = ChildProcess(
                'camera', 'xsvggt_ros.cli.camera', _camera_arguments(self._options),
                self._options.out / 'camera.log')
            self._children.append(self._camera)

    def wait_for_node(self) -> None:
        """Wait until the node listens to the camera."""
        start, next_words = time.monotonic(), 5.0
        print('starting node and camera', flush=True)
        while not self._recorder.node_is_ready():
            self._spin()
            self._check_camera()
            if self._recorder.fault is not None:
                raise ToolError(f'the node does not start: {self._recorder.fault}\n'
                                f'Its log is {self._node.log}.')
            self._tell_news(print)
            waited = time.monotonic() - start
            if waited > READY_TIMEOUT:
                raise ToolError(f'the node is not ready after {waited:.0f} s. The end of '
                                f'{self._node.log}:\n{self._node.tail()}')
            if waited > next_words:
                print(f'  {waited:.0f} s: the node is loading', flush=True)
                next_words *= 2
        others = self._recorder.other_cameras(CAMERA_NAME)
        if others:
            raise ToolError(f'{", ".join(others)} already publishes on {TOPIC}: end it, or set '
                            'another ROS_DOMAIN_ID for the demo')

    def play(self) -> None:
        """Let the camera play, until its last frame is through the node."""
        self._recorder.watch_camera()     # the second subscriber: the camera begins
        bar = ProgressBar('reconstructing', self._options.frames)
        start = time.monotonic()
        first = last_news = 0.0
        news = None
        while True:
            self._spin()
            now = time.monotonic()
            self._watch_memory(now)
            if self._recorder.images_received and not first:
                first = now
            if not first and now - start > CAMERA_TIMEOUT:
                raise ToolError(f'no image arrived in {CAMERA_TIMEOUT:.0f} s. The end of '
                                f'{self._camera.log}:\n{self._camera.tail()}')
            seen = (self._recorder.last_stamp, self._recorder.images_received)
            if seen != news:
                news, last_news = seen, now
            bar.update(*self._progress())
            self._tell_news(bar.note)
            sent = self._check_camera()
            if sent is not None and (self._recorder.last_stamp == sent
                                     or now - last_news > self._quiet_time()):
                break
        self._drain()
        bar.close(*self._progress())

    def end(self, patience: float) -> None:
        """End both processes."""
        for child in end_all(self._children, patience):
            print(f'the {child.name} did not end within {patience:g} s and was killed; the end '
                  f'of {child.log}:\n{child.tail(5)}', flush=True)

    def close(self) -> None:
        """Leave nothing behind, however the run went."""
        self.end(INTERRUPT_PATIENCE)
        self._executor.shutdown()
        self._recorder.destroy_node()
        if rclpy.ok():
            rclpy.shutdown()

    @property
    def has_frames(self) -> bool:
        """Return whether the node has reconstructed anything."""
        return bool(self._recorder.recording.poses)

    def save(self, words: str) -> None:
        """End both processes at once, and write and name what was recorded, but no picture."""
        ignore_signals()
        print(f'\n{words}', flush=True)
        self.end(INTERRUPT_PATIENCE)
        self.write(picture=False)
        self.print_files()

    def write(self, picture: bool) -> None:
        """
        Write what was recorded, the picture only if asked.

        A run that ends early without a point of a map leaves an earlier one where it is: poses
        come sooner than clouds.
        """
        recording, folder = self._recorder.recording, self._options.out
        has_map = self.has_frames and (picture or recording.map.fill().points > 0)
        if not has_map and (folder / MAP_FILE).exists():
            print(f'nothing of a map was reconstructed; {folder} keeps its earlier map',
                  flush=True)
            return
        with writing(folder):
            (folder / PICTURE_FILE).unlink(missing_ok=True)   # of an earlier run's map
        self._files = recording.write_data(folder)
        if picture:
            from xsvggt_ros.recordings.figure import write_picture  # brings Matplotlib

            self._files.append(write_picture(recording, folder))

    def print_summary(self) -> None:
        """Print what happened and where the files are."""
        status, recording = self._recorder.status, self._recorder.recording
        if status is None:
            raise ToolError('the node processed no image; the end of its log '
                            f'{self._node.log}:\n{self._node.tail()}')
        report = re.search(r'sent (\d+) images', self._camera.tail())
        sent = int(report.group(1)) if report else status.frames_received
        cache = recording.cache[-1] if recording.cache else None
        print(f'\nweights     {status.model}')
        lost = max(sent - status.frames_received, 0)
        print(f'frames      {sent} sent, {lost} lost on the way, {status.frames_received} '
              f'received by the node: {status.frames_processed} processed, '
              f'{status.frames_dropped} dropped for newer ones, {status.frames_rejected} rejected')
        skipped = re.search(r'^skipped .*', self._camera.tail(), re.M)
        if skipped:
            print(f'            {skipped.group()}')
        print(f'rate        {self._recorder.rate:.1f} frames/s, median latency '
              f'{1e3 * recording.median_latency():.0f} ms')
        unrecorded = status.frames_processed - len(recording.cache)
        if unrecorded > 0:
            print(f'not recorded: {unrecorded} of the processed frames, the machine was too busy')
        if cache is not None:
            limit = f'{cache.tokens_budget} (budget)' if cache.tokens_budget else 'no budget'
            print(f'KV cache    {cache.tokens_used} of {limit} tokens a layer, '
                  f'{cache.bytes_used / 1e6:.1f} MB')
        print(f'node memory {self._node.resident_bytes() / 1e6:.0f} MB at the end, at most '
              f'{self._node.peak_bytes / 1e6:.0f} MB')
        print(f'TF          {", ".join(f"{a} -> {b}" for a, b in sorted(self._recorder.edges))}')
        errors = recording.errors()
        if errors is not None:
            print(f'accuracy    {describe_errors(errors)}')
        if recording.random_weights:
            print('random weights: this shows that the plumbing works; the geometry is '
                  'meaningless until a trained checkpoint is given (--checkpoint)')
        self.print_files()
        advice = self._advice(sent, status)
        if advice:
            print(advice, flush=True)

    def print_files(self) -> None:
        """Print where the files are."""
        for number, file in enumerate(self._files):
            print('files      ' if number == 0 else ' ' * 11, file, flush=True)

    # Parts ---------------------------------------------------------------------------------------

    def _spin(self) -> None:
        """Let the recorder take what has arrived, and see that the node is alive."""
        with deferred_interrupts():   # C++ would make a RuntimeError of it
            self._executor.spin_once(timeout_sec=0.05)
        if self._node.exit_code is not None:
            raise ToolError(f'the node ended with exit code {self._node.exit_code}. The end of '
                            f'{self._node.log}:\n{self._node.tail()}')

    def _drain(self) -> None:
        """Take all that was sent before the end: counts and files must tell of the same frames."""
        now = last_news = time.monotonic()
        end = now + DRAIN_TIME
        while now < end and now - last_news < SILENCE:
            before = self._recorder.messages_received
            self._spin()
            now = time.monotonic()
            if self._recorder.messages_received != before:
                last_news = now

    def _tell_news(self, tell: Callable[[str], None]) -> None:
        """Print what the node says in its log that is for the person at the console."""
        now = time.monotonic()
        if now < self._next_news_time:
            return
        self._next_news_time = now + _NEWS_PERIOD
        for words in self._log.news():
            # Rooms are what the shipped weights know; and that images end is no news.
            is_known = ('synthetic rooms only' in words and self._options.input is None
                        or 'no image on' in words)
            if not is_known:
                tell(words)

    def _advice(self, sent: int, status: StreamStatus) -> str:
        """Return what to do if many images did not reach the network; nothing if most did."""
        missing = sent - status.frames_processed
        rate = self._recorder.rate
        if missing <= FEW * sent or rate <= 0:
            return ''
        camera = re.search(r'\(([0-9.]+) Hz\)', self._camera.tail())
        came = f'they come at {camera.group(1)} Hz, and ' if camera else ''
        slow = max(0.8 * rate, 0.01)
        folder = self._options.input
        source = ' '.join([shlex.quote(own_command()), 'reconstruct',
                           *([shlex.quote(str(folder))] if folder else [])])
        slower = ('' if folder is not None and (folder.is_file() or is_bag(folder)) else
                  f'  RATE={slow:.2g} with make demo, or --rate {slow:.2g}: plays them more '
                  'slowly\n')
        return (f'\n{missing} of {sent} images were not processed: {came}this machine manages '
                f'{rate:.2g} Hz. To have all of them:\n{slower}'
                f'  {source}: takes one after the other, without a camera and ROS')

    def _check_camera(self) -> int | None:
        """Return the stamp of the last image once the camera has ended, None before."""
        if self._camera.exit_code is None:
            return None
        text = self._camera.tail()
        sent = re.search(r'last stamp ([0-9.]+)', text)
        if self._camera.exit_code != 0 or sent is None:
            raise ToolError(f'the camera ended with exit code {self._camera.exit_code}. The end '
                            f'of {self._camera.log}:\n{text}')
        return parse_stamp(sent.group(1))

    def _progress(self) -> tuple[int, str]:
        """Return how many frames are through or dropped, and a few words."""
        status, rows = self._recorder.status, self._recorder.recording.cache
        if status is None or not rows:
            return 0, ''
        done = (status.frames_processed + status.frames_dropped + status.frames_rejected
                + status.frames_skipped + status.frames_collected)
        words = f'{1e3 * rows[-1].latency:.0f} ms a frame, cache {rows[-1].tokens_used} tokens'
        if status.frames_dropped:
            words += f', {status.frames_dropped} dropped'
        return done, words

    def _quiet_time(self) -> float:
        """Return the seconds of silence after which the node is taken to be done."""
        latency = self._recorder.recording.median_latency()
        return max(QUIET_TIME, 4 * latency) if latency == latency else 3 * QUIET_TIME

    def _watch_memory(self, now: float) -> None:
        if now >= self._next_memory_time:
            self._node.resident_bytes()
            self._next_memory_time = now + _MEMORY_PERIOD


def _node_arguments(options: argparse.Namespace) -> list[str]:
    """Return the node's command line: config/stream.yaml, then what the demo sets."""
    parameters = [
        f'model.checkpoint:={options.checkpoint}',
        f'model.image_size:={network_image_size(options)}',
        f'cache.max_tokens:={options.max_tokens}', f'cache.policy:={options.policy}',
        f'cache.quantization:={options.quantization}',
        f'trajectory.mode:={options.trajectory}', *options.parameter]
    arguments = ['--ros-args', '--params-file', str(config_file('stream.yaml'))]
    for parameter in parameters:
        arguments += ['-p', parameter]
    return [*arguments, '-r', f'image:={TOPIC}', '-r', 'camera_info:=/camera/camera_info']


def _camera_arguments(options: argparse.Namespace) -> list[str]:
    """Return the camera's command line; it waits for the node and the recorder."""
    arguments = ['--topic', TOPIC, '--wait-for-subscriber', '2']
    if options.input is None:
        arguments += ['--world', str(options.world)]
    formatters: list[tuple[str, Callable[[Any], str]]] = [
        ('input', str), ('input_topic', str), ('calibration', str), ('rate', str), ('frames', str),
        ('size', lambda s: f'{s[0]}x{s[1]}')]
    for name, text in formatters:
        value = getattr(options, name)
        if value is not None:
            arguments += [f"--{name.replace('_', '-')}", text(value)]
    return arguments
