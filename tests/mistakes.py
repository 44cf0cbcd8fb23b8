"""A module, or a text, with a mistake in it that was put there on purpose."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def mistaken(path: Path, old: str, new: str) -> str:
    """What stands in the file, with the mistake in it. A line that is no longer there fails by name."""
    source = path.read_text(encoding="utf-8")
    number = source.count(old)
    assert number == 1, f"{old!r} stands {number} times in {path.name}; put the mistake elsewhere"
    return source.replace(old, new)


def with_mistake(module: ModuleType, old: str, new: str) -> ModuleType:
    """A copy of the module with the mistake in it."""
    path = Path(str(module.__file__))
    wrong = mistaken(path, old, new)
    name = f"mistaken.{module.__name__}"
    spec = importlib.util.spec_from_loader(name, loader=None)
    assert spec is not None
    copy = importlib.util.module_from_spec(spec)
    copy.__file__ = module.__file__
    copy.__package__ = module.__package__
    sys.modules[name] = copy  # dataclasses look their module up
    try:
        exec(compile(wrong, str(path), "exec"), copy.__dict__)
    finally:
        del sys.modules[name]
    return copy
