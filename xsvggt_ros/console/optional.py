"""Libraries that only some commands need: imported when they do, or named in one line."""

from importlib import import_module
from types import ModuleType

from xsvggt_ros.console.errors import ToolError


def need(module: str, purpose: str, package: str, extra: str) -> ModuleType:
    """
    Return a module of an optional package.

    purpose: what it is wanted for, in words; extra: of this package, which brings it. Raises
    ToolError that says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ToolError(
            f"{purpose} needs {package}: pip install {package}, or all of them with "
            f"pip install 'xsvggt_ros[{extra}]' ({error})") from error
