"""What --tensorboard writes, as TensorBoard's own reader has it; and it changes nothing else."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import MADE, PROJECT, files, manifest, run, table_arrays
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer
from torch.nn import functional as F

import mia
import pretrain
import prune
import prune_dp
from base_model import BaseModel, Callback, Context, Objective, TrainConfig, TrainSet
from bench import training
from bench.callbacks import Resume
from bench.command_line import parse
from datasets import Records
from defenders.dp import PrivateSGD

MODELS = ["victim_model", "shadow_model_0", "shadow_model_1"]


@pytest.fixture(autouse=True)
def in_order(monkeypatch):
    """Readers sort files by second, process and this count, as text: two runs are never this near
    but here."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


def events(folder):
    return sorted((MADE / folder / "tensorboard").glob("*"))


def curves(where):
    """{name: [value of epoch 1, ...]} as TensorBoard shows them."""
    reader = EventAccumulator(str(where)).Reload()
    found = {name: reader.Scalars(name) for name in reader.Tags()["scalars"]}
    for points in found.values():
        assert [point.step for point in points] == list(range(1, len(points) + 1))
    return {name: [point.value for point in points] for name, points in found.items()}


def check(folder):
    """What TensorBoard shows of a model is what its manifest says."""
    said, shown = manifest(folder), curves(MADE / folder / "tensorboard")
    assert set(shown) == {"loss", "dev accuracy"} and np.isfinite(shown["loss"]).all()
    assert len(shown["loss"]) == len(shown["dev accuracy"]) == said["ran"]
    best = max(shown["dev accuracy"])
    assert shown["dev accuracy"].index(best) == said["epoch"] - 1 and best == np.float32(
        said["accuracy"]["dev"]
    )


def threads_left():
    return [
        thread
        for thread in threading.enumerate()
        if isinstance(thread, event_file_writer._AsyncWriterThread)
    ]


def without_events():
    return {name: digest for name, digest in files().items() if "/tensorboard/" not in name}


