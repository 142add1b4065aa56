"""Imports of this repository's modules beside other packages of the same names."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

_ROOT = Path(__file__).resolve().parent.parent
_set_aside: dict[str, ModuleType] = {}  # our modules whose names belong to other packages


def import_own(module: str) -> ModuleType:
    """Import a module of this repository, whoever else has its name, as Hugging Face's `datasets`
    has.

    While it is imported, `sys.modules` and `sys.path` know our modules by their names. Behind it, a
    name is another package's again where that was imported before or comes first on the path.
    """
    others = {
        name: loaded for name, loaded in sys.modules.items() if _is_other(name.partition(".")[0])
    }
    if module in sys.modules and not others:
        return sys.modules[module]
    before, path = set(sys.modules), list(sys.path)
    try:
        for name in others:
            del sys.modules[name]
        sys.modules.update(_set_aside)
        _set_aside.clear()
        sys.path.insert(0, str(_ROOT))
        return importlib.import_module(module)
    finally:
        sys.path[:] = path
        for top in {name.partition(".")[0] for name in sys.modules} & _own_names():
            if top in others or top not in before and not _leads_here(top):
                mine = [name for name in sys.modules if name.partition(".")[0] == top]
                _set_aside.update((name, sys.modules.pop(name)) for name in mine)
        sys.modules.update(others)


def set_aside(module: ModuleType) -> None:
    """Keep a module of ours that was loaded by its path, for whoever imports it by its name through
    `import_own`."""
    _set_aside[module.__name__] = module


@contextmanager
def names_free(folder: Path, theirs: dict[str, ModuleType]) -> Iterator[None]:
    """While open, code of others imports as if this repository were not there: first from `folder`,
    then what is installed.

    Args:
        theirs: modules with names of ours that such code has imported; those that it imports now
            are put in, and are its own again the next time.
    """
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_own_name(name)}
    path = list(sys.path)
    sys.modules.update(theirs)
    sys.path[:] = [str(folder), *(place for place in path if Path(place).resolve() != _ROOT)]
    try:
        yield
    finally:
        sys.path[:] = path
        theirs |= {name: sys.modules.pop(name) for name in list(sys.modules) if _is_own_name(name)}
        sys.modules.update(ours)


def _is_own_name(module: str) -> bool:
    return module.partition(".")[0] in _own_names()


@lru_cache
def _own_names() -> frozenset[str]:
    return frozenset(
        {path.stem for path in _ROOT.glob("*.py")}
        | {path.parent.name for path in _ROOT.glob("*/__init__.py")}
    )


def _is_other(top: str) -> bool:
    """Whether a loaded top-level module has the name of one of ours and is not ours."""
    return (
        top in _own_names()
        and top in sys.modules
        and not _is_ours(getattr(sys.modules[top], "__file__", None), top)
    )


def _leads_here(top: str) -> bool:
    """Whether `import top` would find our module."""
    spec = PathFinder.find_spec(top)
    return spec is not None and _is_ours(spec.origin, top)


def _is_ours(file: str | None, top: str) -> bool:
    return file is not None and Path(file).resolve() in (
        _ROOT / f"{top}.py",
        _ROOT / top / "__init__.py",
    )
