"""--norm: what it makes, what is not mixed, and what it is not for."""

import json
from pathlib import Path

import pytest
import torch
from helpers import files, make_once, run, write_images

import mia
import pretrain
import prune
import prune_dp
import quantize
from core.files import sealed_json

MADE = Path("results/tiny_resnet18")


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    """Originals with GroupNorm."""
    folder = tmp_path_factory.mktemp("norm")
    config = dict(data_path=write_images(folder), model_name="resnet18", input_dim=1)
    config |= dict(epochs=2, shadow_num=1, batch_size=8)
    return make_once(folder, (pretrain, "--norm", "group"), **config)


def test_they_are_pruned_quantised_trained_privately_and_attacked(made_once):
    path = made_once.copy_here()
    weights = torch.load(MADE / "victim_model/best.pth", weights_only=True)
    assert "bn1.weight" in weights and not [name for name in weights if "running" in name]
    run(prune, path, "--norm", "group")
    run(quantize, path, "--norm", "group", "--quantizer", "int8")
    run(mia, path, "--norm", "group", "--attacks", "gap")
    words = ["--norm", "group", "--defend_arg", "1", "--from_scratch"]
    run(prune_dp, path, *words)
    words += ["--defend", "dp", "--adaptive", "--attacks", "gap"]
    run(mia, path, *words)
    folder = MADE / "l1unstructure_0.7_dp_1_scratch_model"
    assert json.loads((folder / "manifest.json").read_text())["options"]["norm"] == "group"
    moved = torch.load(folder / "best.pth", weights_only=True)
    assert not moved["bn1.weight"].eq(1).all()


@pytest.mark.parametrize(
    "main, words",
    [
        (pretrain, []),
        (prune, []),
        (prune_dp, ["--defend_arg", "1"]),
        (mia, ["--original", "--attacks", "gap"]),
    ],
)
def test_they_are_not_taken_for_networks_with_batchnorm(main, words, made_once, capsys):
    path = made_once.copy_here()
    before = files()
    assert main.main(["cpu", path, *words]) == 2
    error = capsys.readouterr().err
    assert "was made with norm 'group' (now 'batch'): to use it give --norm group;" in error
    assert error.count("\n") == 1 and files() == before


def test_models_from_before_the_option_have_batchnorm(made_once, capsys):
    path = made_once.copy_here()
    run(pretrain, path, "--fresh")
    for manifest in MADE.glob("*/manifest.json"):
        told = json.loads(manifest.read_text())
        del told["options"]["norm"], told["sha256"]
        manifest.write_bytes(sealed_json(told))
    run(prune, path)
    assert prune.main(["cpu", path, "--norm", "group"]) == 2
    assert "was made with norm 'batch' (now 'group')" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes, words, says",
    [
        (
            {"model_name": "resnet18"},
            ["--pruner_name", "slim"],
            "resnet18 with --norm group has none",
        ),
        ({}, [], "columnfc has no BatchNorm that another normalisation could replace"),
        ({"norm": "layer"}, [], "norm must be 'batch' or 'group', not 'layer'"),
    ],
)
def test_a_mistake_gets_one_line(changes, words, says, write_config, capsys):
    path = write_config(**{"norm": "group"} | changes)
    assert prune.main(["cpu", path, *words]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


@pytest.mark.parametrize("norm, same", [("batch", True), ("group", False)])
def test_seeds_are_as_before_where_it_is_not_asked_for(norm, same, write_config):
    from bench.command_line import parse

    path = write_config(model_name="resnet18", norm=norm)
    assert ("norm" not in parse("prune_dp", ["cpu", path]).seed_record) == same
