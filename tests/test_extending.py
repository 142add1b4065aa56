"""The examples of docs/extending.md, put into a copy of the code as a reader would, and run."""

import re
import subprocess
import sys

import pytest
from helpers import PROJECT

from studies.runners import copy_code

BLOCKS = re.findall(r"```python\n(.*?)```", (PROJECT / "docs/extending.md").read_text(), re.DOTALL)


@pytest.mark.slow
def test_the_examples_of_the_documentation_run(tmp_path, write_config):
    code = tmp_path / "code"
    copy_code(PROJECT, code)
    attack, attack_line, defence, defence_line, pruner, pruner_line = BLOCKS
    (code / "attackers/logit.py").write_text(attack)
    registry = (code / "attackers/__init__.py").read_text()
    assert registry.count("\nVERDICTS = ") == 1
    (code / "attackers/__init__.py").write_text(
        registry.replace("\nVERDICTS = ", f"\n{attack_line}\nVERDICTS = ")
    )
    (code / "defenders/entropy.py").write_text(defence)
    append(code / "defenders/__init__.py", defence_line)
    append(code / "pruner/scores.py", pruner)
    append(code / "pruner/__init__.py", pruner_line)

    def run(stage, *words):
        command = [sys.executable, code / f"{stage}.py", *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "logit " in run("mia", "--help") and "maxstructure" in run("prune", "--help")
    path = write_config(epochs=2)  # so that fine-tuning has one
    run("pretrain", "cpu", path)
    run("prune", "cpu", path, "--defend", "entropy")
    said = run("mia", "cpu", path, "--attacks", "logit", "--defend", "entropy", "--adaptive")
    assert "logit: saved" in said and "entropy 0.1, adaptive" in said
    images = [PROJECT / "config/digits_resnet18.json", "--shadow_num", "1", "--results", "images"]
    run("pretrain", "cpu", *images, "--epochs", "1")
    table = run("prune", "cpu", *images, "--pruner_name", "maxstructure", "--prune_epochs", "0")
    assert "maxstructure_0.7" in table and re.search(r"victim .* (69|70)\.\d$", table, re.MULTILINE)


def append(path, text):
    path.write_text(f"{path.read_text()}\n\n{text}")
