"""The example of docs/audit.md, and what it says of the files."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PROJECT

import audit
from auditing.evidence_file import NAMES
from auditing.weaknesses import ENOUGH_OF_A_KIND, ENOUGH_SHADOWS
from auditing.written import JSON, PAGE, RECORDS, XML

TEXT = (PROJECT / "docs/audit.md").read_text()
ANSWERS = TEXT.partition("## From answers")[2].partition("\n## ")[0]


@pytest.mark.slow
def test_the_example_of_scikit_learn_runs():
    (code,) = re.findall(r"```python\n(.*?)```", ANSWERS, re.DOTALL)
    assert len(code.splitlines()) <= 13  # ten lines beside the imports
    command = re.findall(r"```\n(python .*?)```", ANSWERS, re.DOTALL)[0]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], env=one_thread, check=True)
    _, script, *words = shlex.split(command)
    assert script == "audit.py" and audit.main(words) == 0
    content = json.loads(Path("audit/audit.json").read_text())
    aucs = {one["name"]: one["measures"]["auc"] for one in content["attacks"]}
    said = {name: int(auc) for name, auc in re.findall(r"`(\w+)`: (?:AUC )?(\d+)", ANSWERS)}
    assert said.keys() == {"loss", "rmia"}
    for name, auc in said.items():  # the last digits are scikit-learn's
        assert 100 * aucs[name] == pytest.approx(auc, abs=2)
    assert content["subject"]["shadows"] == 16 and content["outcome"] == "pass"
    assert {path.name for path in Path("audit").iterdir()} == {JSON, XML, RECORDS, PAGE}


def test_arrays_files_and_numbers_are_named():
    table = "".join(line.split("|")[1] for line in ANSWERS.splitlines() if line.startswith("|"))
    named = set(re.findall(r"`(\w+)`", table)) - {"_logits"}
    assert {name for name in NAMES if not name.startswith("original")} <= named <= set(NAMES)
    assert all(f"`{name}`" in TEXT for name in (JSON, XML, RECORDS, PAGE))
    assert f"fewer than {ENOUGH_SHADOWS}, or half of the targets have fewer than" in TEXT
    assert f"fewer than {ENOUGH_OF_A_KIND} that were trained with them" in TEXT
