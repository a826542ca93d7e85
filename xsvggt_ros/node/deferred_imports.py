"""What `import torch` runs that no network here needs: it waits until somebody asks for it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
import importlib
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
import sys
import threading
from types import ModuleType
from typing import Any

# The shapes of results of tensors without data, and all operators once more in Python for that: a
# quarter of the time of `import torch`.
REGISTRATIONS = 'torch._meta_registrations'
# What needs it: compilers and derivatives import one of these, or name one. Random numbers with a
# state of their own belong to it in torch 2.13. Tried with 2.4.1, 2.13.0 and 2.14.1.
USERS = frozenset({'torch._decomp', 'torch._decomp.decompositions',
                   'torch._decomp.decompositions_for_jvp', 'torch._dynamo', 'torch._prims',
                   'torch._refs'})
ATTRIBUTES = frozenset({'Generator', '_decomp', '_meta_registrations', '_prims', '_refs'})
_waiting: list['_Deferred'] = []
_lock = threading.RLock()


@contextmanager
def deferred_registrations() -> Iterator[None]:
    """
    Import torch within this: its registrations are run when somebody needs them.

    Operators on the device 'meta' that need them raise NotImplementedError until `run_deferred`.
    It does nothing where torch was imported before.
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
                _waiting.append(_Deferred(sys.modules['torch']))


def run_deferred() -> bool:
    """Run what was deferred, if anything is; return whether it was. Raises what that raises."""
    with _lock:
        if not _waiting:
            return False
        _waiting.pop().run()
        return True


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
        vars(torch).pop('_meta_registrations', None)   # the placeholder
        self._withheld = {name: vars(torch).pop(name) for name in ATTRIBUTES & vars(torch).keys()}
        torch.__getattr__ = self._attribute
        sys.meta_path.insert(0, self)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Return None, for others to find it, but for what the registrations have imported."""
        if name not in USERS or not run_deferred():
            return None
        module = sys.modules.get(name)
        if module is None:
            return None
        spec = module.__spec__ = ModuleSpec(name, _Imported(module))   # it looks there as well
        return spec

    def _attribute(self, name: str) -> Any:
        if name not in ATTRIBUTES:
            return self._otherwise(name)
        run_deferred()
        if name in self._withheld:    # the registrations themselves may ask
            return self._withheld[name]
        return vars(self._torch)[name] if name in vars(self._torch) else self._otherwise(name)

    def run(self) -> None:
        """Run the registrations; torch is as if nothing had been deferred."""
        sys.meta_path.remove(self)
        try:
            importlib.import_module(REGISTRATIONS)
        finally:   # not before: another thread would take what does not work yet
            vars(self._torch).update(self._withheld)
            self._torch.__getattr__ = self._otherwise


class _Imported(Loader):
    """Loads a module that was loaded while it was looked for."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module."""
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """Undo what finding it has changed."""
        module.__spec__ = self._spec
