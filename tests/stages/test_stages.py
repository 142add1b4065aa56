"""All stages, one after the other, as a user runs them."""

import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ALL, MADE, files, lines, make_once, manifest, run, table_arrays, write_images

import mia
import pretrain
import prune
from base_model import BaseModel, Diverged
from core.console import UserError
from datasets import split
from pruner import PRUNERS

pytestmark = pytest.mark.usefixtures("short_attack_training")


# long: one run is looked at from all sides
def test_the_whole_pipeline_writes_what_the_contract_names(write_config, capsys):
    path = write_config(shadow_num=3)
    run(pretrain, path)
    run(prune, path, "--prune_sparsity", "0.6")
    run(mia, path, "--prune_sparsity", "0.60", "--attacks", "all")
    run(mia, path, "--attacks", "threshold", "--original")
    names = {name.removeprefix(f"{MADE}/") for name in files()}
    networks = sorted(
        re.sub("_[0-9a-f]{16}.pth$", "", name)
        for name in names
        if name.startswith("attack_networks/")
    )
    assert networks == [
        f"attack_networks/{name}"
        for name in (
            "nn",
            "nn_cls",
            "nn_top3",
            "qmia_shadow_0",
            "qmia_shadow_1",
            "qmia_shadow_2",
            "samia",
        )
    ]
    assert {name for name in names if not name.startswith("attack_networks/")} == {
        "split.npz",
        "l1unstructure_0.6_model/generated.npz",
        *(
            f"{folder}/{file}"
            for file in ("attacks.jsonl", "scores.npz")
            for folder in ("victim_model", "l1unstructure_0.6_model")
        ),
        *(
            f"{folder}/{file}"
            for file in ("best.pth", "manifest.json", "logits.npz")
            for folder in ("victim_model", *(f"shadow_model_{i}" for i in range(3)))
        ),
        *(
            f"{folder}/{file}"
            for file in (
                "best.pth",
                "best_mask.pth",
                "manifest.json",
                "logits.npz",
                "sensitivity.npz",
                "copies.npz",
            )
            for folder in (
                "l1unstructure_0.6_model",
                *(f"shadow_l1unstructure_0.6_model_{i}" for i in range(3)),
            )
        ),
    }

    found = {line["attack"]: line for line in lines("l1unstructure_0.6_model")}
    assert set(found) == ALL
    for line in found.values():
        assert line["seed"] == 7 and line["epochs"] == 4
        # a dash where all decisions are alike, as blindmi's on a victim that is sure of nothing
        assert 0.2 < line["accuracy"] < 1 if line["equal_scores"] != 1 else line["accuracy"] is None
        assert line["prune_sparsity"] == 0.6 and line["adaptive"] is False
    assert all(
        line["accuracy"] is not None
        for name, line in found.items()
        if not name.startswith("blindmi")
    )
    assert {line["attack"] for line in lines("victim_model")} == {
        "conf",
        "xent",
        "mentr",
        "top1_conf",
    }

    weights = torch.load(MADE / "l1unstructure_0.6_model/best.pth", weights_only=True)
    masks = torch.load(MADE / "l1unstructure_0.6_model/best_mask.pth", weights_only=True)
    assert {name: int((~mask).sum()) for name, mask in masks.items()} == {
        "1.weight": int(12 * 256 * 0.6),
        "4.weight": int(256 * 128 * 0.6),
        "7.weight": int(128 * 3 * 0.6),
    }
    for name, mask in masks.items():
        assert weights[name][~mask].eq(0).all() and weights[name][mask].ne(0).any()

    shown = capsys.readouterr().out
    assert "original       pruned" not in shown  # 0.6 was attacked, the second call asked after 0.7
    run(mia, path, "--prune_sparsity", "0.6", "--attacks", "threshold", "--original")
    shown = capsys.readouterr().out
    assert "original       pruned" in shown
    table = shown.split("attack accuracy / AUC")[1]
    row = next(line.split() for line in table.splitlines() if line.startswith("conf"))
    assert (
        row[4] == f"{100 * found['conf']['accuracy']:.1f}"
        and row[6] == f"{100 * found['conf']['auc']:.1f}"
    )


