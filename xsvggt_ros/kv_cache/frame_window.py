"""The retention of LingBot-Map: the first frames, a window, and a little of all others."""

import torch
from torch import Tensor

from xsvggt_ros.kv_cache.policy import RetentionPolicy

SCALE_FRAMES, WINDOW = 1, 64  # a live stream's; published: 8 and 64
MAX_OLD_FRAMES = 1024
PART_OF_OLD_FRAMES = 8  # their special tokens get one for so many of the whole frames'


class FrameWindow(RetentionPolicy):
    """
    Keep the first frames and the newest ones whole, of those between the special tokens.

    Nothing is scored: all layers keep the same. A frame that is remembered sees the first
    ``scale_frames``, the newest ``window`` frames with itself, and the special tokens of others;
    one that is not to be remembered sees itself besides. The published policy keeps the special
    tokens of all frames for ever; here the newest ``old_frames`` keep them, so that there is a
    budget. A smaller budget shortens window and old frames together. A step of one token is no
    frame: there the first and the newest stay.
    """

    name = 'lingbot'  # in `cache.policy`
    evicts = 'steps'
    lingers = True
    instead_for_single_tokens = 'sliding_window'

    def __init__(
        self, tokens_per_step: int, special_tokens: int, pool_size: int, seed: int = 0,
        scale_frames: int = SCALE_FRAMES, window: int = WINDOW, old_frames: int | None = None,
    ) -> None:
        """Remember the shape of a step; old_frames: None chooses by the budget."""
        super().__init__(tokens_per_step, special_tokens, pool_size, seed)
        self.special = min(special_tokens, tokens_per_step)
        self.scale_frames = scale_frames
        self.window = window
        self.old_frames = old_frames
        self._old = self._marked = 0  # frames of which the special tokens are left
        self._answered = -1, (0, 0)
        self._leaving = 0, 0  # frames that lose their patches, and those that lose all

    def expect(self, first_steps: int) -> None:
        """Keep all of the first steps."""
        self.scale_frames = first_steps

    @property
    def most_whole(self) -> int:
        """Return how many frames are whole between frames: the next one is the window's last."""
        return self.scale_frames + self.window - 1

    def frames_of(self, limit: int) -> tuple[int, int]:
        """Return how many frames a limit holds whole, and of how many others special tokens."""
        if limit != self._answered[0]:  # it is asked in every layer of every frame
            self._answered = limit, self._frames_of(limit)
        return self._answered[1]

    def _frames_of(self, limit: int) -> tuple[int, int]:
        whole = min(self.scale_frames + 1, self.most_whole)
        while whole < self.most_whole and self._cost(whole + 1) <= limit:
            whole += 1
        return whole, self._old_frames(whole)

    def fit_budget(self, budget: int) -> int:
        """Return the budget in whole frames, and the special tokens of others."""
        return self._cost(self.frames_of(budget)[0])

    def partial_steps(self, budget: int) -> int:
        """Return of how many frames at most the special tokens are kept, and one that goes."""
        return self.frames_of(budget)[1] + 1

    def begin(self, layers: int, channels: int, budget: int, device: torch.device) -> None:
        """Begin with no old frames."""
        self._old = self._marked = 0

    def mark(self) -> None:
        """Note how many old frames there are."""
        self._marked = self._old

    def rewind(self) -> None:
        """Have as many old frames as at the mark."""
        self._old = self._marked

    def excess(self, used: int, limit: int, most: int | None = None) -> int:
        """Return how many tokens leave so that the next frame finds room in the window."""
        allowed, old_frames = self.frames_of(limit)
        patches = self.tokens_per_step - self.special
        leaving = max(0, self._whole(used) - allowed)
        if most is not None:
            leaving = min(leaving, most // patches if patches else leaving)
        dropped = max(0, self._old + leaving - old_frames) if self.special else 0
        if most is not None and dropped:
            dropped = min(dropped, (most - leaving * patches) // self.special)
        self._leaving = leaving, dropped
        return leaving * patches + dropped * self.special

    def evicted(
        self, scores: Tensor, token_ids: Tensor, steps: int, count: int,
        forced_evictions: Tensor | None = None, newest: Tensor | None = None,
    ) -> Tensor:
        """
        Return the slots of the oldest patches of the window, and of the oldest frames.

        All layers keep the same tokens in the same slots: one is looked at for all.
        """
        layers, token_ids = len(token_ids), token_ids[:1]
        leaving, dropped = self._leaving
        oldest = steps - (self._whole(token_ids.shape[1]) - self.scale_frames)  # of the window
        first = oldest - self._old  # of which special tokens are left
        frame, index = token_ids // self.tokens_per_step, token_ids % self.tokens_per_step
        is_patch = index >= self.special
        leaves = ((frame >= oldest) & (frame < oldest + leaving) & is_patch
                  | (frame >= first) & (frame < first + dropped) & ~is_patch)
        self._old += leaving - dropped
        return self.slots_of(leaves, count).expand(layers, count)

    def _whole(self, used: int) -> int:
        """Return how many frames are whole among so many tokens of a layer."""
        return (used - self._old * self.special) // self.tokens_per_step

    def _old_frames(self, whole: int) -> int:
        if self.old_frames is not None:
            return self.old_frames
        share = self.tokens_per_step // (PART_OF_OLD_FRAMES * max(1, self.special))
        return min(MAX_OLD_FRAMES, max(1, share) * whole)

    def _cost(self, whole: int) -> int:
        return whole * self.tokens_per_step + self._old_frames(whole) * self.special
