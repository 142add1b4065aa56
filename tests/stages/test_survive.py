"""A run is killed, crowded, or finds damaged files: the same results as ever, or a line that says what is wrong."""

import contextlib
import hashlib
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import MADE, PROJECT, files, manifest, run, table_arrays

import attackers.neural
import mia
import pretrain
import prune
from base_model import BaseModel, Callback, TrainConfig, TrainSet
from core.console import UserError
from datasets import Records

STAGES = {"pretrain": pretrain, "prune": prune, "mia": mia}
WORDS = {"pretrain": [], "prune": ["--defend", "adv"], "mia": ["--defend", "adv", "--adaptive"]}
ATTACKS = "nn,threshold"


def start(stage, path, *words, **how):
    return subprocess.Popen(
        [sys.executable, PROJECT / f"{stage}.py", "cpu", path, *WORDS[stage], *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )


def states():
    return {path: path.stat().st_mtime_ns for path in Path("results").rglob("*.resume")}


def kill_while_it_trains(stage, path, draw):
    """SIGKILL as soon as a training has saved its state anew, and a little later; it must not have ended."""
    before, process = states(), start(stage, path)
    while process.poll() is None and states().items() <= before.items():
        time.sleep(0.005)
    time.sleep(draw.uniform(0, 0.03))
    assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()


def all_stages(path, draw, kills):
    """Run all stages, each killed so many times before it may end; returns the files that were made."""
    for stage in STAGES:
        for _ in range(kills):
            kill_while_it_trains(stage, path, draw)
        process = start(stage, path, "--save_every", "1000")
        assert process.wait() == 0, process.communicate()
    assert not list(Path("results").rglob("*.resume"))
    return files()


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
    uninterrupted = all_stages(path, None, kills=0)
    Path("results").rename("before")
    assert all_stages(path, random.Random(0), kills=5) == uninterrupted and len(uninterrupted) == 18


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
    assert [file.name for file in states()] == ["model.resume"]
    run(pretrain, path)
    # 3 epochs were kept; each model is tested on its three parts at the end
    assert len(ran) == 4 + (6 - 3) + 3 + 2 * (6 + 3)
    assert not states()


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


# ---- damage ----------------------------------------------------------------------------------------------------------

READ_BY = {
    "split.npz": ("pretrain", "prune", "mia"),
    "victim_model/manifest.json": ("pretrain", "prune", "mia"),
    "shadow_model_1/manifest.json": ("prune", "mia"),
    "victim_model/best.pth": ("pretrain", "prune"),
    "shadow_model_0/best.pth": ("prune",),
    "l1unstructure_0.7_adv_1_model/best.pth": ("prune", "mia"),
    "l1unstructure_0.7_adv_1_model/best_mask.pth": ("prune", "mia"),
    "l1unstructure_0.7_adv_1_model/manifest.json": ("prune", "mia"),
    "shadow_l1unstructure_0.7_adv_1_model_1/best.pth": ("prune", "mia"),
    "l1unstructure_0.7_adv_1_model/scores.npz": ("mia",),
    "l1unstructure_0.7_adv_1_model/attacks.jsonl": ("mia",),
}


@pytest.fixture
def made(write_config):
    path = write_config(epochs=2, attacks=ATTACKS)
    for stage in STAGES:
        run(STAGES[stage], path, *WORDS[stage])
    return path


def table(said):
    return (
        said.split("attack accuracy")[-1]
        if "attack accuracy" in said
        else said.split("kept epoch")[-1]
    )


def outcome(stage, path):
    """(exit status, stdout, stderr) of a stage run in this process."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as error,
    ):
        status = STAGES[stage].main(["cpu", path, *WORDS[stage]])
    return status, out.getvalue(), error.getvalue()


def damage(file, path, draw, attempts):
    """Flip a bit or cut `file` at random, so many times: each run says what is wrong, or all that it says is right.

    Returns how often the damage was noticed.
    """
    whole = (MADE / file).read_bytes()
    right = {stage: table(outcome(stage, path)[1]) for stage in READ_BY[file]}
    noticed = 0
    for attempt in range(attempts):
        damaged = flipped(whole, draw) if attempt % 3 else whole[: draw.randrange(len(whole))]
        for stage in READ_BY[file]:
            (MADE / file).write_bytes(damaged)
            before = files()
            status, out, error = outcome(stage, path)
            if status == 0:
                assert table(out) == right[stage], (file, stage, attempt)
                assert {name for name in files() if files()[name] != before[name]} <= {
                    f"{MADE}/{file}"
                }
            else:
                noticed += 1
                assert status == 2 and error.count("\n") == 1 and Path(file).name in error, error
                assert files() == before, (file, stage, attempt)
    (MADE / file).write_bytes(whole)
    return noticed


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


def flipped(content, draw):
    content = bytearray(content)
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(content)


def test_lines_that_are_gone_are_missed(made):
    file = MADE / "l1unstructure_0.7_adv_1_model/attacks.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    for left in ([], lines[:-1], lines[1:], lines + lines[:1]):
        file.write_text("".join(left))
        status, _, error = outcome("mia", made)
        assert status == 2 and "attacks.jsonl (ValueError)" in error


@pytest.mark.parametrize("file", READ_BY)
def test_damage_is_named_or_harmless(made, file):
    assert damage(file, made, random.Random(file), attempts=12) >= 8


@pytest.mark.parametrize("what", ["logits", "sensitivity", "generated"])
def test_damaged_answers_are_named_or_harmless(write_config, what, monkeypatch):
    """They are read when an attack is made of models that were asked before."""
    monkeypatch.setattr(attackers.neural, "CONFIG", TrainConfig(epochs=2, optimizer="sgd"))
    path, draw = write_config(epochs=2, attacks="blindmi,samia"), random.Random(what)
    for stage in STAGES:
        run(STAGES[stage], path, *WORDS[stage])
    file = MADE / "l1unstructure_0.7_adv_1_model" / f"{what}.npz"
    found, whole, noticed = file.with_name("attacks.jsonl"), file.read_bytes(), 0
    right = table(outcome("mia", path)[1])
    for attempt in range(12):
        found.unlink()
        file.write_bytes(
            flipped(whole, draw) if attempt % 3 else whole[: draw.randrange(len(whole))]
        )
        status, out, error = outcome("mia", path)
        if status == 0:
            assert table(out) == right
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
    (state,) = states()
    whole = state.read_bytes()
    draw = random.Random(0)
    damages = [whole[: draw.randrange(len(whole))] for _ in range(4)] + [b""]
    damages += [flipped(whole, draw) for _ in range(8)]
    evil = packed(Planted())  # with the right digest, too
    for damaged in (*damages, evil, hashlib.sha256(evil).digest() + evil):
        state.write_bytes(damaged)
        capsys.readouterr()
        assert pretrain.main(["cpu", path]) == 2
        assert f"cannot read {state}" in capsys.readouterr().err and not Path("planted").exists()
    state.write_bytes(whole)
    run(pretrain, path)


def interrupt_after(count, real):
    calls = iter(range(count))

    def call(*args):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return real(*args)

    return call


class Planted:
    def __reduce__(self):
        return open, ("planted", "w")


@pytest.mark.parametrize("file", READ_BY)
def test_a_pickle_in_place_of_any_file_does_not_run(made, capsys, file):
    for planted in (pickle.dumps(Planted()), packed(Planted())):
        (MADE / file).write_bytes(planted)
        for stage in READ_BY[file]:
            assert STAGES[stage].main(["cpu", made, *WORDS[stage]]) == 2
            assert Path(file).name in capsys.readouterr().err
    assert not Path("planted").exists()


def packed(content):
    torch.save(content, "packed.pth")
    return Path("packed.pth").read_bytes()


def test_a_pickle_with_the_right_digest_does_not_run_either(made, capsys):
    from core import files as files_module

    folder = MADE / "victim_model"
    (folder / "best.pth").write_bytes(packed(Planted()))
    said = json.loads((folder / "manifest.json").read_text())
    del said["sha256"]
    said["files"]["best.pth"] = hashlib.sha256((folder / "best.pth").read_bytes()).hexdigest()
    (folder / "manifest.json").write_bytes(files_module.sealed_json(said))
    assert prune.main(["cpu", made]) == 2
    assert "best.pth (UnpicklingError)" in capsys.readouterr().err and not Path("planted").exists()


# ---- files of other programs ----------------------------------------------------------------------------------------


def everything():
    return {
        str(path): path.read_bytes()
        for path in sorted(Path("results").rglob("*"))
        if path.is_file()
    }


FOREIGN = b"weights of another program"


@pytest.mark.parametrize(
    "file",
    [
        "victim_model/best.pth",
        "shadow_model_1/best.pth",
        "victim_model/best_mask.pth",
        "victim_model/manifest.json",
        "split.npz",
        "data_index.pkl",
    ],
)
@pytest.mark.parametrize("content", [FOREIGN, pickle.dumps([1, 2])], ids=["bytes", "pickle"])
def test_pretrain_replaces_no_file_of_another_program(write_config, file, content):
    path, foreign = write_config(epochs=1), MADE / file
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(content)
    for _ in range(2):  # the first attempt does not make it ours
        status, _, error = outcome("pretrain", path)
        assert status == 2 and error.count("\n") == 1 and str(foreign) in error, error
        assert "--fresh" in error and "another --results folder" in error
        assert {name: text for name, text in everything().items() if "lock" not in name} == {
            str(foreign): content
        }
    run(pretrain, path, "--fresh")
    assert (
        foreign.name == "best_mask.pth"
        or file == "data_index.pkl"
        or foreign.read_bytes() != content
    )
    run(prune, path)


@pytest.mark.parametrize("file", ["best.pth", "best_mask.pth"])
def test_prune_replaces_no_file_of_another_program_and_mia_names_what_is_missing(
    write_config, file
):
    path = write_config(epochs=1)
    run(pretrain, path)
    foreign = MADE / "shadow_l1unstructure_0.7_adv_1_model_1" / file
    foreign.parent.mkdir()
    foreign.write_bytes(FOREIGN)
    before = everything()
    for stage in ("prune", "mia"):
        status, _, error = outcome(stage, path)
        assert (
            status == 2 and f"manifest.json is missing beside {foreign}" in error or stage == "mia"
        ), error
        assert {
            name: text for name, text in everything().items() if not name.endswith(".lock")
        } == {name: text for name, text in before.items() if not name.endswith(".lock")}
    run(prune, path, *WORDS["prune"], "--fresh")
    run(mia, path, *WORDS["mia"], "--attacks", "gap")


@pytest.mark.parametrize("stage", ["prune", "mia"])
def test_models_of_another_program_are_not_said_to_be_absent(write_config, stage):
    for folder in (
        "victim_model",
        "shadow_model_0",
        "shadow_model_1",
        "l1unstructure_0.7_adv_1_model",
    ):
        (MADE / folder).mkdir(parents=True)
        (MADE / folder / "best.pth").write_bytes(FOREIGN)
    before = everything()
    status, _, error = outcome(stage, write_config())
    assert status == 2 and f"manifest.json is missing beside {MADE}/victim_model/best.pth" in error
    assert "is not there" not in error and everything() == before


@pytest.mark.parametrize("file", ["attacks.jsonl", "scores.npz"])
@pytest.mark.parametrize(
    "content", [b"", b'{"attack": "conf", "accuracy": 0.5}\n', pickle.dumps([1])]
)
def test_mia_replaces_no_findings_of_another_program(write_config, file, content):
    path, foreign = write_config(epochs=1, attacks="gap"), MADE / "victim_model" / file
    run(pretrain, path)
    foreign.write_bytes(content)
    before = files()
    for words in (["gap"], ["loss"]):
        with contextlib.redirect_stderr(io.StringIO()) as error:
            assert mia.main(["cpu", path, "--original", "--attacks", *words]) == 2
        assert (
            str(foreign) in error.getvalue() and "--fresh" in error.getvalue() and files() == before
        )
    run(mia, path, "--original", "--fresh")
    run(mia, path, "--original", "--attacks", "loss")
    assert len((MADE / "victim_model/attacks.jsonl").read_text().splitlines()) == 2


def test_fresh_keeps_the_findings_that_can_be_read(write_config):
    path, file = write_config(epochs=1), MADE / "victim_model/attacks.jsonl"
    run(pretrain, path)
    run(mia, path, "--original", "--attacks", "gap,loss,attack_p")
    first, second, *_ = lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([first, second.replace("0", "1"), *lines[2:]]))
    run(mia, path, "--original", "--attacks", "attack_p", "--fresh")
    assert {json.loads(line)["attack"] for line in file.read_text().splitlines()} == {
        "gap",
        "attack_p",
    }


def killed_at(step, stage, words):
    """Whether a stage was killed just before it put the `step`-th file in its place; False where it ended before."""
    pid = os.fork()
    if pid == 0:
        real, done = os.replace, []

        def replace(*names):
            done.append(names)
            if len(done) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            real(*names)

        os.replace = replace
        with contextlib.redirect_stdout(io.StringIO()):
            os._exit(STAGES[stage].main(["cpu", *words]))
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("fresh", [False, True])
def test_killed_between_any_two_files_its_files_are_not_taken_for_another_programs(
    write_config, fresh
):
    """best.pth may lie there without a manifest then: the new one, or with --fresh that of before."""
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
        if not killed_at(step, "prune", [path, *["--fresh"] * fresh]):
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


# ---- two at once, a full disk, a GPU without memory ------------------------------------------------------------------


def test_a_second_process_is_told_who_is_at_work(write_config, capsys):
    path = write_config(epochs=100_000, save_every=0)
    process = start("pretrain", path)
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
    process = start("prune", path, preexec_fn=limit)
    _, error = process.communicate()
    assert (
        process.returncode == 2
        and error.startswith("error: cannot write")
        and error.count("\n") == 1
    )
    assert (
        files().items() >= before.items()
        and not (MADE / "l1unstructure_0.7_adv_1_model/manifest.json").exists()
    )
    run(prune, path, *WORDS["prune"])
    before = files()
    process = start("prune", path, "--fresh", preexec_fn=limit)
    _, error = process.communicate()
    assert process.returncode == 2 and "cannot write" in error and files() == before


def test_a_split_in_use_is_not_replaced(write_config, capsys):
    path = write_config(epochs=100_000, save_every=0)
    process = start("pretrain", path)
    while process.poll() is None and not (MADE / "victim_model/.model.lock.json").exists():
        time.sleep(0.02)
    try:
        split = (MADE / "split.npz").read_bytes()
        assert pretrain.main(["cpu", path, "--fresh", "--seed", "8"]) == 2
        assert "is being made by process" in capsys.readouterr().err
        assert (MADE / "split.npz").read_bytes() == split
    finally:
        process.kill()
        process.communicate()


def test_models_are_children_of_the_originals_that_were_loaded(write_config, monkeypatch, capsys):
    """Not of those that came in their place while they were pruned."""
    path = write_config(epochs=1)
    run(pretrain, path)
    real = BaseModel.train

    def meanwhile(self, *args, **how):
        monkeypatch.setattr(BaseModel, "train", real)
        run(pretrain, path, "--lr", "0.01", "--fresh")
        return real(self, *args, **how)

    monkeypatch.setattr(BaseModel, "train", meanwhile)
    run(prune, path)
    assert mia.main(["cpu", path, "--attacks", "threshold"]) == 2
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


@pytest.mark.parametrize("fits", [1, 3])
def test_a_gpu_without_memory_gets_smaller_queries(monkeypatch, fits):
    """Batches of more than `fits` records fail; the answers are those of batches that fit from the start."""
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


@pytest.mark.parametrize("defend", ["", "adv"])
def test_training_in_two_halves_is_the_same_to_the_last_bit(defend):
    """With dropout, an order of batches, momentum, milestones, early stopping and a defence that learns."""
    from defenders import DEFENDERS
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
        defender = DEFENDERS.load(defend)(1.0)
        data = TrainSet(records, torch.arange(150), torch.arange(150, 200))
        defender.setup(data, batch_size=16, generator=draw)
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
