"""Two runs at once, a full disk, a GPU without memory, a training that comes to nothing."""

import os
import resource
import time

import pytest
import torch
from faults import ERRORS, WORDS, start_command, start_fork
from helpers import MADE, files, run

import pretrain
import prune
from base_model import BaseModel
from core.console import UserError
from datasets import Records


def test_a_second_process_is_told_who_is_at_work(write_config, capsys):
    path = write_config(epochs=100_000, save_every=0)
    process = start_command("pretrain", path)
    holder = MADE / "victim_model/.model.lock.json"
    while process.poll() is None and not holder.exists():
        time.sleep(0.02)
    try:
        assert pretrain.main(["cpu", path]) == 2
        assert (
            f"is being made by process {process.pid} on {os.uname().nodename}"
            in capsys.readouterr().err
        )
    finally:
        process.kill()
        process.communicate()
    assert holder.exists()  # what the dead leave behind holds nobody up
    run(pretrain, path, "--epochs", "1", "--fresh")


def test_a_full_disk_ends_the_stage_with_a_line(write_config):
    path = write_config(epochs=1)
    run(pretrain, path)
    before = files()
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    process = start_fork("prune", path, *WORDS["prune"], first=limit)
    process.join()
    error = ERRORS.read_text()
    assert process.exitcode == 2 and error.startswith("error: cannot write"), error
    assert error.count("\n") == 1
    assert (
        files().items() >= before.items()
        and not (MADE / "l1unstructure_0.7_adv_1_model/manifest.json").exists()
    )
    run(prune, path, *WORDS["prune"])
    before = files()
    process = start_fork("prune", path, *WORDS["prune"], "--fresh", first=limit)
    process.join()
    assert process.exitcode == 2 and "cannot write" in ERRORS.read_text() and files() == before


def test_a_split_in_use_is_not_replaced(write_config, capsys):
    path = write_config(epochs=100_000, save_every=0)
    process = start_fork("pretrain", path)
    while process.is_alive() and not (MADE / "victim_model/.model.lock.json").exists():
        time.sleep(0.02)
    try:
        split = (MADE / "split.npz").read_bytes()
        assert pretrain.main(["cpu", path, "--fresh", "--seed", "8"]) == 2
        assert "is being made by process" in capsys.readouterr().err
        assert (MADE / "split.npz").read_bytes() == split
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize("fits", [1, 3])
def test_a_gpu_without_memory_gets_smaller_queries(monkeypatch, fits):
    """Batches of more than `fits` records fail; the answers are those of batches that fit."""
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
    records = Records(x=x, y=torch.zeros(7).long(), num_cls=3)
    network = torch.nn.Linear(4, 3)
    model = BaseModel(network, device=torch.device("cpu"), generator=torch.Generator())
    ask = lambda: (
        model.logits(records, torch.arange(7)),
        model.sensitivity(records, torch.arange(7), generator=torch.Generator().manual_seed(2)),
    )
    model._in_batches.size = fits
    expected = ask()

    def fail(_, inputs):
        if len(inputs[0]) > fits:
            raise torch.cuda.OutOfMemoryError

    network.register_forward_pre_hook(fail)
    model._in_batches.size = 4 * fits
    assert (
        all(torch.equal(one, other) for one, other in zip(ask(), expected))
        and model._in_batches.size == fits
    )
    network.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError))
    with pytest.raises(UserError, match="too small for a single query"):
        ask()


def test_training_without_memory_says_which_batch_size_to_try(write_config, monkeypatch, capsys):
    def fail(*_):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr("base_model.Objective.criterion", fail)
    assert pretrain.main(["cpu", write_config()]) == 2
    assert (
        "victim: the GPU's memory is too small for --batch_size 128: try --batch_size 64"
        in capsys.readouterr().err
    )


def test_a_loss_that_is_not_finite_names_the_model(write_config, capsys):
    assert pretrain.main(["cpu", write_config(), "--lr", "1e30"]) == 2
    assert "victim: the loss is no longer finite in epoch" in capsys.readouterr().err


def test_a_model_at_chance_is_marked(write_config, capsys):
    run(pretrain, write_config(epochs=1), "--lr", "1e-30")
    said = capsys.readouterr().out
    assert (
        "(!) no better than always naming the most frequent class" in said and "victim (!)" in said
    )
    run(pretrain, write_config(epochs=4), "--fresh")
    assert "victim (!)" not in capsys.readouterr().out
