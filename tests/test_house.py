"""The rooms of this repository: imports go down, and no file or function is too long to be read."""

import ast
import re
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from helpers import PROJECT

# a room or script of the top level -> its floor; it imports from lower ones, and from its own
# where no circle comes of it
FLOORS = {
    "core": 0,
    **dict.fromkeys(["sources", "datasets", "models", "pruner", "quantizer"], 1),
    **dict.fromkeys(["training", "base_model", "transformer"], 2),
    **dict.fromkeys(["defenders", "attackers"], 3),
    "bench": 4,
    **dict.fromkeys(["pretrain", "prune", "prune_dp", "quantize", "mia"], 5),
    **dict.fromkeys(["studies", "reporting", "auditing"], 6),
    **dict.fromkeys(["study", "report", "audit"], 7),
    "benchmarks": 8,
    "tests": 9,
}
MAX_LINES, MAX_TEST_LINES, MAX_FUNCTION, MAX_PARAMETERS = 400, 500, 50, 6
TARGET = re.compile(r"([a-z_]\w*(?:\.\w+)*):[A-Za-z_]\w*")  # "module:attribute" of a registry
# comments that say why a function is as it is, on its `def` line or on the line above
LONG, MANY = re.compile(r"# long: \S"), re.compile(r"# many parameters: \S")


