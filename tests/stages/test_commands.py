"""The command that an error prints makes what is missing, and trains nothing else anew."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import table_arrays

import mia
import pretrain
import prune
import prune_dp
from bench.command_line import parse
from bench.remedies import precision_unless_default
from pruner import mask

STAGES = {"pretrain.py": pretrain, "prune.py": prune, "prune_dp.py": prune_dp, "mia.py": mia}
MADE = Path("results/tiny_columnfc")
TRAINED = [
    "--seed",
    "3",
    "--epochs",
    "2",
    "--batch_size",
    "32",
    "--lr",
    "0.02",
    "--shadow_num",
    "4",
]


def run(stage, *words):
    assert stage.main(["cpu", *words]) == 0


def advice(capsys, stage, *words):
    """The command that a stage prints when it cannot do what it is asked to, and the whole line."""
    capsys.readouterr()
    assert stage.main(["cpu", *words]) == 2
    error = capsys.readouterr().err
    [command] = re.findall("`(.*?)`", error)
    return shlex.split(command)[1:], error


def follow(capsys, stage, *words):
    """Do as each error says, until the stage has what it needs; the commands that this took."""
    commands = []
    while stage.main(["cpu", *words]) != 0:
        [command] = re.findall("`(.*?)`", capsys.readouterr().err)
        assert command not in commands and len(commands) < 4
        commands.append(command)
        script, *rest = shlex.split(command)[1:]
        assert STAGES[script].main(rest) == 0, command
    return commands


def models():
    return {str(path.relative_to(MADE)): path.read_bytes() for path in MADE.rglob("manifest.json")}


@pytest.fixture
def path(write_config):
    """A config whose models were trained, and pruned for 2 of them, otherwise than it says."""
    path = write_config(epochs=30, attacks="gap")
    run(pretrain, path, *TRAINED)
    run(prune, path, "--seed", "3", "--prune_epochs", "1", "--weight_decay", "0.001")
    return path


@pytest.mark.parametrize(
    "words, takes, epochs",
    [
        (
            ["--shadow_num", "6"],
            ["pretrain.py", "prune.py"],
            "--prune_epochs 1",
        ),  # more than were trained
        (["--shadow_num", "3"], ["prune.py"], "--prune_epochs 1"),  # more than were pruned
        (["--defend", "ppb"], ["prune.py"], "--prune_epochs 1"),
        (["--defend", "dp", "--defend_arg", "2"], ["prune_dp.py"], "--prune_epochs 1"),
        (["--prune_sparsity", "0.5"], ["prune.py"], "--epochs 2"),  # as the originals
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_missing_is_made_like_what_is_there(words, takes, epochs, path, capsys):
    before = models()
    commands = follow(capsys, mia, path, "--seed", "3", *words)
    assert [command.split()[1] for command in commands] == takes
    assert f" {epochs} " in f"{commands[-1]} " and " --seed 3 " in f"{commands[-1]} "
    after = models()
    assert before.items() <= after.items() and len(after) > len(before)  # none has been made anew


def test_shadows_of_an_attacker_who_does_not_know_are_made_like_the_defended(write_config, capsys):
    path = write_config(epochs=30)
    run(pretrain, path, "--epochs", "2")
    run(prune, path, "--prune_epochs", "1", "--batch_size", "16", "--defend", "ppb")
    [command] = follow(capsys, mia, path, "--defend", "ppb", "--attacks", "gap")
    assert (
        "--batch_size 16" in command and "--prune_epochs 1" in command and "--defend" not in command
    )


def test_the_inout_split_is_asked_for_again(write_config, capsys):
    path = write_config(epochs=2)
    run(pretrain, path, "--split", "inout", "--shadow_num", "2", "--lr", "0.01")
    script, *words = advice(capsys, prune, path, "--shadow_num", "4")[0]
    assert script == "pretrain.py" and "--lr 0.01 --shadow_num 4 --split inout" in " ".join(words)
    assert pretrain.main(words) == 0


def test_other_options_are_named_by_which_to_use_what_is_there(path, capsys):
    (script, *words), error = advice(capsys, mia, path)
    assert "to use it give --seed 3;" in error and script == "prune.py"
    (script, *words), error = advice(capsys, prune, path, "--train_seed", "5", "--seed", "3")
    assert "train_seed 3 (now 5): to use it give --train_seed 3;" in error
    # made anew, they are as they were but for what is now asked for, and as many
    options = parse("pretrain", words)
    assert (script, options.train_seed, options.seed, options.fresh) == ("pretrain.py", 5, 3, True)
    assert (options.epochs, options.batch_size, options.lr, options.shadow_num) == (2, 32, 0.02, 4)
    before = models()
    error = advice(capsys, pretrain, path, "--seed", "3")[1]
    assert "to use it give --epochs 2 --batch_size 32 --lr 0.02;" in error
    assert pretrain.main(["cpu", path]) == 2 and "give --seed 3 again" in capsys.readouterr().err
    assert models() == before


def test_what_was_pruned_from_another_original_is_made_anew_as_it_was(path, capsys):
    run(pretrain, path, *("0.03" if word == "0.02" else word for word in TRAINED), "--fresh")
    script, *words = advice(capsys, mia, path, "--seed", "3")[0]
    options = parse("prune", words)
    assert (script, options.prune_epochs, options.weight_decay, options.fresh) == (
        "prune.py",
        1,
        0.001,
        True,
    )


def test_another_number_of_records_is_a_new_split(path, capsys, tmp_path):
    x, y = table_arrays(n=300)
    np.savez(tmp_path / "tiny.npz", x=x, y=y)
    script, *words = advice(capsys, prune, path, "--seed", "3")[0]
    assert script == "pretrain.py" and words[-1] == "--fresh" and pretrain.main(words) == 0


def test_a_damaged_manifest_does_not_stand_in_the_way_of_the_advice(path, capsys):
    for manifest in MADE.rglob("manifest.json"):
        manifest.write_text("{")
    assert (
        "shadow_model_5 is not there: first run"
        in advice(capsys, mia, path, "--shadow_num", "6")[1]
    )


@pytest.mark.parametrize(
    "precision, device, network, given",
    [
        ("fp32", "cpu", "columnfc", None),
        ("bf16", "cpu", "resnet18", "bf16"),
        ("bf16", "cuda:0", "resnet18", None),
        ("fp32", "cuda:0", "resnet18", "fp32"),
        ("fp32", "cuda:0", "columnfc", None),
    ],
)
def test_precision_is_named_where_it_is_not_the_devices_own(precision, device, network, given):
    options = {"precision": precision, "model_name": network, "defend": ""}
    assert precision_unless_default({"options": options, "made": {"device": device}}) == given


def test_prune_names_layers_of_which_nothing_is_left(write_config, capsys, monkeypatch):
    path = write_config(epochs=1)
    run(pretrain, path)
    whole = mask.compute_masks

    def prune_masks(network, **how):
        masks = whole(network, **how)
        last = list(masks)[-1]
        return masks | {last: torch.zeros_like(masks[last])}

    monkeypatch.setattr("bench.pruning.compute_masks", prune_masks)
    capsys.readouterr()
    run(prune, path, "--prune_sparsity", "0.9")
    warned = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 1 and "leaves nothing of layer" in warned[0]
    assert "victim, shadow_0, shadow_1" in warned[0]


def test_a_lost_split_is_made_again_as_the_models_there_were(write_config, capsys):
    path = write_config(epochs=1, shadow_num=2)
    run(pretrain, path, "--split", "inout")
    before = (MADE / "victim_model/best.pth").read_bytes()
    (MADE / "split.npz").unlink()
    capsys.readouterr()
    assert mia.main(["cpu", path, "--original", "--attacks", "gap"]) == 2
    words = shlex.split(capsys.readouterr().err.split("`")[1])
    assert words[:2] == ["python", "pretrain.py"] and "--split" in words
    run(pretrain, *words[3:])
    run(mia, path, "--original", "--attacks", "gap")
    assert (MADE / "victim_model/best.pth").read_bytes() == before
    (MADE / "split.npz").unlink()
    capsys.readouterr()
    assert pretrain.main(["cpu", path]) == 2
    assert "give --split" not in capsys.readouterr().err  # the digest is no value of the option
