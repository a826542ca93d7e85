"""How long the parts of a cache take, measured from outside: the library itself has no clock."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
import time
from typing import Any

import torch
from torch import Tensor

from xsvggt_ros.kv_cache.cache import KVCache
from xsvggt_ros.kv_cache.dense_store import DenseStore
from xsvggt_ros.kv_cache.store import Observer, Step

Moment = float | torch.cuda.Event


@dataclass(frozen=True)
class FrameTimes:
    """What one frame took, in ms: all of it, and the parts of its cache summed over the layers."""

    frame: float
    quantise: float  # converting and storing the frame's own tokens
    attend: float  # decoding what is stored, and attention
    score: float  # of the policy, and the share of attention that `CacheHealth` tells
    evict: float


class Clock:
    """Moments in the order of the device's work: events on a GPU, which wait for nothing."""

    def __init__(self, device: torch.device) -> None:
        """Choose how time is told for a device."""
        self._device = device

    def now(self) -> Moment:
        """Return this moment."""
        if self._device.type != 'cuda':
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def wait(self) -> None:
        """Wait until the device has done its work, so that its moments are known."""
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)

    @staticmethod
    def between(start: Moment, end: Moment) -> float:
        """Return the ms between two moments."""
        if isinstance(start, float) and isinstance(end, float):
            return 1e3 * (end - start)
        assert isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event)
        return start.elapsed_time(end)


class CacheTimer:
    """
    Wraps the parts of one cache, this object's and no other's, and measures frame by frame.

    A store of floats writes within its `attend`, where nothing can be wrapped. Its writes are
    therefore done once more, with the same result, to learn what they take; the time of the
    repetition is in no frame's times.
    """

    def __init__(self, cache: KVCache, device: torch.device) -> None:
        """Wrap the parts of a cache that lies on ``device``."""
        self._clock = Clock(device)
        self._spans: dict[str, list[tuple[Moment, Moment]]] = {}
        self._wrap('end', cache, 'end_step')
        self._wrap('score', cache.scores, 'add')
        for name in ('pooled_query', 'remember'):
            self._wrap('prepare', cache.policy, name)
        store = cache.store
        # What lies as floats is scored at the end, and written twice while it is measured.
        self.floats = isinstance(store, DenseStore)
        if isinstance(store, DenseStore):
            attend = self._repeating_writes(store, self._timed('store', store.attend))
            setattr(store, 'attend', attend)  # noqa: B010 (a method for another)
        else:
            self._wrap('insert', store, '_insert')
            self._wrap('store', store, 'attend')

    def measure(self, work: Callable[[], Any]) -> tuple[Any, FrameTimes]:
        """Return what ``work``, all of one frame, returns, and the time it took."""
        self._spans = {name: [] for name in (
            'store', 'insert', 'repeated', 'score', 'prepare', 'end')}
        self._clock.wait()
        start = self._clock.now()
        result = work()
        end = self._clock.now()
        self._clock.wait()
        ms = {name: sum(self._clock.between(*span) for span in spans)
              for name, spans in self._spans.items()}
        write = ms['insert'] + ms['repeated']
        at_end = ms['score'] if self.floats else 0.0
        return result, FrameTimes(
            frame=self._clock.between(start, end) - ms['repeated'], quantise=write,
            attend=max(ms['store'] - write - ms['score'] + at_end, 0.0),
            score=ms['score'] + ms['prepare'], evict=ms['end'] - at_end)

    # Parts ---------------------------------------------------------------------------------------

    def _wrap(self, part: str, owner: object, name: str) -> None:
        """Have one object's method note when it begins and ends."""
        setattr(owner, name, self._timed(part, getattr(owner, name)))

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, which from now on notes when it began and ended."""
        @wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            start = self._clock.now()
            result = function(*arguments, **named)
            self._spans[part].append((start, self._clock.now()))
            return result
        return timed

    def _repeating_writes(
        self, store: DenseStore, attend: Callable[..., Tensor],
    ) -> Callable[..., Tensor]:
        def write(layer: int, slots: Tensor, key: Tensor, value: Tensor) -> None:
            keys, values = store.keys[layer], store.values[layer]
            keys.index_copy_(1, slots, key.to(keys.dtype))
            values.index_copy_(1, slots, value.to(values.dtype))

        repeat = self._timed('repeated', write)

        def attend_and_repeat(
            layer: int, step: Step, query: Tensor, key: Tensor, value: Tensor,
            observe: Observer | None,
        ) -> Tensor:
            out = attend(layer, step, query, key, value, observe)
            repeat(layer, step.slots, key, value)
            return out

        return attend_and_repeat
