"""Counts what the host asks of the device: operators, and waiting for results."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from xsvggt_ros.kernels import native

# These hand a value, or a size that depends on values, to the host, which waits for it.
WAITING = frozenset((
    '_local_scalar_dense', 'item', 'nonzero', 'is_nonzero', 'equal', 'masked_select', '_unique2',
    'unique_dim', 'unique_consecutive'))
COPIES = frozenset(('copy_', '_to_copy'))
# They compute nothing: memory without contents, or another view of the same.
FREE = frozenset(('empty', 'empty_like', 'empty_strided', 'new_empty', '_unsafe_view', 'detach',
                  'alias', 'lift_fresh', '_reshape_alias', 'resize_'))


class OperatorCount(TorchDispatchMode):
    """
    While it is entered, `operators` counts operators that compute, `waits` those that wait.

    A call of the package's own kernels on a CPU, which torch does not see, is an operator too.
    """

    def __init__(self) -> None:
        """Begin at zero."""
        super().__init__()
        self.operators = 0
        self.waits = 0
        self.names: dict[str, int] = {}
        self._depth = 0  # an operator made of others enters once more

    def __enter__(self) -> 'OperatorCount':
        """Begin to count."""
        if self._depth == 0:
            self._library = native.library
            setattr(native, 'library', self._counted)  # noqa: B010 (a function for another)
        self._depth += 1
        return super().__enter__()

    def __exit__(self, *details: Any) -> None:
        """Count no longer."""
        super().__exit__(*details)
        self._depth -= 1
        if self._depth == 0:
            setattr(native, 'library', self._library)  # noqa: B010

    def _counted(self) -> Any:
        library = self._library()
        return library if library is None else _Counted(library, self._add)

    def _add(self, name: str) -> None:
        self.operators += 1
        self.names[name] = self.names.get(name, 0) + 1

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
            self._add(name)
        if name in WAITING or (name in COPIES and _to_host(args, result)):
            self.waits += 1
        return result


class _Counted:
    """A library whose functions are counted when they are asked for."""

    def __init__(self, library: Any, count: Callable[[str], None]) -> None:
        self._library = library
        self._count = count

    def __getattr__(self, name: str) -> Any:
        self._count(name)
        return getattr(self._library, name)


def _to_host(args: tuple, result: Any) -> bool:
    """Return whether a copy goes from a device to the host."""
    devices = {arg.device.type for arg in args if isinstance(arg, torch.Tensor)}
    return result.device.type == 'cpu' and bool(devices - {'cpu'})
