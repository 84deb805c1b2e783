"""The trainer that a pipeline file names: whether it is there, and by which source, told without running its module.

What goes here: looking a `package.module:function` up in its source. What does not: calling it (``training.candidate``).

A trainer's module imports the library it trains with, and a code location must load without one. So the source is
read, not run; only the packages above the module are imported, as Python does to find it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pkgutil
import symtable
import sys
from pathlib import Path

from ct_assets.errors import UsageError, did_you_mean


def check_trainer(trainer: str, file: Path) -> None:
    """Raise :class:`UsageError` with the nearest name when the trainer of pipeline file ``file`` does not exist.

    A module without Python source (compiled) is believed until it is called.
    """
    module, _, function = trainer.partition(":")
    source = _source(module)
    if source is None and not _found(module):
        near = did_you_mean(module, _beside(module))
        raise UsageError(
            f"{file}: trainer {trainer!r}: there is no module {module!r} to import",
            hint=near or "name it as package.module:function; its package must be installed where ct runs",
        )
    names = None if source is None else _defined(source)
    if names is not None and function not in names:
        shown = ", ".join(sorted(name for name in names if not name.startswith("_")))
        raise UsageError(
            f"{file}: trainer {trainer!r}: {module} has no function {function!r}",
            hint=did_you_mean(function, names) or f"it has: {shown}",
        )


def trainer_code(trainer: str) -> str:
    """SHA-256 of the source of the trainer's module; of nothing where there is none. What it imports is not in it."""
    source = _source(trainer.partition(":")[0])
    return hashlib.sha256(b"" if source is None else source.read_bytes()).hexdigest()


def _found(module: str) -> bool:
    if module in sys.modules:
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # a package above it is missing
        return False


def _source(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # ValueError: loaded already, by other means than from a file
        return None
    at = Path(spec.origin) if spec is not None and spec.origin else None
    return at if at is not None and at.suffix == ".py" and at.is_file() else None


def _beside(module: str) -> list[str]:
    """Modules of the same package."""
    package, _, _ = module.rpartition(".")
    spec = importlib.util.find_spec(package) if package and _found(package) else None
    places = spec.submodule_search_locations if spec is not None else None
    return [f"{package}.{found.name}" for found in pkgutil.iter_modules(places or [])]


def _defined(source: Path) -> set[str] | None:
    """Names that the module gives itself: defined, assigned or imported; None when `import *` hides some."""
    text = source.read_text(encoding="utf-8")
    if "import *" in text:
        return None
    try:
        symbols = symtable.symtable(text, str(source), "exec").get_symbols()
    except SyntaxError as error:
        raise UsageError(
            f"{source}, line {error.lineno}: {error.msg}", hint="the trainer's module is no Python"
        ) from error
    return {s.get_name() for s in symbols if s.is_assigned() or s.is_imported() or s.is_namespace()}