def test_the_accuracy_stored_is_that_of_the_weights_stored(write_config):
    from models import build

    run(pretrain, write_config(epochs=9))
    x, y = table_arrays()
    part = split(240, seed=7, shadow_num=2)["shadow_1"]
    network = build("columnfc", shape=(12,), num_cls=3, generator=torch.Generator())
    network.load_state_dict(torch.load(MADE / "shadow_model_1/best.pth", weights_only=True))
    network.eval()
    for name in ("train", "dev", "test"):
        numbers = getattr(part, name)
        right = network(torch.from_numpy(x[numbers])).argmax(1).numpy() == y[numbers]
        assert manifest("shadow_model_1")["accuracy"][name] == pytest.approx(right.mean())


def test_same_command_same_files_to_the_last_bit(write_config):
    path = write_config()
    made = []
    for fresh in ([], ["--fresh"]):
        for stage, words in (
            (pretrain, []),
            (prune, ["--defend", "adv"]),
            (mia, ["--defend", "adv", "--attacks", "all", "--adaptive"]),
        ):
            run(stage, path, *words, *fresh)
        made.append(files())
        torch.rand(7)
    assert made[0] == made[1] and len(made[0]) > 8


def test_an_attack_alone_says_what_it_says_in_company(write_config):
    path = write_config(shadow_num=3)
    run(pretrain, path)
    run(mia, path, "--original", "--attacks", "all")
    together = {line["attack"]: line["accuracy"] for line in lines("victim_model")}
    run(mia, path, "--original", "--attacks", "nn_cls", "--fresh")
    after = lines("victim_model")
    assert len(after) == len(ALL)  # the line was replaced, all others are kept
    assert {line["attack"]: line["accuracy"] for line in after} == together


def test_all_leaves_out_what_cannot_be_made_and_a_name_fails(write_config, monkeypatch, capsys):
    path = write_config(shadow_num=3, epochs=1)
    run(pretrain, path)
    monkeypatch.setattr("attackers.qmia.FEWEST", 10_000)
    run(mia, path, "--original", "--attacks", "all")
    said = capsys.readouterr().out
    assert (
        "left out: qmia: qmia learns from the population" in said
        and "attack accuracy / AUC" in said
    )
    assert {line["attack"] for line in lines("victim_model")} == ALL - {"qmia"}
    assert mia.main(["cpu", path, "--original", "--attacks", "qmia,gap", "--fresh"]) == 2
    said, error = capsys.readouterr()
    assert error.startswith("error: qmia: ") and error.count("\n") == 1 and "gap: saved" in said


def fail(kind):
    """An attack that ends so."""

    def attack(evidence, **_):
        if kind is SystemExit:
            os.kill(os.getpid(), signal.SIGKILL)
        raise kind("it went wrong")

    return attack


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("kind", [UserError, Diverged, MemoryError, ValueError, SystemExit])
def test_an_attack_that_fails_stops_no_other(write_config, monkeypatch, capsys, kind, workers):
    if kind is SystemExit and workers == "1":
        pytest.skip("there is no process to die")
    path = write_config(epochs=1)
    words = [path, "--original", "--attacks", "gap,loss,attack_p,threshold", "--workers", workers]
    run(pretrain, path)
    with monkeypatch.context() as patched:
        for name in ("loss", "attack_p"):
            patched.setattr(f"attackers.loss.{name}", fail(kind))
        assert mia.main(["cpu", *words]) == 2
    said, error = capsys.readouterr()
    of_attacks = [line for line in error.splitlines() if line.startswith("error: ")]
    assert [line.split(": ")[1] for line in of_attacks] == ["loss", "attack_p"]
    assert (error.count("\n") == 2) == (
        kind is not ValueError
    )  # a fault of the code has its traceback
    assert {line["attack"] for line in lines("victim_model")} == {
        "gap",
        "conf",
        "xent",
        "mentr",
        "top1_conf",
    }
    assert "attacks on results" in said and "attack accuracy / AUC" in said
    run(mia, *words)
    said = capsys.readouterr().out
    assert "gap, threshold: kept" in said and "loss: saved" in said and "attack_p: saved" in said


