"""
Write a policy for the KV cache: one class and one line, and the engine knows it by its name.

This one keeps every fourth token of old frames, so that the same budget reaches back four times
as far. It runs over a few frames of the synthetic world and prints what the cache kept of each:

    python3 examples/2_a_policy_of_your_own.py [FRAMES]
"""

import sys

import numpy as np
from torch import Tensor

from xsvggt_ros.engine.factory import build_engine, EngineOptions
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.kv_cache.policy import RetentionPolicy
from xsvggt_ros.kv_cache.retention import POLICIES
from xsvggt_ros.model.checkpoint import load_model, LoadedModel
from xsvggt_ros.world.synthetic_world import SyntheticWorld

SIZE = 84, 112  # height and width of the images, which the network was trained with
BUDGET = 4  # frames
RATE = 5.0  # frames a second
EVERY = 4
FIRST = 1 << 60  # above every token's id


class ThinnedHistory(RetentionPolicy):
    """Keep the newest tokens, and one in `EVERY` of each frame for longer than the others."""

    def rank(self, scores: Tensor, token_ids: Tensor) -> Tensor:
        """
        Rank by age, but chosen tokens before all others; [layers, tokens], the lowest leave.

        A token's id is frame * tokens_per_step + its index in the frame. No `score` is needed:
        nothing here depends on keys or queries. The first and the newest frame stay in any case.
        """
        chosen = token_ids % self.tokens_per_step % EVERY == 0
        return token_ids + chosen * FIRST


POLICIES['thinned_history'] = ThinnedHistory


def kept_of_each_frame(loaded: LoadedModel, policy: str, frames: list[np.ndarray]) -> list[int]:
    """Return how many tokens of each frame the first global layer holds at the end."""
    tokens = loaded.model.cache_layout(*SIZE).tokens.tokens_per_step
    engine = build_engine(loaded, EngineOptions(
        CacheConfig(policy=policy, max_tokens=BUDGET * tokens)), 'cpu')
    for frame in frames:
        engine.step(frame)
    frame_of_token = engine.kept_token_ids()[0] // tokens
    return frame_of_token.bincount(minlength=len(frames)).tolist()


def main(arguments: list[str]) -> None:
    """Print what is kept by this policy and by a window of the same budget."""
    count = int(arguments[0]) if arguments else 12
    world = SyntheticWorld(height=SIZE[0], width=SIZE[1])
    frames = [world.frame(index / RATE).image for index in range(count)]
    loaded = load_model('small')
    for policy in ('thinned_history', 'sliding_window'):
        kept = kept_of_each_frame(loaded, policy, frames)
        print(f'{policy}: of {count} frames {sum(map(bool, kept))} are remembered, with tokens',
              *kept)


if __name__ == '__main__':
    main(sys.argv[1:])
