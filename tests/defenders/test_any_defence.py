"""What every defence that is registered must do, whichever it is."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import MADE, make_once, run

import mia
import pretrain
import prune
from defenders import DEFENDERS

IN_PRUNE = [
    name for name in DEFENDERS if name and DEFENDERS[name].options.get("stage", "prune") == "prune"
]
# where so short a training comes to nothing that the default one acts on
STRENGTHS = {"wemem_rmr": ["--defend_arg", "0"]}
ANSWERS_ALONE = {"memguard", "round", "topk", "labelonly"}


@pytest.fixture(autouse=True)
def short_training_of_memguard(monkeypatch):
    monkeypatch.setattr("defenders.memguard.TRAINING_STEPS", 300)


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    return make_once(
        tmp_path_factory.mktemp("trained"), (pretrain,), epochs=4, prune_epochs=2, batch_size=16
    )


@pytest.mark.parametrize("name", IN_PRUNE)
def test_it_trains_another_network_or_only_answers_otherwise_and_keeps_the_masks(
    name, trained_once
):
    path = trained_once.copy_here()
    run(prune, path)
    defence = ["--defend", name, *STRENGTHS.get(name, [])]
    run(prune, path, *defence)
    run(mia, path, *defence, "--adaptive", "--attacks", "threshold")
    (folder,) = MADE.glob(f"l1unstructure_0.7_{name}_*_model")
    weights, plain = (
        torch.load(place / "best.pth", weights_only=True)
        for place in (folder, MADE / "l1unstructure_0.7_model")
    )
    masks = torch.load(folder / "best_mask.pth", weights_only=True)
    same = all(torch.equal(weights[key], plain[key]) for key in weights)
    assert same == (name in ANSWERS_ALONE)
    assert all(torch.isfinite(weight).all() for weight in weights.values())
    assert all(not weights[key][~mask].any() for key, mask in masks.items())
    line = json.loads(Path(folder / "attacks.jsonl").read_text().splitlines()[0])
    assert line["defend"] == name and np.isfinite(line["accuracy"])


@pytest.mark.parametrize("name", list(DEFENDERS))
def test_its_strength_by_default_is_one_that_it_can_have(name):
    options = DEFENDERS[name].options
    low, high = options.get("strengths", (0, np.inf))
    assert (options["default"] is None) == (name == "") and (
        not name or low <= options["default"] <= high
    )


def test_a_strength_beyond_its_bounds_is_refused(write_config, monkeypatch, capsys):
    monkeypatch.setitem(DEFENDERS["ppb"].options, "strengths", (0, 1))
    assert prune.main(["cpu", write_config(), "--defend", "ppb", "--defend_arg", "2"]) == 2
    said = "error: --defend_arg, the strength of ppb, must be from 0 to 1, not 2\n"
    assert capsys.readouterr().err == said


def test_a_strength_that_counts_something_is_a_whole_number(write_config, capsys):
    words = ["--defend", "selena", "--defend_arg"]
    for arg in ("2.5", "1"):
        assert prune.main(["cpu", write_config(), *words, arg]) == 2
        said = f"selena, must be a whole number from 2 to 1000, not {arg}\n"
        assert capsys.readouterr().err.endswith(said)