@dataclass(frozen=True)
class Source:
    """One file of code: where it lies in the tree, its text and its syntax."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.path.parts[0].removesuffix(".py")

    @property
    def is_test(self) -> bool:
        return self.room == "tests"


def sources(root: Path) -> list[Source]:
    """All Python files of the scripts and rooms below `root`; a room has Python files in it."""
    paths = [*root.glob("*.py")]
    for folder in root.iterdir():
        if folder.is_dir() and not folder.name.startswith(".") and any(folder.glob("*.py")):
            paths += folder.rglob("*.py")
    texts = {path.relative_to(root): path.read_text() for path in sorted(paths)}
    return [Source(path, text, ast.parse(text)) for path, text in texts.items()]


def imported_modules(source: Source) -> list[tuple[int, str]]:
    """(line, dotted name) of each import at module level or inside functions, `import_own` and
    registry targets too; of `from a import b` it is a.b, whether b is a module or not."""
    found = []
    for node in ast.walk(source.tree):
        match node:
            case ast.Import(names=names):
                found += [(node.lineno, name.name) for name in names]
            case ast.ImportFrom(module=module, names=names, level=level):
                package = [*(source.path.parts[:-level] if level else ()), *filter(None, [module])]
                found += [(node.lineno, ".".join([*package, name.name])) for name in names]
            case ast.Call(
                func=ast.Name(id="import_own" | "import_module")
                | ast.Attribute(attr="import_own" | "import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                found.append((node.lineno, module))
            case ast.Constant(value=str(text)) if target := TARGET.fullmatch(text):
                found.append((node.lineno, target[1]))
    return found


def arrows(tree: list[Source]) -> list[tuple[Source, int, str]]:
    """(importing file, line, imported room) of all imports from one room into another."""
    rooms = {source.room for source in tree}
    found = {
        (source.path, line, room): (source, line, room)
        for source in tree
        for line, module in imported_modules(source)
        if (room := module.partition(".")[0]) in rooms and room != source.room
    }
    return list(found.values())


def floors_unknown(tree: list[Source]) -> list[str]:
    return sorted({f"{one.room} stands on no floor" for one in tree if one.room not in FLOORS})


def arrows_up(tree: list[Source]) -> list[str]:
    return [
        f"{source.path}:{line}: {source.room} (floor {FLOORS[source.room]}) imports from {room} "
        f"(floor {FLOORS[room]})"
        for source, line, room in arrows(tree)
        if source.room in FLOORS and room in FLOORS and FLOORS[room] > FLOORS[source.room]
    ]


def circles(tree: list[Source]) -> list[str]:
    """The first circle of rooms that import each other."""
    graph: dict[str, set[str]] = {}
    for source, _, room in arrows(tree):
        graph.setdefault(source.room, set()).add(room)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" <- ".join(error.args[1])]
    return []


def long_files(tree: list[Source]) -> list[str]:
    found = []
    for source in tree:
        count = len(source.text.splitlines())
        if count > (MAX_TEST_LINES if source.is_test else MAX_LINES):
            found.append(f"{source.path}: {count} lines")
    return found


def unwieldy_functions(tree: list[Source]) -> list[str]:
    """Functions that are too long or take too much, without a comment that says why."""
    found = []
    for source in tree:
        lines = source.text.splitlines()
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            reason = "\n".join(
                lines[max(node.lineno - 2, 0) : max(node.lineno, node.body[0].lineno - 1)]
            )
            length, parameters = node.end_lineno - node.lineno + 1, parameters_of(node)
            where = f"{source.path}:{node.lineno}: {node.name}"
            if length > MAX_FUNCTION and not LONG.search(reason):
                found.append(f"{where} has {length} lines")
            if parameters > MAX_PARAMETERS and not MANY.search(reason):
                found.append(f"{where} has {parameters} parameters")
    return found


def parameters_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many are named, `self` and `cls` aside."""
    args = function.args
    names = [one.arg for one in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def rooms_that_say_nothing(tree: list[Source]) -> list[str]:
    """Rooms (folders of code) whose `__init__` has no docstring, or that have none."""
    rooms = {one.room for one in tree if len(one.path.parts) > 1} - {"tests", "benchmarks"}
    inits = {one.room: one.tree for one in tree if one.path.parts[1:] == ("__init__.py",)}
    return [
        f"{room}/__init__.py has no docstring"
        for room in sorted(rooms)
        if room not in inits or not ast.get_docstring(inits[room])
    ]


def imports_of_tests(tree: list[Source]) -> list[str]:
    """Imports of test modules, by whatever path they are found."""
    tests = {one.path.stem for one in tree if one.is_test and one.path.stem.startswith("test_")}
    return [
        f"{source.path}:{line}: imports {test}"
        for source in tree
        for line, module in imported_modules(source)
        for test in tests.intersection(module.split("."))
    ]


CHECKS = [
    floors_unknown,
    arrows_up,
    circles,
    long_files,
    unwieldy_functions,
    rooms_that_say_nothing,
    imports_of_tests,
]


@pytest.fixture(scope="module")
def house():
    return sources(PROJECT)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_house_is_in_order(house, check):
    found = check(house)
    assert not found, "\n".join(found)


def test_the_code_is_seen(house):
    assert {"core", "bench", "attackers", "tests", "mia"} <= {source.room for source in house}
    assert {("mia", "bench"), ("attackers", "core")} <= {
        (source.room, room) for source, _, room in arrows(house)
    }


def lay(root: Path, files: dict[str, str]) -> list[Source]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return sources(root)


SOUND = {
    "core/__init__.py": '"""The ground."""\n',
    "core/files.py": "import json\n",
    "models/__init__.py": '"""Networks."""\nfrom core.files import json\n',
    "bench/__init__.py": '"""What stages share."""\n',
    "bench/paths.py": "import models\nfrom bench import paths\n",
    "mia.py": "def main():\n    from bench import paths\n    return 'usage: x, y:z'\n",
    "tests/helpers.py": "",
    "tests/test_mia.py": "import mia\nfrom helpers import x\n",
}
STATEMENT = "    pass\n"
LONG_BODY = STATEMENT * 50
FAULTS = [  # the check that must find it, the file, its text, what is said of it
    (
        arrows_up,
        "core/up.py",
        "import bench.paths",
        "core/up.py:1: core (floor 0) imports from bench",
    ),
    (arrows_up, "core/up.py", "def f():\n    from mia import main", "core/up.py:2: core"),
    (
        arrows_up,
        "core/up.py",
        "class A:\n    def f(self):\n        import mia as m",
        "core/up.py:3",
    ),
    (arrows_up, "core/up.py", "x = import_own('bench.paths')", "core/up.py:1: core"),
    (arrows_up, "core/up.py", "x = imports.import_own('bench.paths')", "core/up.py:1: core"),
    (arrows_up, "core/up.py", "R.register('a', 'bench.paths:x')", "core/up.py:1: core"),
    (arrows_up, "core/up.py", "from bench import paths as p, other", "core/up.py:1: core"),
    (arrows_up, "bench/up.py", "import tests.helpers", "bench/up.py:1: bench"),
    (circles, "core/up.py", "import models.image", "core"),
    (circles, "core/up.py", "def f():\n    import mia", "mia"),
    (floors_unknown, "attic/__init__.py", "", "attic stands on no floor"),
    (floors_unknown, "attic.py", "", "attic stands on no floor"),
    (rooms_that_say_nothing, "core/__init__.py", "x = 1", "core/__init__.py has no docstring"),
    (rooms_that_say_nothing, "pruner/mask.py", "", "pruner/__init__.py has no docstring"),
    (long_files, "core/long.py", "\n" * 401, "core/long.py: 401 lines"),
    (long_files, "tests/core/test_long.py", "\n" * 501, "tests/core/test_long.py: 501 lines"),
    (unwieldy_functions, "mia.py", f"def f():\n{LONG_BODY}", "mia.py:1: f has 51 lines"),
    (unwieldy_functions, "mia.py", f"async def f():  # long:\n{LONG_BODY}", "f has 51 lines"),
    (unwieldy_functions, "mia.py", "def f(a, b, c, /, d, e, *, f, g): ...", "f has 7 parameters"),
    (
        unwieldy_functions,
        "mia.py",
        "class A:\n    def f(self, a, b, c, d, e, f, g): ...",
        "mia.py:2: f has 7 parameters",
    ),
    (
        imports_of_tests,
        "tests/soak.py",
        "from test_mia import x",
        "tests/soak.py:1: imports test_mia",
    ),
    (imports_of_tests, "tests/test_b.py", "import tests.test_mia", "tests/test_b.py:1"),
    (imports_of_tests, "tests/test_b.py", "from tests import test_mia as t", "tests/test_b.py:1"),
    (imports_of_tests, "tests/x/test_b.py", "from ..test_mia import x", "tests/x/test_b.py:1"),
]


@pytest.mark.parametrize(
    "check, name, text, says",
    FAULTS,
    ids=[f"{check.__name__} {n}" for n, (check, *_) in enumerate(FAULTS)],
)
def test_a_planted_fault_is_found(tmp_path, check, name, text, says):
    assert all(not one(lay(tmp_path, SOUND)) for one in CHECKS)
    (found,) = check(lay(tmp_path, {name: text}))
    assert says in found


ALLOWED = {
    "at its limits": f"def f(self, a, b, c, d, e, f, *args, **how):\n{STATEMENT * 49}",
    "with a reason beside it": f"def f():  # long: a table of cases\n{LONG_BODY}",
    "with a reason above": f"# long: a table of cases\ndef f():\n{LONG_BODY}",
    "with a reason behind a long head": f"def f(\n    a,\n):  # long: a table\n{LONG_BODY}",
    "with reasons for both": (
        "# many parameters: users call it\n"
        f"def f(a, b, c, d, e, f, g):  # long: a table\n{LONG_BODY}"
    ),
}


@pytest.mark.parametrize("text", ALLOWED.values(), ids=ALLOWED)
def test_what_has_a_reason_is_let_be(tmp_path, text):
    assert not unwieldy_functions(lay(tmp_path, {"mia.py": text}))


@pytest.mark.parametrize("lines, name", [(400, "core/x.py"), (500, "tests/x.py")])
def test_files_may_be_this_long(tmp_path, lines, name):
    assert not long_files(lay(tmp_path, {name: "\n" * lines}))
