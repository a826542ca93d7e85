"""The stages of a run, each in a thread of its own: frames in, map and exports out."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
import time
from typing import Any

import numpy as np
import torch

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.processes import deferred_interrupts
from xsvggt_ros.console.progress import ProgressBar, ProgressRate
from xsvggt_ros.engine.cache_stats import CacheStats
from xsvggt_ros.engine.frame_result import ResultError
from xsvggt_ros.engine.stream_engine import FrameResult, StreamEngine
from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.geometry.se3 import invert_transform
from xsvggt_ros.mapping.map_files import format_stamp
from xsvggt_ros.mapping.point_cloud import CloudOptions, pack_cloud
from xsvggt_ros.mapping.trajectory import StampedPose
from xsvggt_ros.recordings.base_frame import BaseFrame
from xsvggt_ros.recordings.exports.export import Export, FrameOutput, SourcePictures
from xsvggt_ros.recordings.frame_source import FrameSource
from xsvggt_ros.recordings.outputs import CacheRow
from xsvggt_ros.recordings.recording import Recording
from xsvggt_ros.recordings.recording_scale import RecordingScale, scaled_cloud
from xsvggt_ros.recordings.sink_thread import SinkThread
from xsvggt_ros.recordings.source_frame import SourceFrame
from xsvggt_ros.recordings.tracked_frames import (
    HELD_BYTES,
    odom_pose,
    output_bytes,
    TrackedFrames,
)
from xsvggt_ros.trajectory.landmark_map import LandmarkMap

SAVE_PERIOD = 300.0   # seconds between states of a run, to go on from
# What a state has of a pipeline, beside its engine and the number of frames.
_STATE = ('recording', 'exports', 'metres', 'seconds', 'tracked', '_waiting', '_waiting_bytes',
          '_base')
CLOUD = CloudOptions(confidence_percentile=20.0, max_error=0.5)    # as the node does by default


@dataclass(frozen=True)
class _Seen:
    """A frame and what the network said of it, in the network's unit."""

    frame: SourceFrame
    pixels: np.ndarray
    result: FrameResult
    stats: CacheStats
    seconds: float


class _Network:
    """Has the engine see a recording's frames, the first ones together."""

    def __init__(self, engine: StreamEngine, camera: CameraModel | None,
                 count: int | None) -> None:
        """Begin before the first frame; count: of the recording's frames, None: not known."""
        self._engine, self._camera, self._count = engine, camera, count
        self.frames = 0           # that it has seen
        self.stride = 1           # of those that are remembered
        self._taken: list[tuple[SourceFrame, np.ndarray]] = []   # to be seen next, with pixels

    def take(self, frame: SourceFrame) -> list[_Seen]:
        """Take a frame; return what is known by that, nothing of one that waits for others."""
        pixels = frame.pixels
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[:, :, None], 3, axis=2)
        self._taken.append((frame, pixels))
        if not self.frames and len(self._taken) < self._engine.config.first_frames:
            return []
        return self.rest()

    def rest(self) -> list[_Seen]:
        """See the frames that wait; raises ToolError."""
        taken, self._taken = self._taken, []
        if not taken:
            return []
        start = time.perf_counter()
        results = self._step([pixels for _, pixels in taken])
        stats = self._engine.cache_stats()
        seconds = (time.perf_counter() - start) / len(taken)
        first, self.frames = self.frames, self.frames + len(taken)
        return [_Seen(frame, pixels, result, replace(stats, frames=first + number), seconds)
                for number, ((frame, pixels), result) in enumerate(zip(taken, results), start=1)]

    def _step(self, pixels: list[np.ndarray]) -> list[FrameResult]:
        """Return what the network makes of a frame, or of the first ones; raises ToolError."""
        engine, number = self._engine, self.frames
        with _telling(number):
            if not number:
                results = engine.begin(pixels, [self._camera] * len(pixels))
            else:
                results = [engine.step(
                    pixels[0], self._camera, engine.config.is_keyframe(number, self.stride))]
            engine.accept(results)  # nothing that is not finite gets into the files
        if not number and self._count is not None:
            self.stride = engine.caches.keyframe_stride(self._count)
        return results


