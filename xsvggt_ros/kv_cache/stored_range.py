"""The least and the greatest of what a cache stores, step by step."""

import torch
from torch import Tensor


class StoredRange:
    """
    Minimum and maximum of the newest step's keys and values of each layer.

    Few layers tell them while they attend; what many have stored is looked at together, as an
    operator for each costs more than that, unless storing would hide something.
    """

    def __init__(self, layers: int, device: torch.device) -> None:
        """Begin without a step."""
        self._extremes = torch.zeros(layers, 2, 2, device=device)
        self._view_extremes(torch.float32)

    @property
    def nbytes(self) -> int:
        """Return the bytes allocated."""
        return self._extremes.nbytes

    def record(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Note the extremes of a layer's keys and values."""
        if key.dtype is not self._noted.dtype:
            self._view_extremes(key.dtype)
        of_keys, of_values = self._outputs[layer]
        torch.aminmax(key, out=of_keys)
        torch.aminmax(value.to(key.dtype), out=of_values)

    def numbers(self) -> Tensor:
        """Return all of them, [n] fp32."""
        return self._noted.flatten().to(torch.float32, copy=True)

    def _view_extremes(self, dtype: torch.dtype) -> None:
        """Have the extremes be of the type of what they are the extremes of."""
        self._noted = self._extremes.view(dtype)[:, :, :2]
        self._outputs = [[part.unbind() for part in own] for own in self._noted]
