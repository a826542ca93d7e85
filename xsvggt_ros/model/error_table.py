"""What the confidence of a network's depths means: a table that comes with its weights."""

from dataclasses import dataclass
import json
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

KEY = 'depth_errors'    # in a checkpoint's metadata: JSON, pairs of confidence and error
_MOST_ENTRIES = 1000


@dataclass(frozen=True)
class ErrorTable:
    """
    The median relative error of depths by their confidence, ascending in confidence.

    Relative errors are |depth / true depth - 1| after the stream's scale is taken out. Between
    entries it is interpolated on logarithmic axes, beyond them it stays as it is.
    """

    confidences: tuple[float, ...]    # 1 and more
    errors: tuple[float, ...]         # above 0, never rising

    def __post_init__(self) -> None:
        """Check the entries; raises ValueError."""
        pairs = (*self.confidences, *self.errors)
        if not self.confidences or len(self.confidences) != len(self.errors) or not all(
                math.isfinite(value) and value > 0 for value in pairs):
            raise ValueError('it needs as many errors as confidences, one or more, all above 0')
        if any(a >= b for a, b in zip(self.confidences, self.confidences[1:])) or any(
                a < b for a, b in zip(self.errors, self.errors[1:])):
            raise ValueError('confidences must rise, and errors never')

    def relative_errors(self, confidence: Tensor) -> Tensor:
        """Return the errors to be expected of confidences (any shape, 1 and more), float32."""
        known = torch.tensor(self.confidences, dtype=torch.float32).log().to(confidence.device)
        errors = torch.tensor(self.errors, dtype=torch.float32).log().to(confidence.device)
        asked = confidence.float().clamp_min(1e-9).log().clamp(known[0], known[-1])
        after = torch.searchsorted(known, asked).clamp(1, max(len(known) - 1, 1))
        if len(known) == 1:
            return errors.exp().expand_as(asked)
        share = (asked - known[after - 1]) / (known[after] - known[after - 1])
        return torch.lerp(errors[after - 1], errors[after], share).exp()

    def least_confidence(self, error: float) -> float:
        """Return the least confidence of which at most `error` is expected; inf if none is."""
        if error >= self.errors[0]:
            return 0.0
        if error < self.errors[-1]:
            return math.inf
        after = next(index for index, value in enumerate(self.errors) if value <= error)
        (low, high), (more, less) = (values[after - 1:after + 1]
                                     for values in (self.confidences, self.errors))
        return float(low * (high / low) ** (math.log(more / error) / math.log(more / less)))

    def to_json(self) -> str:
        """Return the text that `from_json` reads."""
        return json.dumps([[float(f'{value:.9g}') for value in pair]
                           for pair in zip(self.confidences, self.errors)])

    @classmethod
    def from_json(cls, values: Any) -> 'ErrorTable':
        """Return the table of pairs of confidence and error; raises ValueError."""
        if not isinstance(values, list) or len(values) > _MOST_ENTRIES or not all(
                isinstance(pair, list) and len(pair) == 2 and all(
                    isinstance(value, (int, float)) and not isinstance(value, bool)
                    and abs(value) < 1e30 for value in pair) for pair in values):
            raise ValueError('it is no list of pairs of a confidence and an error')
        return cls(tuple(float(pair[0]) for pair in values),
                   tuple(float(pair[1]) for pair in values))


def fit_error_table(confidence: np.ndarray, error: np.ndarray, entries: int = 20) -> ErrorTable:
    """
    Return the table of what was seen: confidences and relative errors of as many depths.

    Each entry is the median of an equal share of them; where errors rise with the confidence,
    neighbouring shares are taken together (isotonic regression, pool adjacent violators).
    """
    order = np.argsort(confidence.ravel(), kind='stable')
    confidence, error = confidence.ravel()[order], error.ravel()[order]
    shares = [part for part in np.array_split(np.arange(len(order)), entries) if len(part)]
    pools: list[tuple[np.ndarray, float]] = []
    for share in shares:
        pool, level = share, float(np.median(error[share]))
        while pools and (pools[-1][1] < level
                         or np.median(confidence[pool]) <= np.median(confidence[pools[-1][0]])):
            pool = np.concatenate([pools.pop()[0], pool])
            level = float(np.median(error[pool]))
        pools.append((pool, level))
    return ErrorTable(tuple(float(np.median(confidence[pool])) for pool, _ in pools),
                      tuple(max(level, 1e-5) for _, level in pools))


def calibration(expected: np.ndarray, error: np.ndarray,
                ) -> list[tuple[float, float]]:
    """Return the median expected and true error in each of ten equal shares of depths."""
    order = np.argsort(expected.ravel(), kind='stable')
    expected, error = expected.ravel()[order], error.ravel()[order]
    return [(float(np.median(expected[part])), float(np.median(error[part])))
            for part in np.array_split(np.arange(len(order)), 10) if len(part)]