class Pipeline:
    """
    One run: each frame goes through the engine, is located, and gets into map and exports.

    The caller's thread has the network; a second one locates frames by tracks, a third one makes
    map and exports. Frames are decoded by whoever gives them, in a thread of its own, too.
    """

    def __init__(self, engine: StreamEngine, source: FrameSource, recording: Recording,
                 exports: Sequence[Export] = (), metres: RecordingScale | None = None,
                 tracked: TrackedFrames | None = None,
                 show: Callable[[FrameOutput], None] | None = None) -> None:
        """
        Begin before the first frame.

        tracked: locates the frames; None: the network does. show: is given each frame as soon as
        it is located, with the pose of the moment.
        """
        self.engine, self.source, self.recording = engine, source, recording
        self.exports = exports
        self.metres = metres or RecordingScale()
        self.seconds = 0.0
        self.tracked, self._show = tracked, show
        self._failed: set[str] = set()   # exports, which get no more frames
        self._waiting: deque[FrameOutput] = deque()   # for the scale, without `tracked`
        self._waiting_bytes = 0
        self._locating, self._writing = SinkThread(self._locate), SinkThread(self._write)
        self._camera = source.calibration.camera() if source.calibration is not None else None
        self._network = _Network(engine, self._camera, source.count)
        self._pictures: SourcePictures | None = None
        self._base = BaseFrame()
        self._is_finished = False
        self.against_odometry: dict[str, Any] | None = None

    @property
    def frames(self) -> int:
        """Return how many frames the network has seen."""
        return self._network.frames

    def reconstruct_all(self, frames: Iterable[SourceFrame],
                        save: Callable[[], object] = lambda: None) -> None:
        """Take all frames, and show how it goes on; save: is called now and then."""
        count = self.source.count
        bar, rate = ProgressBar('reconstructing', count), ProgressRate(count, self.frames)
        start = saved = time.perf_counter()
        earlier = self.seconds
        for frame in self._those_left(frames):
            cache = self.reconstruct(frame)
            now = time.perf_counter()
            self.seconds = earlier + now - start
            bar.update(self.frames,
                       f'{rate.text(self.frames)}, {_cache_words(cache)}'.lstrip(', '))
            if now - saved > SAVE_PERIOD:
                save()
                saved = time.perf_counter()
        bar.close(self.frames)
        self.finish()

    def _those_left(self, frames: Iterable[SourceFrame]) -> Iterator[SourceFrame]:
        """Leave out the frames that an earlier run has had; raises ToolError for others."""
        done = self.frames
        for number, frame in enumerate(frames):
            if number >= done:
                yield frame
            elif number == done - 1 and _stamp(frame) != self.recording.poses[-1].stamp_ns:
                raise ToolError(f'--resume: image {number} has another stamp than in the run '
                                'that was interrupted: the recording is another one')

    def state(self) -> dict[str, Any] | None:
        """Return what the run is after the frames so far; None if that cannot be told now."""
        self._locating.drain()
        self._writing.drain()
        done = len(self.recording.poses)
        stream = self.engine.capture(done)
        if (stream is None or self._is_finished or self._locating.has_failed
                or self._writing.has_failed):
            return None
        return {'stream': stream, 'stride': self._network.stride,
                **{name: getattr(self, name) for name in _STATE}}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with an earlier run; raises ValueError if its caches do not fit."""
        self.engine.restore(state['stream'])
        self._network.frames, self._network.stride = state['stream'].frames, state['stride']
        for name in _STATE:
            setattr(self, name, state[name])

    @property
    def poses_from(self) -> dict[str, int]:
        """Return how many poses are from where."""
        if self.tracked is None:
            return {'network': len(self.recording.poses)}
        return self.tracked.sources

    def finish(self) -> None:
        """Give on what waits and wait until all is taken; after a Ctrl-C meanwhile, go on."""
        if self._is_finished:
            return
        errors = []
        for part in (self._see_rest, self._give_rest, self._writing.finish):
            try:
                part()
            except Exception as error:   # the others are done all the same
                errors.append(error)
        self._is_finished = True
        self._place_poses()
        if errors:
            raise errors[0]

    def _see_rest(self) -> None:
        """Locate what is seen, and frames that were fewer than the network would see."""
        try:
            if not self._locating.has_failed:
                self._hand_on(self._network.rest())
        finally:
            self._locating.finish()

    def _give_rest(self) -> None:
        if self.tracked is not None:
            self.tracked.finish(self.recording, self.give)
        with deferred_interrupts():   # a frame is given on once
            self._settle()

    def _place_poses(self) -> None:
        """Bring the recording's poses, which are final, into the odometry frame and the unit."""
        recording = self.recording
        self.against_odometry = self.metres.compared(_positions(recording) * self.metres.factor)
        recording.poses[:] = [self._placed(pose) for pose in recording.poses]
        recording.base_poses = self._base.poses(recording.poses)
        recording.metric = self.metres.value is not None

    def _placed(self, pose: StampedPose) -> StampedPose:
        """Return a pose in the run's odometry frame and unit; a saved map's has both."""
        if self.tracked is not None and self.tracked.is_localized:
            return pose
        return self._base.placed(pose, self.metres.factor)

    def landmarks(self) -> LandmarkMap | None:
        """Return the keyframes in which a later run finds itself, in the map's frame and unit."""
        if self.tracked is None:
            return None
        return self.tracked.landmarks(self._base.odom_from_optical, self.metres.factor,
                                      self.metres.value is not None)

    # The caller's thread -------------------------------------------------------------------------

    def reconstruct(self, frame: SourceFrame) -> CacheStats:
        """
        Put one frame through the engine, and hand on what comes out; raises ToolError.

        Those that the network is to see together wait for each other, or for `finish`.
        """
        return self._hand_on(self._network.take(frame))

    def _hand_on(self, seen: list[_Seen]) -> CacheStats:
        for one in seen:
            self._locating.put(one)
        return seen[-1].stats if seen else self.engine.cache_stats()

    # The thread that locates ---------------------------------------------------------------------

    def _locate(self, seen: _Seen) -> None:
        """Locate a frame, and hold it until its pose and the scale are final."""
        if self._locating.has_failed:   # frames after a gap would be located wrongly
            return
        start = time.perf_counter()
        recording, resize, number = self.recording, self.engine.resize, len(self.recording.poses)
        assert resize is not None   # there was a frame
        result, hints = seen.result, seen.frame.hints
        with _telling(number):
            if self.tracked is not None:
                result = self.tracked.track(seen.pixels, self._camera, result,
                                            resize.model_from_source())
            self.metres.observe(number, hints, result, resize, self._camera)
            cloud = pack_cloud(result, CLOUD)
        frame, stamp_ns = seen.frame, _stamp(seen.frame)
        self._base.take(stamp_ns, None if hints is None else hints.base_from_camera)
        pose = _pose(result, stamp_ns)
        row = _cache_row(seen.stats, stamp_ns, seen.seconds + time.perf_counter() - start)
        recording.poses.append(pose)
        if frame.motion is not None:
            recording.truth.append(
                StampedPose.from_matrix(stamp_ns, frame.motion.world_from_camera))
        recording.cache.append(row)
        recording.image = seen.pixels
        output = FrameOutput(number, stamp_ns, seen.pixels, result, pose, cloud, row,
                             self._source_pictures(), self._base.base_from_camera)
        if self._show is not None:
            self._show(output)
        if self.tracked is not None:
            self.tracked.hold(output, self.give)
        else:
            self._wait(output)

    def _wait(self, output: FrameOutput) -> None:
        """Hold a frame that the network has located until the scale is settled."""
        self._waiting.append(output)
        self._waiting_bytes += output_bytes(output)
        if self.metres.is_decided or self._waiting_bytes > HELD_BYTES:
            self._settle()

    def _settle(self) -> None:
        """Settle the scale, and give on what has waited for it."""
        self._decide()
        while self._waiting:
            self.give(self._waiting.popleft())
        self._waiting_bytes = 0

    def _decide(self) -> None:
        if not self.metres.is_decided:
            self.metres.decide(_positions(self.recording) if self.tracked is None
                               else self.tracked.positions())

    def give(self, output: FrameOutput) -> None:
        """Put a frame whose pose is final into the map and the exports, in the run's unit."""
        if self.tracked is not None and self.tracked.is_localized:
            self.metres.take_saved_map(self.tracked.is_metric)
        self._decide()
        metres = self.metres.factor
        if metres != 1.0:
            output = replace(output, result=output.result.scaled(metres),
                             cloud=scaled_cloud(output.cloud, metres))
        self._writing.put(replace(output, pose=self._placed(output.pose)))

    def _source_pictures(self) -> SourcePictures:
        if self._pictures is None:
            assert self.engine.resize is not None   # there was a frame
            self._pictures = SourcePictures(self._camera, self.engine.resize)
        return self._pictures

    # The thread that writes ----------------------------------------------------------------------

    def _write(self, output: FrameOutput) -> None:
        self.recording.map.add(output.cloud, torch.from_numpy(output.pose.matrix()))
        for export in self.exports:
            if export.name not in self._failed:
                self._failed.add(export.name)
                with writing_export(export.name):
                    export.add(output)
                self._failed.remove(export.name)


