"""What `import torch` runs that no network here needs: it waits until somebody asks for it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
import importlib
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
import sys
from types import ModuleType
from typing import Any

# The shapes of results of tensors without data, and all operators once more in Python for that: a
# quarter of the time of `import torch`.
REGISTRATIONS = 'torch._meta_registrations'
# What needs it: compilers and exporters import the one, and may name the others. Random numbers
# with a state of their own belong to it since torch 2.13, or somewhat before.
USER = 'torch._dynamo'
ATTRIBUTES = frozenset({'Generator', '_decomp', '_meta_registrations', '_prims', '_refs'})


@contextmanager
def deferred_registrations() -> Iterator[None]:
    """
    Import torch within this: its registrations are run when somebody needs them.

    Operators on the device 'meta' that need them raise NotImplementedError until then. It does
    nothing where torch was imported before.
    """
    if 'torch' in sys.modules:
        yield
        return
    placeholder = sys.modules[REGISTRATIONS] = _Placeholder(REGISTRATIONS)
    try:
        yield
    finally:
        if sys.modules.get(REGISTRATIONS) is placeholder:
            del sys.modules[REGISTRATIONS]
            if 'torch' in sys.modules:
                _Deferred(sys.modules['torch'])


class _Placeholder(ModuleType):
    """Stands for the registrations while torch is imported, unless something is asked of them."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        if sys.modules.get(REGISTRATIONS) is self:
            del sys.modules[REGISTRATIONS]
        return getattr(importlib.import_module(REGISTRATIONS), name)


class _Deferred(MetaPathFinder):
    """Runs the registrations before the first import, or use of a name, that needs them."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._otherwise = torch.__getattr__
        self._withheld = {name: vars(torch).pop(name) for name in ATTRIBUTES & vars(torch).keys()}
        torch.__getattr__ = self._attribute
        sys.meta_path.insert(0, self)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Return None: others find it."""
        if name == USER:
            self._run()
        return None

    def _attribute(self, name: str) -> Any:
        if name not in ATTRIBUTES:
            return self._otherwise(name)
        self._run()
        return getattr(self._torch, name)

    def _run(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self._torch.__getattr__ = self._otherwise
            vars(self._torch).update(self._withheld)
            importlib.import_module(REGISTRATIONS)