def test_where_all_attacks_fail_there_is_no_table_and_no_traceback(
    write_config, monkeypatch, capsys
):
    path = write_config(epochs=1)
    run(pretrain, path)
    monkeypatch.setattr("attackers.loss.gap", fail(UserError))
    assert mia.main(["cpu", path, "--original", "--attacks", "gap", "--per_class"]) == 2
    assert capsys.readouterr().err == "error: gap: it went wrong\n"


def test_answers_that_only_some_attacks_need_stop_no_other(write_config, capsys):
    path = write_config(epochs=1)
    run(pretrain, path)
    (MADE / "victim_model/sensitivity.npz").write_bytes(b"damaged")
    assert mia.main(["cpu", path, "--original", "--attacks", "gap,samia"]) == 2
    said, error = capsys.readouterr()
    assert (
        error.count("\n") == 1
        and error.startswith("error: samia: cannot read")
        and "gap: saved" in said
    )


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("stage", [pretrain, prune])
def test_a_model_that_diverges_stops_no_other(write_config, monkeypatch, capsys, stage, workers):
    path = write_config(epochs=1, prune_epochs=1, shadow_num=3)
    if stage is prune:
        run(pretrain, path)
    real = BaseModel.train

    part = split(240, seed=7, shadow_num=3)
    sums = {int(part[role].train.sum()) for role in ("victim", "shadow_1")}

    def train(self, data, config, **how):
        if int(data.train.sum()) in sums:
            raise Diverged("the loss is no longer finite in epoch 1")
        return real(self, data, config, **how)

    with monkeypatch.context() as patched:
        patched.setattr(BaseModel, "train", train)
        assert stage.main(["cpu", path, "--workers", workers]) == 2
    said, error = capsys.readouterr()
    assert (
        error.count("\n") == 1
        and "the loss is no longer finite" in error
        and "2 models are finished" in error
    )
    assert "victim" in error and "shadow_1" in error
    assert "shadow_0: saved" in said and "shadow_2: saved" in said and "kept epoch" in said
    run(stage, path)
    said = capsys.readouterr().out
    assert "shadow_0: kept" in said and "shadow_1: saved" in said and "victim: saved" in said


def test_train_seed_varies_training_and_not_the_split(write_config):
    path = write_config()
    kept = []
    for train_seed in ("7", "8"):
        run(pretrain, path, "--train_seed", train_seed, "--results", f"results/{train_seed}")
        made = Path(f"results/{train_seed}/tiny_columnfc")
        kept.append([(made / name).read_bytes() for name in ("split.npz", "victim_model/best.pth")])
    assert kept[0][0] == kept[1][0] and kept[0][1] != kept[1][1]


@pytest.mark.parametrize(
    "defend, arg, shown",
    [
        ("ppb", None, "ppb_4"),
        ("ppb", "4.0", "ppb_4"),
        ("adv", None, "adv_1"),
        ("ppb", "0.25", "ppb_0.25"),
    ],
)
def test_defended_models_are_found_however_the_number_is_written(defend, arg, shown, write_config):
    path = write_config(epochs=2)
    run(pretrain, path)
    run(prune, path)
    run(prune, path, "--defend", defend, *(["--defend_arg", arg] if arg else []))
    number = shown.partition("_")[2]
    for more in ([], ["--adaptive"]):
        run(mia, path, "--defend", defend, "--defend_arg", number, "--attacks", "threshold", *more)
    assert (MADE / f"shadow_l1unstructure_0.7_{shown}_model_1/best.pth").exists()
    found = lines(f"l1unstructure_0.7_{shown}_model")
    assert sorted((line["attack"], line["adaptive"]) for line in found) == sorted(
        (attack, adaptive)
        for attack in ("conf", "xent", "mentr", "top1_conf")
        for adaptive in (False, True)
    )