@contextmanager
def _telling(number: int) -> Iterator[None]:
    """Raise ToolError with a frame's number for what goes wrong with it."""
    try:
        yield
    except ResultError as error:
        raise ToolError(
            f'frame {number}: this is no reconstruction: {error}. '
            'The weights are damaged, or too coarse for this number type') from error
    except (ValueError, RuntimeError, MemoryError) as error:
        words = str(error) or type(error).__name__
        raise ToolError(f'frame {number}: {words}') from error


@contextmanager
def writing_export(name: str) -> Iterator[None]:
    """Raise ToolError for what goes wrong while an export is written."""
    try:
        yield
    except OSError as error:
        raise ToolError(f'--export {name}: cannot be written: {error}') from error


def _positions(recording: Recording) -> np.ndarray:
    """Return where all frames are in the network's unit, [N, 3]."""
    return np.array([pose.position for pose in recording.poses]).reshape(-1, 3)


def _cache_words(stats: CacheStats) -> str:
    """Return in words how full the cache is."""
    share = f' ({100 * stats.occupancy:.0f} %)' if stats.budget else ''
    return f'cache {max(stats.tokens_per_layer, default=0)} tokens{share}'


def _stamp(frame: SourceFrame) -> int:
    """Return a frame's stamp in ns; without stamps of their own, frames count from 0."""
    return frame.offset_ns if frame.stamp_ns is None else frame.stamp_ns


def _pose(result: FrameResult, stamp_ns: int) -> StampedPose:
    """Return the camera's pose in the odometry frame: forward-left-up at the first camera."""
    world_from_camera = invert_transform(result.camera_from_world.cpu().to(torch.float64))
    return odom_pose(world_from_camera.numpy(), stamp_ns)


def _cache_row(stats: CacheStats, stamp_ns: int, latency: float) -> CacheRow:
    return CacheRow(
        stamp=format_stamp(stamp_ns), frame_index=stats.frames - 1,
        tokens_used=max(stats.tokens_per_layer, default=0), tokens_budget=stats.budget or 0,
        occupancy=stats.occupancy, evicted=stats.evicted_this_frame, bytes_used=stats.bytes_used,
        bytes_budget=stats.bytes_reserved, latency=latency)
