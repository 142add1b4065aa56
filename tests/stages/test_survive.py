"""A run is killed or finds other results: the same results as ever, or a line that says why not."""

import contextlib
import hashlib
import io
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import ATTACKS, STAGES, WORDS, killed_at_file, resume_states, run_all_stages
from helpers import MADE, files, manifest, run, table_arrays

import pretrain
import prune
from base_model import BaseModel, Callback, Context, TrainConfig, TrainSet
from bench.checkpoints import read_checkpoint
from bench.command_line import parse
from bench.layout import ModelSet
from core.console import UserError
from datasets import Records
from defenders import DEFENDERS

pytestmark = pytest.mark.survive


def test_killed_again_and_again_the_results_are_those_of_one_run(write_config):
    # an epoch takes milliseconds: saved after each, hundreds of them can be hit
    path = write_config(
        epochs=300,
        prune_epochs=60,
        workers=2,
        save_every=0,
        shadow_num=1,
        attacks="samia,threshold",
    )
    uninterrupted = run_all_stages(path, None, kills=0)
    Path("results").rename("before")
    assert run_all_stages(path, random.Random(0), kills=5) == uninterrupted
    assert len(uninterrupted) == 18


def test_a_training_goes_on_from_its_last_epoch(write_config, monkeypatch):
    """Interrupted after an epoch, it runs only those that are left."""
    path, ran = write_config(epochs=6, save_every=0), []
    real = BaseModel.accuracies

    def stop_after_three(self, records, indices):
        ran.append(1)
        if len(ran) == 4:
            raise KeyboardInterrupt
        return real(self, records, indices)

    monkeypatch.setattr(BaseModel, "accuracies", stop_after_three)
    assert pretrain.main(["cpu", path]) == 130
    assert [file.name for file in resume_states()] == ["model.resume"]
    run(pretrain, path)
    # 3 epochs were kept; each model is tested on its three parts at the end
    assert len(ran) == 4 + (6 - 3) + 3 + 2 * (6 + 3)
    assert not resume_states()


def test_what_is_finished_is_kept_and_what_differs_is_refused(write_config, capsys):
    path = write_config(epochs=2, attacks=ATTACKS)
    for stage in STAGES:
        run(STAGES[stage], path, *WORDS[stage])
    before = {
        file: file.stat().st_mtime_ns for file in Path("results").rglob("[!.]*") if file.is_file()
    }
    for stage in STAGES:
        run(STAGES[stage], path, *WORDS[stage])
    assert before == {file: file.stat().st_mtime_ns for file in before}
    said = capsys.readouterr().out
    assert "shadow_1: kept" in said and "nn, threshold: kept" in said
    assert pretrain.main(["cpu", path, "--lr", "0.01", "--batch_size", "64"]) == 2
    error = capsys.readouterr().err
    assert "batch_size 128 (now 64), lr 0.001 (now 0.01)" in error and "--fresh" in error
    assert prune.main(["cpu", path, "--defend", "adv", "--prune_epochs", "3"]) == 2
    assert "prune_epochs 1 (now 3)" in capsys.readouterr().err
    assert before == {file: file.stat().st_mtime_ns for file in before}
    run(pretrain, path, "--lr", "0.01", "--fresh")
    assert manifest("victim_model")["options"]["lr"] == 0.01


def test_another_seed_or_data_set_does_not_touch_the_split(write_config, capsys, tmp_path):
    path = write_config(epochs=1)
    run(pretrain, path)
    before = files()
    assert pretrain.main(["cpu", path, "--seed", "8"]) == 2
    assert "--fresh" in capsys.readouterr().err and files() == before
    x, y = table_arrays(seed=1)
    np.savez(tmp_path / "tiny.npz", x=x, y=y)  # as many records, others
    for stage in (pretrain, prune):
        assert stage.main(["cpu", path]) == 2
        assert "another data set" in capsys.readouterr().err and files() == before


def test_more_shadows_are_added_to_those_that_are_there(write_config):
    path = write_config(epochs=1)
    run(pretrain, path)
    before = files()
    run(pretrain, path, "--shadow_num", "3")
    after = files()
    assert {name for name in before if before[name] != after[name]} == {f"{MADE}/split.npz"}
    run(pretrain, path)
    assert files() == after  # the split is not cut down to fewer


def test_the_manifest_says_how_a_model_was_made(write_config):
    path = write_config(epochs=2)
    run(pretrain, path)
    run(prune, path, "--defend", "ppb")
    said = manifest("l1unstructure_0.7_ppb_4_model")
    weights = (MADE / "victim_model/best.pth").read_bytes()
    assert (
        said["parent"]
        == hashlib.sha256(weights).hexdigest()
        == manifest("victim_model")["files"]["best.pth"]
    )
    assert said["options"]["defend"] == "ppb" and said["options"]["seed"] == 7
    assert (
        said["data"] == manifest("victim_model")["data"]
        and said["split"] == manifest("victim_model")["split"]
    )
    assert (
        said["split"] != manifest("shadow_model_0")["split"]
        and manifest("victim_model")["parent"] == ""
    )
    assert set(said["accuracy"]) == {"train", "dev", "test"} and said["ran"] == 1
    assert set(said["made"]) == {
        "start",
        "end",
        "device",
        "workers",
        "python",
        "torch",
        "numpy",
        "commit",
    }
    assert said["made"]["start"] <= said["made"]["end"] and said["made"]["device"] == "cpu"