def test_attackers_shadows_are_undefended_unless_adaptive(write_config, capsys):
    path = write_config(epochs=2)
    run(pretrain, path)
    run(prune, path, "--defend", "ppb")
    run(mia, path, "--defend", "ppb", "--adaptive", "--attacks", "threshold")
    capsys.readouterr()
    assert mia.main(["cpu", path, "--defend", "ppb", "--attacks", "threshold"]) == 2
    error = capsys.readouterr().err
    assert "shadow_l1unstructure_0.7_model_0/best.pth is not there" in error
    assert f"first run `python prune.py cpu {path}`" in error  # without --defend


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory):
    folder = tmp_path_factory.mktemp("convolutional")
    return make_once(
        folder,
        (pretrain,),
        data_path=write_images(folder),
        model_name="resnet18",
        input_dim=1,
        epochs=3,
        shadow_num=1,
        batch_size=8,
    )


@pytest.mark.slow
@pytest.mark.parametrize("pruner", list(PRUNERS))
def test_every_pruner_on_a_convolutional_network(pruner, convolutional):
    path = convolutional.copy_here()
    sparsity = PRUNERS[pruner].options.get("sparsity", 0.7)
    words = ["--pruner_name", pruner, "--prune_sparsity", str(sparsity)]
    run(prune, path, *words)
    run(mia, path, *words, "--attacks", "threshold")
    folder = Path("results/tiny_resnet18") / f"{pruner}_{sparsity:g}_model"
    masks = torch.load(folder / "best_mask.pth", weights_only=True)
    weights = torch.load(folder / "best.pth", weights_only=True)
    share = sum(int((~mask).sum()) for mask in masks.values()) / sum(
        mask.numel() for mask in masks.values()
    )
    # of channels and filters over all layers large ones may go first
    over_layers = pruner in ("slim", "taylorstructure") and sparsity < share < 0.95
    assert share == pytest.approx(sparsity, abs=0.01) or over_layers
    assert all(weights[name][~mask].eq(0).all() for name, mask in masks.items())


def test_no_fine_tuning_leaves_the_weights_that_are_left(write_config):
    path = write_config(prune_epochs=0)
    run(pretrain, path)
    run(prune, path)
    before = torch.load(MADE / "victim_model/best.pth", weights_only=True)
    after = torch.load(MADE / "l1unstructure_0.7_model/best.pth", weights_only=True)
    masks = torch.load(MADE / "l1unstructure_0.7_model/best_mask.pth", weights_only=True)
    assert manifest("l1unstructure_0.7_model")["epoch"] == 0
    assert all(torch.equal(after[name], before[name] * masks.get(name, 1)) for name in before)


