"""The bounded cache over whole clips: which frames each frame still sees."""

import numpy as np
import torch
from torch import Tensor


class BoundedHistory:
    """
    What `predict_clips` takes as `visible`: a cache of so many frames, policy `frame_coverage`.

    As in `kv_cache.retention.FrameCoverage` each global block forgets for itself: of the frames it
    remembers, the one that leaves has the least distance (1 - cosine of the mean keys) to its two
    nearest others; the first and the newest stay.
    """

    def __init__(self, frames: int) -> None:
        """Remember `frames` frames, two or more."""
        self._frames = frames

    def __call__(self, keys: Tensor) -> Tensor:
        """Return [B, S, S], whether a frame sees another, of keys [B, heads, S, tokens, dim]."""
        mean = keys.float().mean(dim=3).transpose(1, 2).flatten(2)          # [B, S, heads * dim]
        unit = torch.nn.functional.normalize(mean, dim=2).cpu().numpy()
        distance = 1 - unit @ unit.transpose(0, 2, 1)    # in floats, whatever autocast says
        seen = np.stack([_remembered(one, self._frames) for one in distance])
        return torch.from_numpy(seen).to(keys.device)


def _remembered(distance: np.ndarray, limit: int) -> np.ndarray:
    """Return which frames [S, S] each frame (row) sees, with the distances between them."""
    count = len(distance)
    seen = np.zeros((count, count), bool)
    kept: list[int] = []
    for newest in range(count):
        kept.append(newest)
        seen[newest, kept] = True
        if len(kept) > limit:
            near = distance[np.ix_(kept, kept)].copy()
            np.fill_diagonal(near, np.inf)
            near.sort(axis=1)
            worth = near[:, :2].mean(axis=1)
            worth[[0, -1]] = np.inf
            del kept[int(worth.argmin())]
    return seen
