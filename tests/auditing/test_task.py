"""Modules of users: what is wrong with them is said in one line, before anything is trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from task_cases import PARTS, release, said, write_task

from auditing.records import read_records
from auditing.task import load_task
from core.console import UserError

DATA = PARTS["data"]


def data(returns):
    return (
        f"{DATA.rpartition('    return')[0]}    member = torch.arange(80) % 2 == 0\n    {returns}\n"
    )


SCALAR = "import numpy as np\n\n" + data("return x, y, member")
BAD = {  # parts of the task, and what is said of it
    "no train": ({"train": None}, "my_task.py lacks train(network, x, y)"),
    "misspelt": (
        {"train": PARTS["train"].replace("train(", "trian(")},
        "on these records, did you mean 'trian'?",
    ),
    "no checkpoint": ({"CHECKPOINT": None}, "lacks CHECKPOINT, the file of the released weights"),
    "two are missing": ({"build": None, "data": None}, "lacks build(), which"),
    "not a function": ({"build": "build = 3"}, "build must be a function, not a int"),
    "checkpoint elsewhere": ({"CHECKPOINT": 'CHECKPOINT = "m.pt"'}, "there is no file"),
    "checkpoint no path": ({"CHECKPOINT": "CHECKPOINT = 3"}, "must be a path such as 'model.pt'"),
    "original alone": ({"more": 'ORIGINAL = "model.pt"'}, "there is no compress(network, x, y)"),
    "no syntax": ({"more": "x = = 3"}, "my_task.py:28: SyntaxError: invalid syntax"),
    "raises": ({"more": "1 / 0"}, "my_task.py:28: ZeroDivisionError: division by zero"),
    "exits": ({"more": "raise SystemExit(0)"}, "my_task.py:28: SystemExit: 0"),
    "data raises": (
        {"data": "def data():\n    return int('three')\n"},
        "my_task.py:22 in data: ValueError: invalid literal",
    ),
    "no such argument": (
        {"data": "def data(folder):\n    pass\n"},
        "my_task.py: TypeError: data()",
    ),
    "build no network": ({"build": "def build():\n    return 3"}, "(nn.Module), not a int"),
    "build nothing": ({"build": "def build():\n    pass"}, "(nn.Module), not None"),
    "data of two": ({"data": data("return x, y")}, "must return three: x, y, and for each record"),
    "a list": ({"data": data("return x.tolist(), y, member")}, "x must be a torch tensor or"),
    "no rows": ({"data": data("return y, y, member")}, "x must be (N, ...), a record a row"),
    "nan": ({"data": data("x[3] = float('nan'); return x, y, member")}, "row 3 of x holds NaN"),
    "labels apart": ({"data": data("return x, y[1:], member")}, "x has N = 80 records, and y is"),
    "one hot": ({"data": data("return x, torch.eye(3)[y], member")}, "y must be (N,), the number"),
    "halves": ({"data": data("return x, y / 2, member")}, "classes 0, 1, 2, ...; y[1] is 0.5"),
    "minus one": ({"data": data("return x, y - 1, member")}, "y[0] is -1"),
    "text": ({"data": data("return x, y.numpy().astype(str), member")}, "y must hold numbers"),
    "members by number": (
        {"data": data("return x, y, member.nonzero()[:, 0]")},
        "member, must hold True or False for each of the 80 records",
    ),
    "all members": (
        {"data": data("return x, y, member | True")},
        "0 of 80 records are non-members",
    ),
    "no members": ({"data": data("return x, y, member & False")}, "0 of 80 records are members"),
    "labels beyond": (
        {"data": data("return x, y + 1, member")},
        "y has label 3, and model.pt answers for 3 classes: labels run from 0 to 2",
    ),
    "another network": (
        {"build": PARTS["build"].replace("16", "8")},
        "do not fit build(): 0.weight is (16, 12), not (8, 12)",
    ),
    "another depth": (
        {"build": PARTS["build"].replace("nn.Dropout(0.5), ", "")},
        "they lack 2.weight, 2.bias; they also have 3.weight, 3.bias",
    ),
    "wants images": (
        {"data": data("return x.reshape(80, 3, 4), y, member")},
        "cannot be asked about x as data() gives it, torch torch.float32 (80, 3, 4)",
    ),
}


@pytest.mark.parametrize("parts, says", BAD.values(), ids=BAD)
def test_a_bad_module_gets_one_line(parts, says, capsys):
    write_task()
    release()
    write_task(**parts)
    before = set(Path.cwd().iterdir())
    line = said(capsys, "my_task.py", "--device", "cpu")
    assert says in line
    assert set(Path.cwd().iterdir()) - before <= {Path.cwd() / "__pycache__"}  # nothing is written


OUTPUTS = {
    "one output": (
        "nn.Linear(12, 1)",
        "returns (80, 1) for 80 records, not (N, C): for two classes",
    ),
    "flat": ("nn.Sequential(nn.Linear(12, 1), nn.Flatten(0))", "returns (80,) for 80 records"),
    "images": (
        "nn.Sequential(nn.Linear(12, 12), nn.Unflatten(1, (3, 4)))",
        "returns (80, 3, 4) for 80 records, not (N, C): one",
    ),
    "two things": ("nn.LSTM(12, 3)", "returns a tuple, not one tensor (N, C)"),
    "nan": ("nn.Sequential(nn.Linear(12, 3), nn.Threshold(9, float('nan')))", "NaN or infinity to"),
}


@pytest.mark.parametrize("network, says", OUTPUTS.values(), ids=OUTPUTS)
def test_outputs_that_are_no_classes_get_one_line(network, says, capsys):
    write_task(build=f"def build():\n    return {network}\n")
    release("\ntorch.save(build().state_dict(), 'model.pt')")
    assert says in said(capsys, "my_task.py", "--device", "cpu")


def test_the_traceback_begins_in_the_users_file(capsys):
    write_task(more="import nowhere_at_all")
    said_before = capsys.readouterr()
    with pytest.raises(UserError, match="my_task.py:28: ModuleNotFoundError"):
        load_task("my_task.py")
    lines = capsys.readouterr().err.splitlines()
    assert "my_task.py" in lines[1] and "importlib" not in lines[1], said_before


def test_a_task_that_is_no_file(capsys):
    assert "task my_tusk.py: No such file" in said(capsys, "my_tusk.py")
    Path("task.txt").write_text("x")
    assert "must be a Python file such as my_task.py" in said(capsys, "task.txt")


def test_names_of_this_repository_are_free():
    """A user's `models.py` and packages called `datasets` or `core` are found in place of ours, at
    import and in calls, and ours are ours again behind that."""
    import datasets
    import models

    Path("models.py").write_text("LAYERS = 4\n")
    Path("core").mkdir()
    Path("core/__init__.py").write_text("")
    Path("core/console.py").write_text("UserError = 'theirs'\n")
    write_task(
        more="from models import LAYERS\nimport core.console\nSEEN = core.console.UserError\n",
        data="def data():\n    import models\n    import core.console\n"
        "    assert models.LAYERS == LAYERS and core.console.UserError == SEEN\n"
        + DATA.partition("\n")[2],
    )
    torch.save({}, "model.pt")
    task = load_task("my_task.py")
    assert task.module.SEEN == "theirs" and task.module.LAYERS == 4
    assert len(read_records(task).labels) == 80
    import core.console
    import models as again

    assert again is models and core.console.UserError is UserError
    assert datasets.split is __import__("datasets").split


def test_ours_are_not_found_where_they_have_none():
    torch.save({}, "model.pt")
    write_task(more="import quantize")
    with pytest.raises(UserError, match="No module named 'quantize'"):
        load_task("my_task.py")


def source(**parts):
    write_task(**parts)
    return load_task("my_task.py").source


def test_which_changes_make_other_models():
    Path("layers.py").write_text("WIDTH = 3\n")
    torch.save({}, "model.pt")
    torch.save({}, "other.pt")
    imports = "import layers\n"
    first = source(more=imports)
    assert source(more=imports + "# a comment\n") == first
    assert source(more=imports, CHECKPOINT='CHECKPOINT = "other.pt"') == first
    assert source(more=imports, train=PARTS["train"].replace("range(5)", "range(6)")) != first
    Path("layers.py").write_text("WIDTH = 4\n")
    import sys

    sys.modules.pop("layers")
    assert source(more=imports) != first


@pytest.mark.parametrize("kind", ["tensors", "arrays"])
def test_records_of_either_kind(kind):
    x, y = np.random.default_rng(0).normal(size=(30, 2, 3)), np.arange(30) % 4
    returns = (
        "x, y, np.arange(30) < 10" if kind == "arrays" else "T(x), T(y), T(np.arange(30) < 10)"
    )
    np.savez("records.npz", x=x, y=y)
    torch.save({}, "model.pt")
    write_task(
        data="import numpy as np\nT = torch.from_numpy\n\ndef data():\n"
        f"    x, y = map(np.load('records.npz').get, 'xy')\n    return {returns}\n"
    )
    records = read_records(load_task("my_task.py"))
    rows = np.array([4, 29, 7])
    part = records.part(rows, torch.device("cpu"))
    assert all(isinstance(one, torch.Tensor) == (kind == "tensors") for one in part)
    assert (np.asarray(part[0]) == x[rows]).all() and (np.asarray(part[1]) == y[rows]).all()
    assert records.labels.tolist() == y.tolist() and records.member.sum() == 10


def test_copies_of_members_are_counted():
    torch.save({}, "model.pt")
    write_task(data=data("x[[1, 3, 5]] = x[[0, 0, 7]]; return x, y, member"))
    assert read_records(load_task("my_task.py")).twice() == 2
