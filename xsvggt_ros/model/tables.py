"""Tables that are computed once: by frame size, precision, and version of a weight."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor

Table = TypeVar('Table')
_NONE = object()


def is_traced() -> bool:
    """Return whether somebody follows what is computed: keys of tables would be nonsense then."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def version(weight: Tensor) -> tuple:
    """
    Return a key for tables that are computed from a weight, which changes whenever it does.

    The weight itself is in the key so that it lives as long as the table: a new weight could be
    put where it was, with the same version. Its identity comes first, so that keys can be
    compared: tensors are not.
    """
    writes = -1 if weight.is_inference() else weight._version  # grows with every write
    return id(weight), weight.data_ptr(), writes, weight.dtype, weight.device, weight


class TableCache:
    """
    The few tables used last, each computed once for its key.

    Tables are ordinary tensors outside the state dict. A key must name everything the table was
    computed from (frame size, device, precision, version of a weight), so that none gets stale.
    """

    def __init__(self, limit: int = 4) -> None:
        """Keep at most `limit` tables; a stream has one frame size."""
        self._limit = limit
        self._tables: OrderedDict[Hashable, Any] = OrderedDict()
        self._newest: Any = _NONE  # the table used last
        self._newest_key: Hashable = None

    def get(self, key: Hashable, compute: Callable[[], Table]) -> Table:
        """Return the table for `key`, computing it if it is not there."""
        # A key is full of tensors, whose hashes take as long as an operator: one look is enough,
        # and none is needed for the key of the last time.
        if self._newest is not _NONE and key == self._newest_key:
            return self._newest
        table = self._tables.get(key, _NONE)
        if table is _NONE:
            # A table made in inference mode could never be part of a training step.
            with torch.inference_mode(False), torch.no_grad():
                table = self._tables[key] = compute()
            if len(self._tables) > self._limit:
                self._tables.popitem(last=False)
        elif table is not self._newest:
            self._tables.move_to_end(key)
        self._newest, self._newest_key = table, key
        return table
