"""Attacks on arrays beside other packages that have the names of this repository's modules."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PROJECT

from core import imports

NAMES = (
    "datasets",
    "models",
    "transformer",
    "files",
    "store",
    "report",
    "options",
    "console",
    "workers",
    "registry",
    "base_model",
    "defenders",
    "pruner",
    "core",
    "bench",
)
NOTEBOOK = """
import sys
if BEFORE:
    import NAMES
sys.path.append(PROJECT)
import numpy as np
from attackers import ATTACKS, Evidence, LabelOnlyEvidence, attack
r = np.random.default_rng(0)
N, C, S = 200, 3, 6
member = np.zeros((S, N), bool)
for s in range(0, S, 2):
    member[s, r.permutation(N)[:100]] = True
    member[s + 1] = ~member[s]
def posteriors(*shape):
    z = r.random((*shape, C))
    return z / z.sum(-1, keepdims=True)
labels = r.integers(0, C, N)
e = Evidence.from_posteriors(labels, victim=posteriors(N), shadows=posteriors(S, N), member=member, target=np.arange(N) < 150,
                x=r.random((N, 4)).astype(np.float32), sensitivity=(r.random((N, C)), r.random((S, N, C))),
                distillation=(posteriors(2, N), posteriors(S, 2, N)),
                generated=(posteriors(20), labels[:20]), also=dict(original=(posteriors(N), posteriors(S, N))))
classes = r.integers(0, C, (S + 1, 2, 3, N))
c = LabelOnlyEvidence.from_classes(labels, victim=classes[0, 0, 0], shadows=classes[1:, 0, 0], member=member, target=np.arange(N) < 150,
                copies=(classes[0], classes[1:]), distances=(r.random(N), r.random((S, N))))
for name in ATTACKS if BEFORE else ("threshold", "rmia", "nn_top3"):
    # these take long; their modules are those of nn_top3 and loss_trajectory
    if name not in ("samia", "nn", "nn_cls", "nn_joint", "seqmia"):
        seen = c if "label_only" in ATTACKS[name].options else e
        assert all(verdict.scores.shape == (150,) for verdict in attack(name, seen).values()), name
ATTACKS.load("samia")
import NAMES
assert {NAMES} == {"another"}
"""


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False])
def test_attacks_on_arrays_work_beside_packages_of_the_same_names(before, tmp_path):
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("who = 'another'\n")
    program = NOTEBOOK.replace("BEFORE", str(before)).replace("PROJECT", repr(str(PROJECT)))
    program = program.replace("{NAMES}", "{" + ", ".join(f"{name}.who" for name in NAMES) + "}")
    done = subprocess.run(
        [sys.executable, "-c", program.replace("NAMES", ", ".join(NAMES))],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_modules_are_loaded_once_where_nobody_else_has_their_names():
    program = (
        "import base_model, datasets\nfrom attackers import ATTACKS\nloss = ATTACKS.load('qmia').__globals__\n"
        "assert loss['BaseModel'] is base_model.BaseModel and loss['Records'] is datasets.Records\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_repository_is_listed_once(monkeypatch):
    """Networks, defences and attacks are looked up by name for each model: a listing a loaded module took a second."""
    listings, glob = [], Path.glob
    monkeypatch.setattr(
        Path, "glob", lambda folder, pattern: listings.append(folder) or glob(folder, pattern)
    )
    for _ in range(2):
        imports.import_own("models.layers")
    assert len(listings) <= 2  # of modules and of packages, where nobody asked before
