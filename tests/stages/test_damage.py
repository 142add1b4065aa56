"""Damaged files and pickles: the same results as ever, or a line that says what is wrong."""

import hashlib
import json
import pickle
import random
from pathlib import Path

import pytest
from faults import (
    ATTACKS,
    READ_BY,
    STAGES,
    WORDS,
    Planted,
    damage,
    damaged_copies,
    flipped,
    interrupt_after,
    outcome,
    printed_table,
    resume_states,
    torch_saved,
)
from helpers import MADE, files, make_once, run

import mia
import pretrain
import prune
from base_model import BaseModel

pytestmark = pytest.mark.survive


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    stages = [(STAGES[stage], *WORDS[stage]) for stage in STAGES]
    return make_once(tmp_path_factory.mktemp("made"), *stages, epochs=2, attacks=ATTACKS)


@pytest.fixture
def made(made_once):
    """The path of a config, with all that its stages make."""
    return made_once.copy_here()


def test_what_was_removed_is_made_again(made):
    before = files()
    for file in (
        "victim_model/best.pth",
        "l1unstructure_0.7_adv_1_model/best_mask.pth",
        "shadow_model_0/manifest.json",
        "l1unstructure_0.7_adv_1_model/attacks.jsonl",
        "l1unstructure_0.7_adv_1_model/scores.npz",
        "l1unstructure_0.7_adv_1_model/logits.npz",
    ):
        (MADE / file).unlink()
    for stage in STAGES:
        assert outcome(stage, made)[0] == 0
    assert files() == before


def test_lines_that_are_gone_are_missed(made):
    file = MADE / "l1unstructure_0.7_adv_1_model/attacks.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    for left in ([], lines[:-1], lines[1:], lines + lines[:1]):
        file.write_text("".join(left))
        status, _, error = outcome("mia", made)
        assert status == 2 and "attacks.jsonl: lines are missing: mia.py --fresh" in error


@pytest.mark.parametrize("file", READ_BY)
def test_damage_is_named_or_harmless(made, file):
    assert damage(file, made, random.Random(file), attempts=12) >= 8


@pytest.mark.parametrize("what", ["logits", "sensitivity", "generated", "copies", "distances"])
@pytest.mark.usefixtures("short_attack_training")
def test_damaged_answers_are_named_or_harmless(write_config, what):
    """They are read when an attack is made of models that were asked before."""
    attacks = {"copies": "noise_robustness", "distances": "boundary"}.get(what, "blindmi,samia")
    path, draw = write_config(epochs=2, attacks=attacks), random.Random(what)
    for stage in STAGES:
        run(STAGES[stage], path, *WORDS[stage])
    file = MADE / "l1unstructure_0.7_adv_1_model" / f"{what}.npz"
    found, whole, noticed = file.with_name("attacks.jsonl"), file.read_bytes(), 0
    right = printed_table(outcome("mia", path)[1])
    for damaged in damaged_copies(whole, draw, attempts=12):
        found.unlink()
        file.write_bytes(damaged)
        status, out, error = outcome("mia", path)
        if status == 0:
            assert printed_table(out) == right
        else:
            noticed += 1
            assert (
                status == 2 and error.count("\n") == 1 and file.name in error and not found.exists()
            ), error
            file.write_bytes(whole)
            assert outcome("mia", path)[0] == 0
    assert noticed >= 8


def test_a_damaged_state_is_named(write_config, monkeypatch, capsys):
    path = write_config(epochs=6, save_every=0)
    with monkeypatch.context() as patched:
        patched.setattr(BaseModel, "accuracies", interrupt_after(4, BaseModel.accuracies))
        assert pretrain.main(["cpu", path]) == 130
    (state,) = resume_states()
    whole = state.read_bytes()
    draw = random.Random(0)
    damages = [whole[: draw.randrange(len(whole))] for _ in range(4)] + [b""]
    damages += [flipped(whole, draw) for _ in range(8)]
    evil = torch_saved(Planted())  # with the right digest, too
    for damaged in (*damages, evil, hashlib.sha256(evil).digest() + evil):
        state.write_bytes(damaged)
        capsys.readouterr()
        assert pretrain.main(["cpu", path]) == 2
        assert f"cannot read {state}" in capsys.readouterr().err and not Path("planted").exists()
    state.write_bytes(whole)
    run(pretrain, path)


@pytest.mark.parametrize("file", READ_BY)
def test_a_pickle_in_place_of_any_file_does_not_run(made, capsys, file):
    for planted in (pickle.dumps(Planted()), torch_saved(Planted())):
        (MADE / file).write_bytes(planted)
        for stage in READ_BY[file]:
            assert STAGES[stage].main(["cpu", made, *WORDS[stage]]) == 2
            assert Path(file).name in capsys.readouterr().err
    assert not Path("planted").exists()


def test_a_pickle_with_the_right_digest_does_not_run_either(made, capsys):
    from core import files as files_module

    folder = MADE / "victim_model"
    (folder / "best.pth").write_bytes(torch_saved(Planted()))
    said = json.loads((folder / "manifest.json").read_text())
    del said["sha256"]
    said["files"]["best.pth"] = hashlib.sha256((folder / "best.pth").read_bytes()).hexdigest()
    (folder / "manifest.json").write_bytes(files_module.sealed_json(said))
    assert prune.main(["cpu", made]) == 2
    assert "best.pth (UnpicklingError)" in capsys.readouterr().err and not Path("planted").exists()


@pytest.mark.parametrize("replaced", ["l1unstructure_0.7_adv_1_model", "shadow_model_0"])
def test_weights_are_read_where_a_model_is_asked_and_nowhere_else(made, capsys, replaced):
    """Attacks that are recorded need no weights; made again, they name those that are damaged."""
    words = ["cpu", made, *WORDS["mia"]] if "adv" in replaced else ["cpu", made, "--original"]
    assert mia.main([*words, "--attacks", "threshold"]) == 0
    (MADE / replaced / "best.pth").write_bytes(torch_saved(Planted()))
    assert mia.main([*words, "--attacks", "threshold"]) == 0
    assert "threshold: kept" in capsys.readouterr().out
    assert mia.main([*words, "--attacks", "threshold", "--fresh"]) == 2
    assert "best.pth" in capsys.readouterr().err and not Path("planted").exists()
