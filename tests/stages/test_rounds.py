"""Iterative pruning: rounds that follow each other, rewinding, and the epochs kept for it."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from faults import interrupt_after
from helpers import MADE, files, lines, manifest, run

import bench.pruning
import mia
import pretrain
import prune
import prune_dp
from base_model import BaseModel
from bench.command_line import parse
from bench.pruning import sparsity_of
from core.files import sealed_json

ROUNDS = ("--prune_iterations", "3")


def state(folder, file="best.pth"):
    return torch.load(MADE / folder / file, weights_only=True)


def test_each_round_leaves_the_same_share_of_what_the_one_before_left():
    left = [1 - sparsity_of(number, 5, 0.9) for number in range(1, 6)]
    shares = np.divide(left, [1.0, *left[:-1]])
    assert shares == pytest.approx(0.1**0.2) and left[-1] == 1 - 0.9
    assert sparsity_of(1, 1, 0.7) == 0.7


def test_rounds_end_with_as_many_weights_as_one_shot_and_go_on_from_the_best_of_each(
    write_config, monkeypatch
):
    path, starts = write_config(shadow_num=1, prune_epochs=2), []
    run(pretrain, path)
    run(prune, path)
    train = BaseModel.train

    def spied(self, *args, **how):
        before = {name: one.clone() for name, one in self.network.state_dict().items()}
        history = train(self, *args, **how)
        after = {name: one.clone() for name, one in self.network.state_dict().items()}
        starts.append((before, after, self.masks))
        return history

    monkeypatch.setattr(BaseModel, "train", spied)
    run(prune, path, *ROUNDS)
    assert manifest("l1unstructure_0.7_x3_model")["options"]["prune_iterations"] == 3
    masks, one_shot = (
        state(folder, "best_mask.pth")
        for folder in ("l1unstructure_0.7_x3_model", "l1unstructure_0.7_model")
    )
    assert {name: int(one.sum()) for name, one in masks.items()} == {
        name: int(one.sum()) for name, one in one_shot.items()
    }
    assert any(not torch.equal(masks[name], one_shot[name]) for name in masks)
    of_victim = starts[:3]
    for (_, best, wide), (begun, _, narrow) in pairwise(of_victim):
        for name, mask in narrow.items():
            assert not (mask & ~wide[name]).any() and mask.sum() < wide[name].sum()
            assert torch.equal(begun[name], best[name] * mask)
    final = state("l1unstructure_0.7_x3_model")
    assert all(torch.equal(final[name], of_victim[-1][1][name]) for name in final)


def test_without_training_rounds_come_to_one_shot(write_config):
    path = write_config(shadow_num=1, prune_epochs=0)
    run(pretrain, path)
    run(prune, path)
    run(prune, path, *ROUNDS)
    one, three = (state(f"l1unstructure_0.7{rounds}_model") for rounds in ("", "_x3"))
    assert all(torch.equal(one[name], three[name]) for name in one)


def test_rewinding_starts_each_round_from_the_weights_that_were_kept(write_config):
    path = write_config(shadow_num=1, prune_epochs=0)
    run(pretrain, path, "--keep_epochs", "2,0")
    run(prune, path, *ROUNDS, "--rewind", "0")
    run(prune, path, "--rewind", "2")
    for folder, epoch in (
        ("l1unstructure_0.7_x3_rewind0_model", 0),
        ("l1unstructure_0.7_rewind2_model", 2),
    ):
        kept, masks = state("victim_model", f"epoch_{epoch}.pth"), state(folder, "best_mask.pth")
        for name, weight in state(folder).items():
            assert torch.equal(weight, kept[name] * masks.get(name, torch.tensor(True)))
    assert torch.load(MADE / "victim_model/best.pth", weights_only=True).keys() == kept.keys()
    run(mia, path, *ROUNDS, "--rewind", "0", "--attacks", "threshold")
    assert lines("l1unstructure_0.7_x3_rewind0_model")[0]["rewind"] == 0


def test_the_epochs_kept_are_those_of_shorter_trainings(write_config):
    path = write_config(shadow_num=1, early_stop=0)
    run(pretrain, path, "--keep_epochs", "0,1")
    kept = state("victim_model", "epoch_1.pth")
    run(pretrain, path, "--epochs", "1", "--results", "short", "--keep_epochs", "1")
    short = torch.load("short/tiny_columnfc/victim_model/epoch_1.pth", weights_only=True)
    assert all(torch.equal(kept[name], short[name]) for name in kept)
    start = state("victim_model", "epoch_0.pth")
    assert not any(torch.equal(start[name], kept[name]) for name in kept)


@pytest.mark.parametrize("words", [ROUNDS, (*ROUNDS, "--rewind", "1")])
@pytest.mark.parametrize("after", [3, 5, 8])
def test_a_killed_run_goes_on_in_its_round(write_config, monkeypatch, words, after):
    path = write_config(shadow_num=1, prune_epochs=3, save_every=0)
    run(pretrain, path, "--keep_epochs", "1")
    run(prune, path, *words)
    whole = files()
    for old in MADE.glob("*_x3*"):
        for file in old.iterdir():
            file.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(BaseModel, "accuracies", interrupt_after(after, BaseModel.accuracies))
        assert prune.main(["cpu", path, *words]) == 130
    assert list(MADE.rglob("*.resume"))
    run(prune, path, *words)
    assert files() == whole


@pytest.mark.parametrize(
    "stage, words, said",
    [
        (prune, ["--rewind", "1"], "epoch_1.pth was not kept"),
        (prune, ["--prune_iterations", "0"], "must be a whole number from 1 to 100"),
        (pretrain, ["--keep_epochs", "1,x"], "must be whole numbers from 0, separated by commas"),
        (pretrain, ["--keep_epochs", "1"], "epoch_1.pth was not kept: to make it run"),
        (prune_dp, ["--from_scratch", "--rewind", "0"], "of which --from_scratch uses none"),
        (prune_dp, ["--pruner_name", "wanda"], "wanda looks at train records"),
        (prune, ["--pruner_name", "nm24"], "nm24 has sparsity 0.5 by definition"),
    ],
)
def test_what_does_not_fit_is_said(write_config, capsys, stage, words, said):
    path = write_config(shadow_num=1)
    run(pretrain, path)
    assert stage.main(["cpu", path, *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_each_round_has_its_share_of_the_epochs_by_default(write_config):
    path = write_config(epochs=100)
    assert parse("prune", ["cpu", path, "--prune_iterations", "5"]).prune_epochs == 10
    assert parse("prune", ["cpu", path, "--prune_iterations", "60"]).prune_epochs == 1
    assert parse("prune", ["cpu", path]).prune_epochs == 50


def test_private_steps_of_all_rounds_count(write_config):
    path = write_config(shadow_num=1, prune_epochs=2)
    run(pretrain, path)
    for words in ((), ("--prune_iterations", "2")):
        run(prune_dp, path, "--defend_arg", "1", *words)
    once, twice = (
        manifest(f"l1unstructure_0.7{rounds}_dp_1_model")["privacy"] for rounds in ("", "_x2")
    )
    assert twice["steps"] == 2 * once["steps"] and twice["epsilon"] > once["epsilon"]


def test_a_state_of_other_masks_is_left_aside(write_config, monkeypatch):
    """As where a score is not made of the seed alone: best weights and masks stay of one kind."""
    path = write_config(shadow_num=1, prune_epochs=3, save_every=0)
    run(pretrain, path)
    with monkeypatch.context() as patch:
        patch.setattr(BaseModel, "accuracies", interrupt_after(2, BaseModel.accuracies))
        assert prune.main(["cpu", path, "--pruner_name", "random"]) == 130
    real = bench.pruning.generator
    monkeypatch.setattr(bench.pruning, "generator", lambda seed, *purpose: real(seed + 1, *purpose))
    run(prune, path, "--pruner_name", "random")
    weights, masks = state("random_0.7_model"), state("random_0.7_model", "best_mask.pth")
    assert all(not weights[name][~mask].any() for name, mask in masks.items())


def test_models_from_before_there_were_rounds_are_kept_and_attacked(write_config, capsys):
    path = write_config(shadow_num=1)
    run(pretrain, path)
    run(prune, path)
    run(mia, path, "--attacks", "threshold")
    for place in MADE.glob("*_model*/manifest.json"):
        told = json.loads(place.read_text())
        del told["sha256"], told["options"]["prune_iterations"], told["options"]["rewind"]
        place.write_bytes(sealed_json(told))
    before = files()
    run(prune, path)
    run(mia, path, "--attacks", "threshold")
    assert capsys.readouterr().out.count("kept") >= 3 and files() == before
