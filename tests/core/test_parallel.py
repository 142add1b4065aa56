"""Many models at once: the same results, and no process left behind."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import PROJECT, heed_ctrl_c

import mia
import pretrain
import prune
from core.console import UserError
from core.parallel import WorkerDied, parallel_map
from models.layers import initialise, seed_dropout
from transformer import SelfAttentionAttack

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="after a backward pass here, forks can't make one"
)


@pytest.mark.slow
def test_files_are_the_same_however_many_workers(write_config):
    path = write_config()
    made = []
    for workers in ("1", "2", "3"):
        for stage, words in (
            (pretrain, []),
            (prune, ["--defend", "ppb"]),
            (mia, ["--defend", "ppb", "--adaptive", "--attacks", "nn,threshold,nn_top3"]),
        ):
            assert stage.main(["cpu", path, "--workers", workers, "--fresh", *words]) == 0
        made.append(
            {
                str(file): hashlib.sha256(file.read_bytes()).hexdigest()
                for file in Path("results").rglob("*")
                if file.is_file()
                and file.name != "manifest.json"
                and file.suffix not in (".lock", ".sha256")
            }
        )
    assert made[0] == made[1] == made[2] and len(made[0]) == 17


def test_threads_are_those_asked_for_whatever_is_left_to_do(write_config):
    """One task among several workers is worked on as it would be in company."""
    before = torch.get_num_threads()
    ask = lambda names: dict(
        parallel_map(
            lambda name, progress: (torch.get_num_threads(), os.getpid() != parent),
            names,
            workers=2,
            threads=2,
        )
    )
    parent = os.getpid()
    assert (
        ask(["a"]) == {"a": (2, True)}
        and ask("ab") == {"a": (2, True), "b": (2, True)}
        and ask([]) == {}
    )
    assert torch.get_num_threads() == before


def test_epochs_of_all_workers_are_told_to_the_parent(monkeypatch):
    told = []
    monkeypatch.setattr(
        "core.console.epoch_bar",
        lambda epochs, label: (
            lambda *of: told.append((label, epochs, *of)),
            lambda: told.append((label, "closed")),
        ),
    )

    def task(name, progress):
        on_epoch, close = progress(2, name)
        on_epoch(1, 0.5)
        on_epoch(2, None)
        close()
        return os.getpid()

    pids = dict(parallel_map(task, ["a", "b"], workers=2))
    assert os.getpid() not in pids.values()
    for name in "ab":
        assert [of for of in told if of[0] == name][:3] == [
            (name, 2, 1, 0.5),
            (name, 2, 2, None),
            (name, "closed"),
        ]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_task_ends_all(workers):
    def task(name, progress):
        if name == "b":
            raise UserError("b is wrong")
        time.sleep(60 if name == "c" else 0)

    start = time.monotonic()
    with pytest.raises(UserError, match="b is wrong"):
        list(parallel_map(task, ["b", "c"], workers=workers))
    assert time.monotonic() - start < 30


def test_a_worker_that_dies_is_one_line():
    with pytest.raises(UserError, match="a worker process has died"):
        list(
            parallel_map(
                lambda name, progress: os.kill(os.getpid(), signal.SIGKILL), ["a", "b"], workers=2
            )
        )


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_errors_that_may_be_are_yielded_and_the_others_go_on(workers):
    def task(name, progress):
        if name in "bd":
            raise {"b": UserError, "d": MemoryError}[name](f"{name} is wrong")
        return name

    found = dict(parallel_map(task, "abcde", workers=workers, goes_on=(UserError, MemoryError)))
    assert sorted(found) == list("abcde") and all(found[name] == name for name in "ace")
    assert (
        type(found["b"]) is UserError
        and type(found["d"]) is MemoryError
        and "d is wrong" in str(found["d"])
    )
    with pytest.raises(MemoryError):
        list(parallel_map(task, "abcde", workers=workers, goes_on=(UserError,)))


@pytest.mark.parametrize("workers", [2, 3])
def test_a_worker_that_dies_takes_no_other_task_with_it(workers):
    def task(name, progress):
        if name in "bd":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.1)
        return name

    found = dict(parallel_map(task, "abcdef", workers=workers, goes_on=(WorkerDied,)))
    assert sorted(found) == list("abcdef") and all(found[name] == name for name in "acef")
    assert all(isinstance(found[name], WorkerDied) for name in "bd")


@pytest.mark.survive
def test_ctrl_c_ends_every_process(write_config):
    process = subprocess.Popen(
        [
            sys.executable,
            PROJECT / "pretrain.py",
            "cpu",
            write_config(epochs=100_000),
            "--workers",
            "2",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,  # noqa: PLW1509
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and len(children.read_text().split()) < 2:
        time.sleep(0.05)
    forked = children.read_text().split()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130 and error.strip() == "interrupted"
    assert len(forked) >= 2 and not any(Path(f"/proc/{pid}").exists() for pid in forked)


def test_samia_trains_in_a_forked_process_after_it_has_trained_here():
    def train(name, progress):
        network = SelfAttentionAttack(num_cls=3)
        initialise(network, torch.Generator().manual_seed(0))
        seed_dropout(network, seed=0)
        network(torch.ones(130, 3, 3)).sum().backward()
        return network.out.bias.grad.tolist()

    here = train("here", None)
    assert dict(parallel_map(train, ["a", "b"], workers=2)) == {"a": here, "b": here}
