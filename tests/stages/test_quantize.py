"""quantize.py: what it trains, stores, resumes and refuses, and attacks on it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import interrupt_after
from helpers import MADE, files, lines, make_once, manifest, run, write_images

import mia
import pretrain
import prune
import quantize
from base_model import BaseModel
from bench.layout import PRUNING
from core.files import sealed_json
from quantizer import QUANTIZERS
from training.run import TrainingRun

INT8 = ("--quantizer", "int8")
PRUNED = (*INT8, "--pruned", "--prune_sparsity", "0.6")


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    """Originals, pruned ones, pruned ones under ppb, and both without a defence as int8."""
    return make_once(
        tmp_path_factory.mktemp("compressed"),
        (pretrain,),
        (prune, "--prune_sparsity", "0.6"),
        (prune, "--prune_sparsity", "0.6", "--defend", "ppb"),
        (quantize, *INT8),
        (quantize, *PRUNED),
        shadow_num=1,
        quantize_epochs=2,
        prune_epochs=1,
    )


@pytest.fixture
def path(compressed):
    return compressed.copy_here()


def state(folder, file="best.pth"):
    return torch.load(MADE / folder / file, weights_only=True)


def weights_of(folder):
    """The weights of the linear layers."""
    return {name: one for name, one in state(folder).items() if one.dim() == 2}


def unlike(after, before):
    return [name for name in before if not torch.equal(after[name], before[name])]


@pytest.mark.parametrize("name", list(QUANTIZERS))
def test_stored_are_the_few_values_that_layers_work_with(path, name):
    run(quantize, path, "--quantizer", name, "--optimizer", "sgd", "--lr", "0.01", "--fresh")
    made = manifest(f"{name}_model")
    assert made["ran"] == 2 and made["options"]["quantizer"] == name
    assert made["parent"] == manifest("victim_model")["files"]["best.pth"]
    bits = QUANTIZERS[name].options["bits"]
    most = {"ternary": 3}.get(name, 2**bits - (1 if name.startswith("int") else 0))
    before = weights_of("victim_model")
    for layer, weight in weights_of(f"{name}_model").items():
        rows = weight if QUANTIZERS[name].options["inputs"] else weight.flatten()[None]
        assert all(len(row.unique()) <= most for row in rows), layer
        assert not torch.equal(weight, before[layer])
    assert (
        made["size"]["bits_per_weight"] < 32 == manifest("victim_model")["size"]["bits_per_weight"]
    )


def test_without_fine_tuning_weights_are_those_of_the_parent_rounded_to_nearest(path):
    run(quantize, path, *INT8, "--quantize_epochs", "0", "--fresh")
    before, after = weights_of("victim_model"), weights_of("int8_model")
    for name, weight in before.items():
        scale = weight.abs().amax(dim=1, keepdim=True) / 127
        torch.testing.assert_close(after[name], (weight / scale).round() * scale)
    biases = [name for name in state("victim_model") if name.endswith("bias")]
    assert not unlike(
        *({name: state(of)[name] for name in biases} for of in ("int8_model", "victim_model"))
    )
    assert manifest("int8_model")["epoch"] == 0


def test_pruned_weights_stay_zero_and_masks_are_stored(path, capsys):
    folder = "l1unstructure_0.6_int8_model"
    masks, after = state(folder, "best_mask.pth"), state(folder)
    assert not unlike(masks, state("l1unstructure_0.6_model", "best_mask.pth"))
    assert all(not after[name][~mask].any() for name, mask in masks.items())
    assert manifest(folder)["parent"] == manifest("l1unstructure_0.6_model")["files"]["best.pth"]
    run(quantize, path, *PRUNED)
    said = capsys.readouterr().out
    assert "kept results/tiny_columnfc/l1unstructure_0.6_int8_model" in said
    assert "loaded 2 l1unstructure_0.6 models" in said and "60.0\n" in said
    size = manifest(folder)["size"]
    assert size["nonzero"] == sum(int(one.count_nonzero()) for one in weights_of(folder).values())


def test_it_is_attacked_beside_its_original_and_what_it_was_pruned_from(path, capsys):
    same = ("--attacks", "threshold,gap")
    run(mia, path, *same, "--original")
    run(mia, path, *same, "--prune_sparsity", "0.6")
    run(mia, path, *same, *INT8)
    run(mia, path, *same, *PRUNED)
    closing = capsys.readouterr().out.split("l1unstructure_0.6_int8, 1 shadow models")[1]
    assert closing.splitlines()[2].split() == ["original", "pruned", "pruned", "int8"]
    assert "victim, bits a weight" in closing and "victim, kB compressed" in closing
    alone, both = (lines(f"{of}int8_model")[0] for of in ("", "l1unstructure_0.6_"))
    assert (alone["quantizer"], alone["pruned"], alone["prune_sparsity"]) == ("int8", False, None)
    assert (both["quantizer"], both["pruned"], both["prune_sparsity"]) == ("int8", True, 0.6)
    run(mia, path, *same, *INT8)
    assert "threshold, gap: kept" in capsys.readouterr().out


def test_the_stored_model_is_as_accurate_as_the_trained_one_was(path):
    """The manifest's accuracies are of the network with its quantiser attached; the outputs that
    are kept for attacks are of the stored weights."""
    run(mia, path, *PRUNED, "--attacks", "gap")
    for role, folder in (
        ("victim", "l1unstructure_0.6_int8_model"),
        ("shadow_0", "shadow_l1unstructure_0.6_int8_model_0"),
    ):
        kept, split = np.load(MADE / folder / "logits.npz"), np.load(MADE / "split.npz")
        labels = np.load(json.loads(Path(path).read_text())["data_path"])["y"]
        of_role = dict(zip(kept["records"], kept["answers"].argmax(axis=1)))
        for part in ("train", "test"):
            records = split[f"{role}_{part}"]
            right = np.mean([of_role[record] == labels[record] for record in records])
            assert right == pytest.approx(manifest(folder)["accuracy"][part], abs=1e-6)


def test_a_defence_has_a_part_in_both_steps(path):
    words = ("--pruned", "--prune_sparsity", "0.6", "--quantizer", "cluster4", "--defend", "ppb")
    run(quantize, path, *words)
    made = manifest("l1unstructure_0.6_cluster4_ppb_4_model")
    assert made["parent"] == manifest("l1unstructure_0.6_ppb_4_model")["files"]["best.pth"]
    run(mia, path, *words, "--adaptive", "--attacks", "gap")
    assert lines("l1unstructure_0.6_cluster4_ppb_4_model")[0]["adaptive"]


@pytest.mark.parametrize("name", ["int4", "ternary", "cluster8"])
@pytest.mark.parametrize("pruned", [(), ("--pruned", "--prune_sparsity", "0.6")])
def test_a_killed_run_goes_on(path, monkeypatch, name, pruned):
    words = ("--quantizer", name, *pruned, "--quantize_epochs", "5", "--save_every", "0")
    run(quantize, path, *words, "--fresh")
    whole = files()
    for folder in MADE.glob(f"*{name}_model*"):
        shutil.rmtree(folder)
    with monkeypatch.context() as patch:
        patch.setattr(BaseModel, "accuracies", interrupt_after(3, BaseModel.accuracies))
        assert quantize.main(["cpu", path, *words]) == 130
    assert len(list(MADE.rglob("*.resume"))) == 1
    epochs = []
    train_epoch = TrainingRun.train_epoch

    def spied(self, loss):
        epochs.append(self.epoch)
        train_epoch(self, loss)

    monkeypatch.setattr(TrainingRun, "train_epoch", spied)
    run(quantize, path, *words)
    assert epochs[0] > 0 and files() == whole


def test_models_of_what_has_been_made_again_are_refused(path, capsys):
    """Also two steps on: the pruned models lie there as they were, and their original does not."""
    run(pretrain, path, "--fresh", "--lr", "0.01")
    capsys.readouterr()
    for stage, words, said in (
        (mia, INT8, "was made with another original than now lies in"),
        (mia, PRUNED, "was made with another pruned model than now lies in"),
        (quantize, PRUNED, "l1unstructure_0.6_model/best.pth was made with another original"),
    ):
        assert stage.main(["cpu", path, *words]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "stage, words, said",
    [
        (quantize, [], "quantize.py needs --quantizer, one of int8, int4"),
        (quantize, ["--quantizer", "int9"], "unknown quantiser 'int9', did you mean 'int8'?"),
        (quantize, [*INT8, "--prune_sparsity", "0.6"], "--prune_sparsity is of pruned models"),
        (quantize, [*INT8, "--defend", "dp"], "no stage quantises under differential privacy"),
        (quantize, [*INT8, "--quantize_epochs", "-1"], "must be a whole number from 0"),
        (mia, ["--pruned"], "--pruned tells what is quantised: name the quantiser"),
        (mia, [*INT8, "--pruned", "perhaps"], "--pruned must be true or false, not 'perhaps'"),
        (mia, [*INT8, "--original"], "without a defence: leave out --quantizer"),
        (mia, ["--pruned", "--original"], "before compression: leave out --pruned"),
        (
            mia,
            ["--quantizer", "int4", "--defend", "ppb", "--prune_sparsity", "0.6", "--pruned"],
            "CONFIG --prune_sparsity 0.6 --quantizer int4 --pruned --defend ppb`",
        ),
        (
            quantize,
            [*INT8, "--pruned", "--pruner_name", "random"],
            "first run `python prune.py cpu CONFIG --pruner_name random`",
        ),
        (prune, ["--quantizer", "int8"], "--quantizer is an option of quantize.py, mia.py"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_written(path, capsys, stage, words, said):
    before = files()
    assert stage.main(["cpu", path, *words]) == 2
    error = capsys.readouterr().err.replace(path, "CONFIG")
    assert said in error and error.count("\n") == 1 and files() == before


def test_the_command_of_an_error_makes_what_is_missing(path, capsys):
    assert (
        mia.main(["cpu", path, "--quantizer", "int2", "--pruned", "--prune_sparsity", "0.6"]) == 2
    )
    words = capsys.readouterr().err.split("`")[1].split()
    assert words[1] == "quantize.py"
    assert quantize.main(words[2:]) == 0
    run(mia, path, "--quantizer", "int2", "--pruned", "--prune_sparsity", "0.6", "--attacks", "gap")


def test_a_config_may_name_a_quantiser_for_the_stages_that_have_one(write_config):
    """And what is of other stages means nothing to them."""
    said = {"quantizer": "cluster4", "pruned": True, "prune_sparsity": 0.6}
    said |= {"shadow_num": 1, "prune_epochs": 1, "quantize_epochs": 1}
    path = write_config("scratch.json", from_scratch=True, **said)
    for stage in (pretrain, prune, quantize):
        run(stage, path)
    run(mia, path, "--attacks", "gap")
    path = write_config(**said)
    for words in ([], ["--original"], ["--quantizer", ""]):
        run(mia, path, "--attacks", "gap", *words)
    run(quantize, path, "--pruned", "false")
    run(mia, path, "--pruned", "false", "--attacks", "gap")
    attacked = {folder.name for folder in MADE.glob("[!s]*_model") if lines(folder.name)}
    assert attacked == {
        "victim_model",
        "l1unstructure_0.6_model",
        "l1unstructure_0.6_cluster4_model",
        "cluster4_model",
    }
    assert manifest("l1unstructure_0.6_model")["options"]["quantizer"] == ""
    weights = weights_of("l1unstructure_0.6_cluster4_model").values()
    assert sum(int(one.count_nonzero()) for one in weights) / sum(map(torch.numel, weights)) < 0.41


def test_manifests_say_how_the_network_came_to_be(path):
    """How it was pruned, by the pruned model's manifest; nothing of that where it was not."""
    both, alone = (manifest(f"{of}int8_model")["options"] for of in ("l1unstructure_0.6_", ""))
    assert (
        both["prune_epochs"] == 1 == manifest("l1unstructure_0.6_model")["options"]["prune_epochs"]
    )
    assert both["quantize_epochs"] == alone["quantize_epochs"] == 2
    assert [alone[name] for name in PRUNING] == [None] * len(PRUNING)


