"""Studies on this machine find what the stages find by hand, whatever fails or is killed."""

import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PROJECT, is_held, result_digests, wait_for

import mia
import pretrain
import prune
import study
from attackers import neural
from base_model import BaseModel, TrainConfig


@pytest.mark.slow
def test_it_finds_what_the_stages_find_by_hand_and_keeps_it(grid, write_config, capsys):
    path, config = grid(prune_sparsity=[0.5, 0.7], defend="ppb"), write_config()
    assert study.main([path, "--device", "cpu", "--jobs", "2"]) == 0
    assert "[2/2]" in capsys.readouterr().out
    hand = ["--results", "by_hand/seed_7"]
    assert pretrain.main(["cpu", config, *hand]) == 0
    for sparsity, (stage, defence) in itertools.product(
        ("0.5", "0.7"), ((prune, ""), (prune, "ppb"), (mia, "ppb"))
    ):
        more = ["--attacks", "threshold"] if stage is mia else []
        assert (
            stage.main(
                ["cpu", config, *hand, "--prune_sparsity", sparsity, "--defend", defence, *more]
            )
            == 0
        )
    assert (
        result_digests("results/grid") == result_digests("by_hand")
        and len(result_digests("by_hand")) > 15
    )
    before = {
        path: path.stat().st_mtime_ns
        for path in Path("results").rglob("[!.]*.*")
        if path.is_file() and path.parent.name != "logs"
    }
    assert study.main([path, "--device", "cpu"]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.slow
def test_a_failed_cell_is_reported_and_stops_no_other(grid, capsys):
    path = grid(lr=[1e30, 0.01], prune_sparsity=[0.5, 0.7])
    with pytest.raises(SystemExit) as end:
        study.main([path, "--device", "cpu"])
    said = capsys.readouterr().out
    assert end.value.code == 1
    assert "2 of 4 cells failed" in said and "(and 2 cells behind it)" in said
    assert "the loss is no longer finite" in said.split("2 of 4 cells failed")[1]
    log = Path(said.split("log: ")[1].split()[0])
    assert "error: " in log.read_text()
    assert len(list(Path("results/grid/seed_7_lr_0.01").rglob("attacks.jsonl"))) == 2


@pytest.mark.survive
def test_killed_it_leaves_nothing_running_and_goes_on(grid, write_config):
    path = grid(
        config=write_config(epochs=150, prune_epochs=1, shadow_num=1), seed=[1, 2], save_every=0
    )
    words = [path, "--device", "cpu", "--results"]
    command = [sys.executable, PROJECT / "study.py", *words, "killed"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_for(lambda: len(list(Path("killed").rglob("model.resume"))) > 1)
    pids = {
        json.loads(path.read_text())["pid"] for path in Path("killed").rglob(".model.lock.json")
    }
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert pids
    wait_for(lambda: not [lock for lock in Path("killed").rglob(".model.lock") if is_held(lock)])
    for results in ("killed", "whole"):
        assert study.main([*words, results]) == 0
    assert result_digests("killed") == result_digests("whole") and len(result_digests("whole")) > 15


def test_an_attack_network_is_trained_once_for_all_victims(grid, write_config, monkeypatch):
    monkeypatch.setattr(neural, "CONFIG", TrainConfig(epochs=2, optimizer="sgd"))
    config, trained = write_config(), []
    train = BaseModel.train
    monkeypatch.setattr(
        BaseModel, "train", lambda *args, **how: trained.append(1) or train(*args, **how)
    )
    assert pretrain.main(["cpu", config]) == 0
    for defence in ("", "ppb"):
        assert prune.main(["cpu", config, "--defend", defence]) == 0
    del trained[:]
    assert mia.main(["cpu", config, "--attacks", "nn"]) == 0 and len(trained) == 1
    assert (
        mia.main(["cpu", config, "--attacks", "nn", "--defend", "ppb"]) == 0 and len(trained) == 1
    )
    kept = result_digests()
    assert (
        mia.main(["cpu", config, "--attacks", "nn", "--defend", "ppb", "--adaptive"]) == 0
        and len(trained) == 2
    )
    assert (
        mia.main(["cpu", config, "--attacks", "nn", "--train_seed", "7", "--original"]) == 0
        and len(trained) == 3
    )
    assert (
        mia.main(["cpu", config, "--attacks", "nn", "--defend", "ppb", "--fresh"]) == 0
        and len(trained) == 4
    )
    name = "tiny_columnfc/l1unstructure_0.7_ppb_4_model/attacks.jsonl"
    now = [line for line in result_digests()[name] if not line["adaptive"]]
    assert now == kept[name]  # trained anew or kept, it says the same


def test_damage_to_a_kept_network_is_noticed(write_config, monkeypatch, capsys):
    monkeypatch.setattr(neural, "CONFIG", TrainConfig(epochs=2, optimizer="sgd"))
    config = write_config()
    for stage, words in (
        (pretrain, []),
        (prune, []),
        (mia, ["--attacks", "nn"]),
        (prune, ["--defend", "ppb"]),
    ):
        assert stage.main(["cpu", config, *words]) == 0
    (path,) = Path("results").rglob("nn_*.pth")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    capsys.readouterr()
    assert mia.main(["cpu", config, "--attacks", "nn", "--defend", "ppb"]) == 2
    assert path.name in capsys.readouterr().err


@pytest.mark.slow
def test_a_cell_with_an_attack_that_fails_is_named_with_all_errors_and_stops_no_other(
    grid, capsys, tmp_path
):
    """Stages run in processes of their own; where an attack's lock is taken, it fails."""
    path = grid(attacks="gap,loss,threshold", prune_sparsity=[0.5, 0.7])
    folder = Path("results/grid/seed_7/tiny_columnfc/l1unstructure_0.5_model")
    folder.mkdir(parents=True)
    for attack in ("gap", "loss"):
        (folder / f".{attack}.lock").mkdir()  # cannot be locked
    with pytest.raises(SystemExit) as end:
        study.main([path, "--device", "cpu"])
    said = capsys.readouterr().out
    assert end.value.code == 1 and "1 of 2 cells failed" in said
    last = said.split("1 of 2 cells failed")[1]
    assert "gap: cannot lock" in last and "loss: cannot lock" in last
    made = {
        path.parent.name: len(path.read_text().splitlines())
        for path in Path("results").rglob("attacks.jsonl")
    }
    assert made == {"l1unstructure_0.5_model": 4, "l1unstructure_0.7_model": 6}