class TestNothingIsMixedSilently:
    @pytest.fixture
    def path(self, write_config):
        path = write_config(epochs=2)
        run(pretrain, path)
        run(prune, path)
        return path

    def refused(self, capsys, stage, *words):
        before = files()
        capsys.readouterr()
        assert stage.main(["cpu", *words]) == 2
        assert files() == before
        return capsys.readouterr().err

    def test_another_seed(self, path, capsys):
        assert "made with seed 7 (now 8)" in self.refused(capsys, prune, path, "--seed", "8")
        assert "train_seed 7 (now 9)" in self.refused(capsys, mia, path, "--train_seed", "9")

    def test_an_original_trained_again(self, path, capsys):
        run(pretrain, path, "--lr", "0.01", "--fresh")
        error = self.refused(capsys, mia, path)
        assert "another original than now lies in results/tiny_columnfc/victim_model" in error
        assert "python prune.py" in error

    def test_what_attacks_found_of_models_that_are_no_more_is_not_shown(self, path, capsys):
        run(mia, path, "--attacks", "threshold")
        run(mia, path, "--attacks", "threshold", "--original")
        assert "original       pruned" in capsys.readouterr().out
        run(pretrain, path, "--lr", "0.01", "--fresh")
        run(mia, path, "--attacks", "nn", "--original")
        table = capsys.readouterr().out.split("attack accuracy")[-1]
        assert "nn " in table and "conf" not in table and "pruned\n" not in table

    def test_more_shadows_than_there_are(self, path, capsys):
        error = self.refused(capsys, mia, path, "--shadow_num", "3")
        assert (
            "shadow_model_2 is not there: first run `python pretrain.py" in error
            and "--shadow_num 3" in error
        )

    def test_fewer_shadows_will_do(self, path):
        run(mia, path, "--shadow_num", "1", "--attacks", "threshold")
        assert {line["shadow_num"] for line in lines("l1unstructure_0.7_model")} == {1}

    def test_a_results_folder_that_cannot_be(self, path, capsys):
        Path("afile").write_text("")
        assert pretrain.main(["cpu", path, "--results", "afile"]) == 2
        error = capsys.readouterr().err
        assert "cannot write in afile/tiny_columnfc" in error and error.count("\n") == 1

    def test_a_sparsity_that_was_not_made(self, path, capsys):
        error = self.refused(capsys, mia, path, "--prune_sparsity", "0.5")
        assert "l1unstructure_0.5_model/best.pth is not there: first run `python prune.py" in error
        assert "--prune_sparsity 0.5" in error

    def test_another_data_set_of_that_name(self, path, capsys, tmp_path):
        x, y = table_arrays(n=300)
        np.savez(tmp_path / "tiny.npz", x=x, y=y)
        assert "splits 240 records, the data set has 300" in self.refused(capsys, prune, path)

    @pytest.mark.parametrize(
        "stage, file",
        [
            (mia, "split.npz"),
            (mia, "l1unstructure_0.7_model/best.pth"),
            (prune, "victim_model/best.pth"),
        ],
    )
    def test_a_file_cut_in_half(self, path, capsys, stage, file):
        content = (MADE / file).read_bytes()
        (MADE / file).write_bytes(content[: len(content) // 2])
        error = self.refused(capsys, stage, path)
        assert f"cannot read {MADE / file}" in error and error.count("\n") == 1

    def test_a_pickle_does_not_run(self, path, capsys):
        import pickle

        class Planted:
            def __reduce__(self):
                return (open, ("planted", "w"))

        for file in ("split.npz", "l1unstructure_0.7_model/best.pth"):
            (MADE / file).write_bytes(pickle.dumps(Planted()))
            assert "cannot read" in self.refused(capsys, mia, path)
        assert not Path("planted").exists()


def test_nothing_is_fine_tuned_where_a_shadow_cannot_be_pruned(write_config, tmp_path, capsys):
    path = write_config(
        data_path=write_images(tmp_path), model_name="resnet18", input_dim=1, epochs=1, shadow_num=1
    )
    run(pretrain, path)  # one step of Adam leaves every gamma at 1 +- lr
    before = files()
    assert prune.main(["cpu", path, "--pruner_name", "slim"]) == 2
    assert "slim would prune everything" in capsys.readouterr().err and files() == before


def test_training_in_bfloat16_is_recorded_and_gives_other_weights(write_config):
    path = write_config(epochs=2)
    stored = []
    for words in ([], ["--precision", "bf16"], ["--precision", "fp32"]):
        assert pretrain.main(["cpu", path, "--fresh", *words]) == 0
        stored.append(
            (
                manifest("victim_model"),
                torch.load(MADE / "victim_model/best.pth", weights_only=True),
            )
        )
    weights = [torch.cat([tensor.flatten() for tensor in one.values()]) for _, one in stored]
    assert [said["options"]["precision"] for said, _ in stored] == ["fp32", "bf16", "fp32"]
    assert torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[1])
    assert torch.allclose(weights[0], weights[1], atol=0.02)