def test_the_command_for_a_quantised_model_asks_for_the_epochs_of_the_others(write_config, capsys):
    path = write_config(shadow_num=1, epochs=60)
    for stage in (pretrain, prune):
        run(stage, path, "--epochs", "4")
    capsys.readouterr()
    for words in ([], ["--pruned"]):
        assert mia.main(["cpu", path, "--quantizer", "int4", *words]) == 2
        error = capsys.readouterr().err
        assert "--epochs 4 " in error and "_epochs" not in error.replace("--epochs", "")


@pytest.mark.slow
def test_networks_of_convolutions_are_quantised_pruned_or_not(write_config, tmp_path):
    network = {"model_name": "resnet18", "input_dim": 1, "data_path": write_images(tmp_path)}
    path = write_config(shadow_num=1, epochs=2, batch_size=8, **network)
    run(pretrain, path)
    run(prune, path, "--pruner_name", "slim")
    for words in ([], ["--pruned", "--pruner_name", "slim"]):
        run(quantize, path, *INT8, *words)
        run(mia, path, *INT8, *words, "--attacks", "gap")
    for version in ("int8", "slim_0.7_int8"):
        folder = Path("results/tiny_resnet18") / f"{version}_model"
        weights = torch.load(folder / "best.pth", weights_only=True)["conv1.weight"]
        assert all(len(one.unique()) <= 255 for one in weights)
        assert len((folder / "attacks.jsonl").read_text().splitlines()) == 1


def test_models_from_before_there_were_quantisers_are_kept_and_attacked(path, capsys):
    run(mia, path, "--prune_sparsity", "0.6", "--attacks", "threshold")
    for place in MADE.glob("*_model*/manifest.json"):
        told = json.loads(place.read_text())
        for name in ("quantizer", "pruned", "quantize_epochs"):
            told["options"].pop(name)
        told.pop("size"), told.pop("sha256")
        place.write_bytes(sealed_json(told))
    before = files()
    capsys.readouterr()
    run(prune, path, "--prune_sparsity", "0.6")
    run(mia, path, "--prune_sparsity", "0.6", "--attacks", "threshold")
    said = capsys.readouterr().out
    assert said.count("kept") >= 3 and files() == before
    assert "kB compressed" not in said  # where it was counted of none
