"""Tasks of users, as files, and what is made of them."""

import contextlib
import re
import runpy
from pathlib import Path

from helpers import PROJECT

import audit
from auditing import shadows

# a network that is trained for a moment on 80 records of 12 numbers in 3 classes
PARTS = {
    "head": "import torch\nfrom torch import nn\nfrom torch.nn.functional import cross_entropy\n",
    "CHECKPOINT": 'CHECKPOINT = "model.pt"\n',
    "build": (
        "def build():\n"
        "    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))\n"
    ),
    "train": (
        "def train(network, x, y):\n"
        "    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)\n"
        "    for _ in range(5):\n"
        "        optimiser.zero_grad()\n"
        "        cross_entropy(network(x), y).backward()\n"
        "        optimiser.step()\n"
    ),
    "data": (
        "def data():\n"
        "    draw = torch.Generator().manual_seed(1)\n"
        "    x, y = torch.randn(80, 12, generator=draw), torch.arange(80) % 3\n"
        "    x += 2 * torch.eye(12)[y]\n"
        "    return x, y, torch.arange(80) % 2 == 0\n"
    ),
}
OUT = ("--out", "audit")
RELEASE = """
torch.manual_seed(0)
x, y, member = data()
network = build()
train(network, x[member], y[member])
torch.save(network.state_dict(), "model.pt")
"""


def write_task(name="my_task.py", **changes):
    """Write a task into this folder, with parts of it changed (None: left out)."""
    parts = PARTS | changes
    Path(name).write_text("\n\n".join(part for part in parts.values() if part is not None))
    return name


def release(code=RELEASE, name="my_task.py"):
    """Run the task's file, and what makes its released weights."""
    Path("release.py").write_text(Path(name).read_text() + code)
    return runpy.run_path("release.py")


def audit_model(*words):
    """Run `audit.py model`; returns its exit status."""
    return audit.main(["model", *map(str, words), *(() if "--out" in words else OUT)])


def said(capsys, *words):
    """The line of the error with which `audit.py model` ends."""
    assert audit_model(*words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def examples():
    """The Python files in the documentation of an audit from a model."""
    text = (PROJECT / "docs/audit.md").read_text()
    section = text.partition("## From a model\n")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)


class InThisProcess:
    """A runner that trains at once; stands for `studies.runners.Local`."""

    capacity = 1

    def __init__(self, **_):
        self.running = {}

    def start(self, job):
        with (
            open(job.log, "w") as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            self.running = {job: shadows.main(job.argv)}

    def finished(self, timeout):
        while self.running:
            yield self.running.popitem()

    def stop(self):
        pass
