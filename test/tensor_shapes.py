"""
Check the shapes and dtypes of tensors in public signatures whenever a test calls them.

`shape_table.TABLE` says what they are, in jaxtyping's words. Modules in it are changed as they
are imported: so the package's own calls are checked as well, and the package knows nothing of it.
Processes that tests start are not.
"""

from collections.abc import Callable, Mapping
import dataclasses
from functools import wraps
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
import inspect
import sys
from types import FunctionType, ModuleType
from typing import Any

from beartype import beartype
from jaxtyping import config as checks
from jaxtyping import jaxtyped

Shapes = Mapping[str, Any]
Table = Mapping[str, Mapping[str, Shapes]]


class Loader(SourceFileLoader):
    """Wraps the functions of a module before anyone can import them."""

    def __init__(self, name: str, path: str, rows: Mapping[str, Shapes]) -> None:
        super().__init__(name, path)
        self._rows = rows

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        check_module(module, self._rows)


class Finder:
    """Finds the modules of a table, by their names without the package's."""

    def __init__(self, table: Table) -> None:
        self._table = {f'xsvggt_ros.{name}': rows for name, rows in table.items()}

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None,
                  ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in self._table else None
        if spec is not None:
            spec.loader = Loader(name, str(spec.origin), self._table[name])
        return spec


def install(table: Table) -> None:
    """Have the modules of a table checked; none of them may have been imported yet."""
    early = {f'xsvggt_ros.{name}' for name in table} & sys.modules.keys()
    if early:
        raise RuntimeError(f'imported before their calls can be checked: {sorted(early)}')
    sys.meta_path.insert(0, Finder(table))


def check_module(module: ModuleType, rows: Mapping[str, Shapes]) -> None:
    """Put checked functions, methods and constructors in the place of a module's own."""
    for name, shapes in rows.items():
        *owners, attribute = name.split('.')
        owner: Any = module
        for part in owners:
            owner = getattr(owner, part)
        if inspect.isclass(getattr(owner, attribute)):
            owner, attribute = getattr(owner, attribute), '__init__'
            assert dataclasses.is_dataclass(owner), f'{name} is no dataclass: name its method'
        setattr(owner, attribute, checked(vars(owner)[attribute], shapes))


def checked(member: Any, shapes: Shapes) -> Any:
    """
    Return a function, method or property whose calls are checked.

    shapes: by argument; 'returns' is what comes back. Names of axes, such as `heads`, stand for
    one number throughout a call, `{self.x}` for an attribute's. Raises TypeError for an argument
    that there is not.
    """
    for kind in (staticmethod, classmethod):
        if isinstance(member, kind):
            return kind(checked(member.__func__, shapes))
    if isinstance(member, property):
        return property(checked(member.fget, shapes))
    return _checked(member, shapes)


def _checked(function: FunctionType, shapes: Shapes) -> Callable[..., Any]:
    signature = inspect.signature(function)
    unknown = shapes.keys() - signature.parameters.keys() - {'returns'}
    if unknown:
        raise TypeError(f'{function.__qualname__} has no arguments {sorted(unknown)}')

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    parameters = [parameter.replace(annotation=shapes.get(name, Any))
                  for name, parameter in signature.parameters.items()]
    call.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=parameters, return_annotation=shapes.get('returns', Any))
    return jaxtyped(call, typechecker=beartype)


def switch(on: bool) -> None:
    """Let calls be checked, or not, for what gives wrong shapes on purpose."""
    checks.update('jaxtyping_disable', not on)
