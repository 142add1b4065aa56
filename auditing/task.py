"""The user's module: what it says of a model, read and checked; errors of its code in one line."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from core import interrupts
from core.console import UserError
from core.imports import names_free
from core.inputs import locate
from core.registry import nearest

if TYPE_CHECKING:
    from torch import nn

FUNCTIONS = {
    "build": "build(), which returns the untrained network",
    "train": "train(network, x, y), which trains it on these records",
    "data": "data(), which returns x, y and who is a member",
}
_FILES = {
    "CHECKPOINT": "CHECKPOINT, the file of the released weights",
    "ORIGINAL": "ORIGINAL, the file of the weights before compress",
}
_MODULE = "audited_task"  # by which Python knows the user's module, whatever its file's name


@dataclass(frozen=True, eq=False)
class Task:
    """A user's module, loaded.

    Attributes:
        path: of its file.
        released: the file of the model that was released; `original`, of the weights before
            `compress`, None where they were not released.
        compresses: whether there is a `compress`.
        source: digest of the code that makes a model: of the module but for its file names, and of
            what it imports from its folder.
    """

    path: Path
    module: ModuleType
    theirs: dict[str, ModuleType]
    released: Path
    original: Path | None
    compresses: bool
    source: str = field(repr=False)

    def build(self) -> nn.Module:
        """A network, untrained. Raises UserError where it is none, or the user's code raises."""
        from torch import nn

        network = self._call("build")
        if not isinstance(network, nn.Module):
            raise UserError(
                f"{self.path.name}: build() must return a torch network (nn.Module), not "
                f"{_what(network)}"
            )
        return network

    def train(self, network: nn.Module, x, y) -> nn.Module:
        """The network, trained."""
        return self._changed("train", network, x, y)

    def compress(self, network: nn.Module, x, y) -> nn.Module:
        """The network as it is released."""
        return self._changed("compress", network, x, y)

    def data(self) -> tuple:
        """x, y and who is a member, as the user gives them."""
        made = self._call("data")
        if not isinstance(made, tuple | list) or len(made) != 3:
            raise UserError(
                f"{self.path.name}: data() must return three: x, y, and for each record whether "
                f"it is a member of the released model, not {_what(made)}"
            )
        return tuple(made)

    def _changed(self, name: str, network: nn.Module, x, y) -> nn.Module:
        """The network that the function returns, else the one that it has changed in place."""
        from torch import nn

        made = self._call(name, network, x, y)
        return made if isinstance(made, nn.Module) else network

    def _call(self, name: str, *given):
        with user_code(self.path, self.theirs):
            return getattr(self.module, name)(*given)


def load_task(name: str) -> Task:
    """A user's module by its path.

    Raises UserError where there is none, its code raises, or something is missing in it.
    """
    path = Path(locate(name, "task")).resolve()
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"the task must be a Python file such as my_task.py, not {name}")
    theirs: dict[str, ModuleType] = {}
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with user_code(path, theirs):
        sys.modules[_MODULE] = module
        spec.loader.exec_module(module)
        source = _source_digest(path)
    _refuse_incomplete(path, module)
    has_compress = hasattr(module, "compress")
    original = getattr(module, "ORIGINAL", None)
    if original is not None and not has_compress:
        raise UserError(
            f"{path.name}: ORIGINAL is the file of the weights before compress, and there is no "
            f"compress(network, x, y): leave out ORIGINAL, or say how it was compressed"
        )
    return Task(
        path,
        module,
        theirs,
        _file_of(path, module, "CHECKPOINT"),
        None if original is None else _file_of(path, module, "ORIGINAL"),
        has_compress,
        source,
    )


def _refuse_incomplete(path: Path, module: ModuleType) -> None:
    names = [name for name in vars(module) if not name.startswith("_")]
    missing = [about for name, about in FUNCTIONS.items() if not hasattr(module, name)]
    missing += [_FILES["CHECKPOINT"]] * (not hasattr(module, "CHECKPOINT"))
    if missing:
        word = missing[0].partition("(")[0].partition(",")[0]
        raise UserError(f"{path.name} lacks {'; '.join(missing)}{nearest(word, names)}")
    for name in (*FUNCTIONS, "compress"):
        if not callable(getattr(module, name, print)):
            raise UserError(
                f"{path.name}: {name} must be a function, not {_what(getattr(module, name))}"
            )


def _file_of(path: Path, module: ModuleType, name: str) -> Path:
    said = getattr(module, name)
    if not isinstance(said, str | Path):
        raise UserError(
            f"{path.name}: {_FILES[name]}, must be a path such as 'model.pt', not {_what(said)}"
        )
    file = path.parent / Path(said).expanduser()
    if not file.is_file():
        raise UserError(f"{path.name}: {name} is {str(said)!r}, and there is no file {file}")
    return file


def _what(value: Any) -> str:
    """A wrong value, in a few words."""
    if value is None:
        return "None"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


# ---- what changes the models that it makes


def _source_digest(path: Path) -> str:
    """Of the module, and of the modules that it has imported from its folder."""
    folder = path.parent
    files = {path}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(folder) and "site-packages" not in file:
            files.add(Path(file))
    digest = hashlib.sha256()
    for file in sorted(files):
        content = file.read_bytes()
        if file == path:
            content = _without_file_names(content)
        digest.update(repr((str(file.relative_to(folder)), content)).encode())
    return digest.hexdigest()


def imports_of(task: Task) -> list[str]:
    """What the module imports at its top, by whole names."""
    body = ast.parse(task.path.read_bytes()).body
    found = [name.name for node in body if isinstance(node, ast.Import) for name in node.names]
    return found + [
        node.module for node in body if isinstance(node, ast.ImportFrom) and node.module
    ]


def _without_file_names(source: bytes) -> bytes:
    """The module's syntax, in which comments and blank lines are none, and the files of the model
    under audit do not count: shadow models serve for other releases of the same training."""
    tree = ast.parse(source)
    tree.body = [
        node
        for node in tree.body
        if not (
            isinstance(node, ast.Assign)
            and all(isinstance(name, ast.Name) and name.id in _FILES for name in node.targets)
        )
    ]
    return ast.dump(tree).encode()


# ---- errors of the user's code


@contextmanager
def user_code(path: Path, theirs: dict[str, ModuleType]) -> Iterator[None]:
    """Run the user's code in its folder, with names of our modules free (see `names_free`), and
    turn what it raises into a UserError of one line, with its place; the traceback goes to
    stderr."""
    try:
        with names_free(path.parent, theirs), chdir(path.parent):
            yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if interrupts.struck():
            raise
        _print_traceback(error, path)
        what = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        raise UserError(f"{_place(error, path)}: {type(error).__name__}: {what}") from error


def _print_traceback(error: BaseException, path: Path) -> None:
    """From where the user's file begins."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != str(path):
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace or error.__traceback__)
    print("".join(lines), end="", file=sys.stderr)


def _place(error: BaseException, path: Path) -> str:
    """file:line of the last step in the user's folder, and the function's name."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}"
    steps = [
        step
        for step in traceback.extract_tb(error.__traceback__)
        if Path(step.filename).is_relative_to(path.parent)
        and "site-packages" not in step.filename
        and step.filename != __file__
    ]
    if not steps:
        return path.name
    step = steps[-1]
    inside = "" if step.name == "<module>" else f" in {step.name}"
    return f"{Path(step.filename).name}:{step.lineno}{inside}"