@pytest.mark.parametrize(
    "stage, words, names",
    [
        (pretrain, ["--early_stop", "1"], MODELS),
        (prune, ["--defend", "adv"], ["l1unstructure_0.7_adv_1_model"]),
        (
            prune_dp,
            ["--defend_arg", "1", "--batch_size", "8", "--dp_noise", "seeded"],
            ["shadow_l1unstructure_0.7_dp_1_model_1"],
        ),
    ],
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_curves_are_the_manifests_and_change_no_other_file(
    stage, words, names, workers, write_config, capsys
):
    if workers != "1" and torch.cuda.is_available():
        pytest.skip("after a backward pass here, forks can't make one")
    path = write_config(epochs=9, prune_epochs=5)
    if stage is not pretrain:
        run(pretrain, path)
    run(stage, path, *words)
    plain = files()
    said = capsys.readouterr()
    run(stage, path, *words, "--fresh", "--tensorboard", "--workers", workers)
    assert without_events() == plain and len(files()) == len(plain) + 3
    assert capsys.readouterr().err == said.err == "" and not threads_left()
    for name in names:
        check(name)


def test_each_model_of_a_stack_has_its_own_curves(write_config, monkeypatch):
    real = training.stacks
    monkeypatch.setattr(training, "stacks", lambda parts, most: real(parts, most=99))
    run(pretrain, write_config(epochs=30, early_stop=1, lr=0.02), "--tensorboard")
    for folder in MODELS:
        check(folder)
    assert (
        len({manifest(folder)["ran"] for folder in MODELS}) > 1
    )  # one goes on when another has stopped


class Told(Callback):
    """Notes the losses of a training."""

    def __init__(self):
        self.losses = []

    def on_epoch(self, run):
        (loss,), (running,) = run.losses, run.running
        assert run.epoch == len(self.losses) + 1 and running and run.dev is None
        self.losses.append(loss)


def standing_still(defender, *, batch_size=4):
    """What is told of three epochs that leave the weights as they are, and the loss of each of the
    ten records."""
    records = Records(*(torch.from_numpy(array[:10]) for array in table_arrays()), num_cls=3)
    network, told = torch.nn.Linear(12, 3), Told()
    model = BaseModel(network, device=torch.device("cpu"), generator=torch.Generator())
    draw = torch.Generator().manual_seed(1)
    data = TrainSet(records, torch.arange(10))
    defender.setup(Context(data, batch_size=batch_size, generator=draw))
    model.train(
        data,
        TrainConfig(epochs=3, lr=1e-30, batch_size=batch_size),
        generator=draw,
        objective=defender,
        callbacks=[told],
    )
    return told.losses, F.cross_entropy(network(records.x), records.y, reduction="none").detach()


def test_the_loss_is_the_mean_over_records():
    """In batches of 4, 4 and 2, of which each counts by its size."""
    losses, own = standing_still(Objective())
    assert losses == pytest.approx([own.mean().item()] * 3, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_loss_of_private_steps_is_the_mean_over_the_records_drawn(batch_size):
    drawn = []

    class Noted(PrivateSGD):
        def batches(self, *of, **more):
            drawn.append(list(super().batches(*of, **more)))
            return (
                drawn[-1] if len(drawn) != 2 else [batch[:0] for batch in drawn[-1]]
            )  # once, none at all

    defender = Noted(
        1e-3, dp_engine="pyvacy", dp_lr=1e-30, max_grad_norm=1, dp_noise="seeded", key=bytes(16)
    )
    losses, own = standing_still(defender, batch_size=batch_size)
    assert batch_size == 4 or any(len(batch) == 0 for batch in drawn[0])
    expected = [own[torch.cat(batches)].mean().item() for batches in drawn]
    assert losses == pytest.approx([expected[0], np.nan, expected[2]], rel=1e-5, nan_ok=True)
    assert expected[0] != pytest.approx(own.mean().item(), rel=1e-3)


def interrupt(monkeypatch, path, *, after, saved):
    """Run pretrain.py until the first model has run `after` epochs, with its state of epoch `saved`
    on disk."""
    accuracies, save, ran = BaseModel.accuracies, Resume.save, []

    def count(self, *of):
        ran.append(1)
        if len(ran) > after:
            raise KeyboardInterrupt
        return accuracies(self, *of)

    with monkeypatch.context() as patch:
        patch.setattr(BaseModel, "accuracies", count)
        patch.setattr(Resume, "save", lambda self, state: len(ran) <= saved and save(self, state))
        assert pretrain.main(["cpu", path, "--tensorboard"]) == 130


@pytest.mark.parametrize("saved", [2, 4, 0])
def test_a_training_that_goes_on_shows_each_epoch_once(write_config, monkeypatch, saved):
    path = write_config(epochs=6, save_every=0)
    run(pretrain, path, "--tensorboard")
    whole = {folder: curves(MADE / folder / "tensorboard") for folder in MODELS}
    Path("results").rename("whole")
    interrupt(monkeypatch, path, after=4, saved=saved)
    (first,) = events("victim_model")
    assert len(curves(first)["loss"]) == 4 and not threads_left()  # also those after what was saved
    run(pretrain, path, "--tensorboard")
    assert len(events("victim_model")) == (2 if saved else 1)
    assert {folder: curves(MADE / folder / "tensorboard") for folder in MODELS} == whole
    check("victim_model")


@pytest.mark.parametrize("asked", [True, False])
def test_what_another_training_wrote_goes(write_config, asked):
    path = write_config(epochs=5)
    run(pretrain, path, "--tensorboard")
    run(pretrain, path, "--lr", "0.01", "--epochs", "2", "--fresh", *["--tensorboard"] * asked)
    assert [len(events(folder)) for folder in MODELS] == [asked] * 3
    if asked:
        check("victim_model")
    else:
        run(prune, path, "--tensorboard", "--lr", "0.01", "--epochs", "2")
        run(
            prune,
            path,
            "--tensorboard",
            "--lr",
            "0.01",
            "--epochs",
            "2",
            "--prune_epochs",
            "0",
            "--fresh",
        )
        assert not list(MADE.rglob("events.*"))  # it ran no epoch to write of


def test_a_model_that_is_kept_writes_nothing(write_config):
    path = write_config(epochs=2)
    run(pretrain, path)
    before = files()
    run(pretrain, path, "--tensorboard")
    assert files() == before and not list(MADE.rglob("tensorboard"))


def test_without_the_package_one_line_says_what_to_install(write_config, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    path = write_config(epochs=1, tensorboard=True)
    for stage in (pretrain, prune, prune_dp):
        assert stage.main(["cpu", path]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: --tensorboard needs") and error.endswith(
            "`pip install tensorboard`\n"
        )
        assert error.count("\n") == 1 and not list(Path.cwd().iterdir())
    assert parse("mia", ["cpu", path]).tensorboard and mia.main(["cpu", path]) == 2
    assert (
        "first run `python pretrain.py" in capsys.readouterr().err
    )  # it trains none of these models
    run(pretrain, write_config(epochs=1))  # who does not ask for it needs nothing


def test_a_mistake_beside_it_answers_without_importing_torch(write_config):
    code = "import sys, pretrain; print(pretrain.main(sys.argv[1:]), {'torch', 'tensorboard'} & set(sys.modules))"
    words = ["cpu", write_config(), "--tensorboard", "--seed", "-1"]
    result = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=PROJECT
    )
    assert result.stdout == "2 set()\n"


def test_where_nothing_can_be_written_one_line_says_so(write_config, capsys):
    (MADE / "victim_model").mkdir(parents=True)
    (MADE / "victim_model/tensorboard").write_text("")
    assert pretrain.main(["cpu", write_config(), "--tensorboard"]) == 2
    assert (
        capsys.readouterr().err
        == f"error: cannot write in {MADE}/victim_model/tensorboard: File exists\n"
    )
