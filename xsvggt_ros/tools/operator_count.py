"""Counts what the host asks of the device: operators, and waiting for results."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# These hand a value, or a size that depends on values, to the host, which waits for it.
WAITING = frozenset((
    '_local_scalar_dense', 'item', 'nonzero', 'is_nonzero', 'equal', 'masked_select', '_unique2',
    'unique_dim', 'unique_consecutive'))
COPIES = frozenset(('copy_', '_to_copy'))
# They compute nothing: memory without contents, or another view of the same.
FREE = frozenset(('empty', 'empty_like', 'empty_strided', 'new_empty', '_unsafe_view', 'detach',
                  'alias', 'lift_fresh', '_reshape_alias', 'resize_'))


class OperatorCount(TorchDispatchMode):
    """While it is entered, `operators` counts operators that compute, `waits` those that wait."""

    def __init__(self) -> None:
        """Begin at zero."""
        super().__init__()
        self.operators = 0
        self.waits = 0
        self.names: dict[str, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None,
    ) -> Any:
        """Count an operator; one that is made of others (in inference mode) as those."""
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        # Resampling is one operator, for which torch knows a decomposition all the same.
        if not name.startswith('upsample'):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if not func.is_view and name not in FREE:
            self.operators += 1
            self.names[name] = self.names.get(name, 0) + 1
        if name in WAITING or (name in COPIES and _to_host(args, result)):
            self.waits += 1
        return result


def _to_host(args: tuple, result: Any) -> bool:
    """Return whether a copy goes from a device to the host."""
    devices = {arg.device.type for arg in args if isinstance(arg, torch.Tensor)}
    return result.device.type == 'cpu' and bool(devices - {'cpu'})