@pytest.mark.parametrize("fresh", [False, True])
def test_killed_between_any_two_files_its_files_are_not_taken_for_another_programs(
    write_config, fresh
):
    """best.pth may lie there without a manifest then: the new one, or with --fresh the former."""
    path = write_config(epochs=1, prune_epochs=0, shadow_num=1)
    run(pretrain, path)
    if fresh:
        run(prune, path, "--lr", "0.01")
    shutil.copytree("results", "start")
    run(prune, path, *["--fresh"] * fresh)
    whole, step, unfinished = files(), 1, 0
    while True:
        shutil.rmtree("results")
        shutil.copytree("start", "results")
        if not killed_at_file(step, "prune", [path, *["--fresh"] * fresh]):
            break
        step += 1
        unfinished += any(
            (folder / "best.pth").exists() and not (folder / "manifest.json").exists()
            for folder in MADE.iterdir()
        )
        with contextlib.redirect_stderr(io.StringIO()) as error:
            status = prune.main(["cpu", path])
        if fresh and status == 2:  # a model that the killed run did not come to
            assert "was made with lr 0.01 (now 0.001)" in error.getvalue()
            run(prune, path, "--fresh")
        else:
            assert status == 0, error.getvalue()
        assert files() == whole, step
    assert step > 8 and unfinished >= (4 if fresh else 2)


@pytest.mark.parametrize("moment", ["while it is replaced", "behind it"])
def test_weights_that_are_being_replaced_are_not_called_damaged(write_config, moment):
    path = write_config(epochs=1, shadow_num=1)
    run(pretrain, path)
    models = ModelSet(parse("prune", ["cpu", path]), original=True)
    checkpoint = read_checkpoint(models, "victim")
    folder = MADE / "victim_model"
    if moment == "behind it":
        run(pretrain, path, "--lr", "0.01", "--fresh")
    else:
        (folder / "best.pth").write_bytes(b"new")
        (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"best.pth has been replaced by another command"):
        checkpoint.weights()


def test_no_model_is_made_of_originals_that_came_in_place_of_those_loaded(
    write_config, monkeypatch, capsys
):
    """What was begun before is a child of what it was begun from; what was not begun is refused."""
    path = write_config(epochs=1)
    run(pretrain, path)
    real = BaseModel.train

    def meanwhile(self, *args, **how):
        monkeypatch.setattr(BaseModel, "train", real)
        run(pretrain, path, "--lr", "0.01", "--fresh")
        return real(self, *args, **how)

    monkeypatch.setattr(BaseModel, "train", meanwhile)
    assert prune.main(["cpu", path]) == 2
    assert "has been replaced by another command: give this one" in capsys.readouterr().err
    assert len(list(MADE.glob("*l1unstructure_0.7*/best.pth"))) == 1
    assert prune.main(["cpu", path]) == 2
    assert "another original than now lies in" in capsys.readouterr().err


def test_a_state_from_another_kind_of_device_or_stack_is_left_aside(tmp_path):
    from types import SimpleNamespace

    from bench.callbacks import Resume

    resume = lambda *form: Resume(
        tmp_path / "x.resume",
        {"lr": 1},
        list(form),
        SimpleNamespace(save_every=0, fresh=False),
        refuse=lambda *_: None,
    )
    resume("cpu", "victim").save(lambda: {"epoch": 3})
    assert resume("cpu", "victim").load() == {"epoch": 3}
    assert (
        resume("cuda", "victim").load() is None
        and resume("cpu", "victim", "shadow_0").load() is None
    )


# those that ask for sub-models or for the original: see test_sub_model_defences.py
ASKING = ("wemem_rsw", "wemem_rmr", "wemem_swmr", "radd", "distill", "selena")


@pytest.mark.parametrize("defend", [name for name in DEFENDERS if name not in (*ASKING, "dp")])
def test_training_in_two_halves_is_the_same_to_the_last_bit(defend):
    """With dropout, an order of batches, momentum, milestones, early stopping, a learning
    defence."""
    from models import build

    records = Records(*map(torch.from_numpy, table_arrays()), num_cls=3)
    saved = []

    class Kept(Callback):
        def __init__(self, state):
            self.state = state

        def on_start(self, run):
            if self.state is not None:
                run.set_state(self.state)

        def on_epoch(self, run):
            torch.save(run.state(), "state")
            saved.append(torch.load("state", weights_only=True))

    def train(state):
        network = build(
            "columnfc", shape=(12,), num_cls=3, generator=torch.Generator().manual_seed(3)
        )
        model = BaseModel(
            network, device=torch.device("cpu"), generator=torch.Generator().manual_seed(4)
        )
        draw = torch.Generator().manual_seed(5)
        strength = DEFENDERS[defend].options["default"] or 0.0
        defender = DEFENDERS.load(defend)(1e-6 if defend == "past" else strength)
        data = TrainSet(records, torch.arange(150), torch.arange(150, 200))
        defender.setup(Context(data, batch_size=16, generator=draw))
        recipe = TrainConfig(epochs=8, batch_size=16, optimizer="sgd", lr=0.05, milestones=(3, 5))
        training = model.train(
            data, recipe, generator=draw, objective=defender, callbacks=[Kept(state)]
        )
        return training, torch.cat(
            [weight.flatten() for weight in model.network.state_dict().values()]
        )

    whole, weights = train(None)
    for state in list(saved)[1::3]:
        again, same = train(state)
        assert again == whole and torch.equal(same, weights)
