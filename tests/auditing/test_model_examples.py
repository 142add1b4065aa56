"""The examples of docs/audit.md, as they stand there."""

from pathlib import Path

import numpy as np
import pytest
from task_cases import InThisProcess, audit_model, examples, release

from auditing import training
from auditing.task import FUNCTIONS

DIGITS, MAKES, RESNET = examples()


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.setattr(training, "Local", InThisProcess)


def warnings(capsys):
    return [
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith(
            ("warning", "weak: the released", "weak: train", "weak: class", "weak: shadow")
        )
    ]


def test_digits_with_a_network_of_ten_lines(capsys):
    Path("my_task.py").write_text(DIGITS)
    release("\n" + MAKES.replace("from my_task import *\n", ""))
    assert audit_model("my_task.py", "--shadow_num", 4, "--device", "cpu") == 0
    assert not warnings(capsys)
    with np.load("audit/evidence.npz") as file:
        assert file["shadows_logits"].shape == (4, 1797, 10)
        right = file["victim_logits"].argmax(axis=1) == file["labels"]
        assert right[file["member"]].mean() > 0.99 and right[~file["member"]].mean() > 0.9


def test_a_torchvision_resnet(capsys):
    Path("my_task.py").write_text(RESNET)
    release(
        "\ntorch.manual_seed(0)\nx, y, member = data()\nnetwork = build()\n"
        "train(network, x[member], y[member])\ncompress(network, x, y)\n"
        "torch.save(network.state_dict(), CHECKPOINT)\n"
    )
    assert audit_model("my_task.py", "--shadow_num", 2, "--device", "cpu") == 0
    with np.load("audit/evidence.npz") as file:
        assert file["shadows_logits"].shape == (2, 240, 10)


def test_the_examples_are_short():
    """Ten lines beside what says what the model is."""
    assert all(f"def {name}(" in DIGITS for name in FUNCTIONS)
    code = [line for line in DIGITS.splitlines() if line.strip()]
    heads = [line for line in code if line.startswith(("def ", "import ", "from "))]
    assert len(code) - len(heads) <= 10
