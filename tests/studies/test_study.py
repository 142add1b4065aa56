"""study.py: what cells and stages a grid comes to, and that running them gives what the stages give by hand."""

import hashlib
import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
from helpers import PROJECT, config_writer

import mia
import pretrain
import prune
import study
from attackers import neural
from base_model import TrainConfig
from bench.command_line import as_config, parse
from bench.layout import ModelSet
from bench.options import OPTIONS
from studies import running
from studies.grid import read_cells
from studies.plan import plan
from studies.runners import STAGES, copy_code

SHIPPED = sorted((PROJECT / "config" / "studies").glob("*.json"))


@pytest.fixture
def grid(write_config, tmp_path):
    """grid(**keys) -> path of a study of the tiny config."""

    def write(name="grid.json", config=None, **keys):
        path = tmp_path / name
        path.write_text(
            json.dumps({"config": config or write_config(), "attacks": "threshold"} | keys)
        )
        return str(path)

    return write


def planned(path):
    return plan(read_cells(path, device="cpu", results="results"))


def commands(path):
    return [shlex.join([job.stage, *job.command[4:]]) for job in planned(path)]


def found(results="results"):
    """Digests of all that was found, by file; measures without where and how they were made."""
    files = {}
    for path in sorted(Path(results).rglob("*")):
        name = str(path.relative_to(results))
        if path.suffix == ".pth" or path.name in ("split.npz", "scores.npz"):
            files[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.name == "attacks.jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            files[name] = [
                {
                    key: value
                    for key, value in line.items()
                    if key not in ("results", "sha256", "data_root", "attacks", "lines")
                }
                for line in lines
            ]
    return files


# ---- the plan


def test_each_stage_once_however_many_cells_share_it(grid):
    path = grid(
        seed=[1, 2], prune_sparsity=[0.5, 0.7], defend=["", ["ppb", 2]], adaptive=[False, True]
    )
    made = commands(path)
    assert len(made) == len(set(made))
    assert [
        sum(line.startswith(stage) for line in made) for stage in ("pretrain", "prune", "mia")
    ] == [2, 8, 12]
    assert (
        "prune --seed 2 --prune_sparsity 0.5 --defend ppb --defend_arg 2 --results results/grid/seed_2"
        in made
    )


def test_what_has_no_meaning_in_a_cell_is_left_out(grid):
    made = [
        line
        for line in commands(
            grid(
                original=[True, False],
                prune_sparsity=[0.5, 0.6],
                defend=["", "ppb"],
                adaptive=[False, True],
            )
        )
        if line.startswith("mia")
    ]
    assert sum("--original" in line for line in made) == 1  # of neither sparsity nor defence
    assert sum("--adaptive" in line for line in made) == 2  # one a sparsity, of ppb
    assert len(made) == 1 + 2 + 2 + 2


def test_equal_cells_are_one_with_the_attacks_of_both(grid):
    made = commands(
        grid(
            grids=[
                {"prune_sparsity": 0.7, "attacks": ["nn", "gap"]},
                {"attacks": "gap,loss"},
                {"prune_sparsity": [0.5]},
            ]
        )
    )
    assert [line.partition("--attacks ")[2] for line in made if line.startswith("mia")] == [
        "nn,gap,loss",
        "threshold",
    ]


def test_all_and_a_name_are_all(grid):
    made = commands(grid(shadow_num=3, grids=[{"attacks": "nn"}, {"attacks": "all"}]))
    assert made[-1].endswith("--attacks all")


def test_models_are_shared_among_numbers_of_shadows(grid):
    made = commands(grid(shadow_num=[1, 4, 2]))
    assert [line for line in made if not line.startswith("mia")] == [
        "pretrain --shadow_num 4 --results results/grid/seed_7",
        "prune --shadow_num 4 --results results/grid/seed_7",
    ]
    assert ["--shadow_num 1 " in line for line in made if line.startswith("mia")] == [
        True,
        False,
        False,
    ]


def test_what_names_do_not_tell_apart_has_folders_apart(grid):
    made = commands(grid(lr=[0.01, 0.001], seed=[1, 2], prune_sparsity=[0.5, 0.7]))
    folders = {line.split("--results ")[1].split()[0] for line in made}
    assert folders == {
        f"results/grid/seed_{seed}{lr}" for seed in (1, 2) for lr in ("", "_lr_0.01")
    }
    apart = {
        line.split("--results ")[1].split()[0]
        for line in commands(grid(epochs=[2, 4], train_seed=[1, 7]))
    }
    assert apart == {
        f"results/grid/seed_7{epochs}{draw}"
        for epochs in ("", "_epochs_2")
        for draw in ("", "_train_seed_1")
    }  # what the config says itself has no part in it


def test_a_study_that_grows_finds_what_is_there(grid):
    before = {job.options.results for job in planned(grid(lr=0.01))}
    assert before < {
        job.options.results for job in planned(grid(lr=[0.01, 0.02, 0.001], seed=[7, 8]))
    }


VALUES = {
    "prune_sparsity": [0.5, 0.7],
    "defend": ["", "ppb", ["adv", 2], ["dp", 1]],
    "adaptive": [True, False],
    "original": [True, False],
    "from_scratch": [True, False],
    "seed": [7, 3],
    "train_seed": [7, 5],
    "epochs": [4, 6],
    "prune_epochs": [2, 3],
    "lr": [0.001, 0.1],
    "shadow_num": [3, 5],
    "dp_lr": [1.0, 0.5],
    "fix_variance": [True, False],
    "rmia_a": [0.3, "choose"],
    "precision": ["fp32"],
    "split": ["paper", "inout"],
    "tensorboard": [True],
    "attacks": ["lira,rmia", "all"],
    "delta": [1e-5, 1e-4],
}


@pytest.mark.parametrize("seed", range(40))
def test_each_stage_is_told_just_what_was_planned(grid, write_config, tmp_path, seed):
    """Over random studies of random configs: what the stage reads of its own config is what the study meant; so is the
    command line that is shown, where the config itself says no flag, which a command line cannot take back."""
    draw = np.random.default_rng(seed)

    def some(number):
        return draw.choice(sorted(VALUES), size=number, replace=False)

    said = {name: VALUES[name][draw.integers(len(VALUES[name]))] for name in some(4)}
    if isinstance(said.get("defend"), list):
        said["defend"], said["defend_arg"] = said["defend"]
    listed = {name: VALUES[name] if name != "attacks" else VALUES[name][0] for name in some(4)} | {
        "shadow_num": 8
    }
    jobs = planned(grid(config=write_config(**said), **listed))
    assert jobs
    flags = {"adaptive", "original", "from_scratch", "tensorboard"} & set(said)
    for number, job in enumerate(jobs):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(as_config(job.options)))
        told = [(parse(job.stage, ["cpu", str(path)]), OPTIONS)]
        if not flags:
            own = [name for name, option in OPTIONS.items() if job.stage in option.stages]
            told.append((parse(job.stage, job.command[2:]), own))
        for options, names in told:
            assert {name: getattr(options, name) for name in names} == {
                name: getattr(job.options, name) for name in names
            }, shlex.join(job.command)


def test_a_config_counts_in_what_has_a_meaning(grid, write_config):
    private = [
        job.options for job in planned(grid(config=write_config(defend="dp"), dp_lr=[0.1, 1.0]))
    ]
    assert {job.dp_lr for job in private if job.stage == "prune_dp"} == {0.1, 1.0}
    known = planned(grid(config=write_config(adaptive=True), defend=["", "ppb"]))
    assert [job.options.adaptive for job in known if job.stage == "mia"] == [False, True]
    original = planned(grid(config=write_config(original=True), prune_sparsity=[0.5, 0.6]))
    assert [job.stage for job in original] == ["pretrain", "mia"]


def test_two_attacks_that_share_a_victim_or_shadows_are_never_at_work_at_once(grid):
    jobs = planned(
        grid(
            seed=[1, 2],
            defend=["", "ppb", "adv"],
            adaptive=[False, True],
            original=[False, True],
            shadow_num=[1, 2],
        )
    )
    before = {}
    for job in jobs:  # all that must have ended before it starts
        assert all(other in before for other in job.needs + job.after)
        before[job] = set(job.needs + job.after).union(
            *(before[other] for other in job.needs + job.after)
        )

    def works_on(job):
        models = ModelSet(job.options)
        if job.options.original:
            return {("victim", models.root, ""), ("shadow", models.root, "")}
        shadows = models if job.options.adaptive else models.undefended
        return {("victim", models.root, models.version), ("shadow", models.root, shadows.version)}

    attacks = [job for job in jobs if job.stage == "mia"]
    shared = [(a, b) for a, b in itertools.combinations(attacks, 2) if works_on(a) & works_on(b)]
    assert len(shared) > 20 and all(a in before[b] for a, b in shared)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_studies_can_be_planned(path, monkeypatch):
    monkeypatch.chdir(PROJECT)
    jobs = planned(str(path))
    assert json.loads(path.read_text())["about"] and sum(job.stage == "mia" for job in jobs) > 5
    lines = [shlex.join(job.command) for job in jobs]
    assert len(lines) == len(set(lines))


def test_location_is_the_study_that_was_asked_for(monkeypatch):
    monkeypatch.chdir(PROJECT)
    jobs = [job for job in planned("config/studies/location.json") if job.stage == "mia"]
    assert len(jobs) == 3 * (1 + 5 * (1 + 2 + 2))
    neural_cells = [job.options for job in jobs if "samia" in job.options.attacks]
    assert all(cell.original or cell.prune_sparsity == 0.7 for cell in neural_cells)
    assert sorted(cell.seed for cell in neural_cells) == [7] * 6 + [8, 9]


@pytest.mark.parametrize(
    "keys, said",
    [
        ({"prune_sparsty": [0.5]}, "did you mean 'prune_sparsity'"),
        ({"prune_sparsity": [0.5, 2]}, "prune_sparsity must be"),
        ({"defend": ["ppb", 4]}, "defend is a list of names and of pairs"),
        ({"defend": [["ppb", 4, 5]]}, "defend is a list of names and of pairs"),
        ({"attacks": "nope"}, "unknown attack 'nope'"),
        ({"attacks": ["lira"], "shadow_num": [5, 2]}, "lira needs at least 3 shadow models"),
        ({"seed": []}, "seed is an empty list"),
        ({"grids": []}, "grids must be a list"),
        ({"grids": [{"seeds": 1}]}, "unknown key 'seeds'"),
        ({"results": "elsewhere"}, "results is not for a study"),
        ({"grids": [{"grids": [{}]}]}, "grids must be a list"),
        ({"about": 3}, "about must be a text"),
        ({"tensorboard": [True, False]}, "tensorboard changes no result"),
        ({"prune_sparsity": [0.7, 0.70000001]}, "options that differ too little"),
        ({"config": 3}, "config is missing"),
        ({"config": "absent.json"}, "absent.json: No such file or directory in /"),
        ({"config": [""]}, "config: a path is missing"),
        (
            {"adaptive": "yes"},
            "adaptive must be true or false, not 'yes'",
        ),  # without a defence it has no effect
        (
            {"original": True, "prune_sparsity": 70},
            "prune_sparsity must be a number between 0 and 1",
        ),
        ({"original": True, "defend": [["nope", 4]]}, "unknown defence 'nope'"),
        (
            {"original": True, "defend": [["ppb", "a lot"]]},
            "defend_arg must be a number of 0 or more, not 'a lot'",
        ),
        ({"dp_lr": 0}, "dp_lr must be a number above 0"),
        ({"pruner_name": "slim"}, "slim prunes"),
    ],
)
def test_a_wrong_study_is_one_line_and_nothing_is_written(grid, keys, said, capsys):
    path = grid(**keys)
    capsys.readouterr()
    assert study.main([path, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not Path("results").exists()


@pytest.mark.parametrize("text", ["", "[]", "{", "3"])
def test_what_is_no_study_is_one_line(tmp_path, text, capsys):
    (tmp_path / "x.json").write_text(text)
    assert (
        study.main([str(tmp_path / "x.json")]) == 2
        and study.main([str(tmp_path / "absent.json")]) == 2
    )
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize(
    "words, said",
    [
        (["--jobs", "0"], "must be a whole number from 1, not '0'"),
        (["--jobs", "x"], "must be a whole number from 1"),
        (["--ship"], "--ray"),
        (["--gpus_per_task", "1"], "--ray"),
        (["--cpus_per_task", "x"], "must be a number of 0"),
        (["--ray", "auto", "--jobs", "2"], "--jobs is for this machine"),
        (["--results", "/proc/none"], "cannot write in"),
        (["--device", "tpu"], "device must be"),
        (["--ray", "127.0.0.1:1", "--device", "cpu"], "no Ray cluster at"),
    ],
)
def test_a_wrong_command_is_one_line(grid, words, said, capsys):
    assert study.main([grid(), *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not Path("results").exists()


# ---- running it


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
    assert found("results/grid") == found("by_hand") and len(found("by_hand")) > 15
    before = {
        path: path.stat().st_mtime_ns
        for path in Path("results").rglob("[!.]*.*")
        if path.is_file() and path.parent.name != "logs"
    }
    assert study.main([path, "--device", "cpu"]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}


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


def test_killed_it_leaves_nothing_running_and_goes_on(grid, write_config):
    path = grid(
        config=write_config(epochs=150, prune_epochs=1, shadow_num=1), seed=[1, 2], save_every=0
    )
    words = [sys.executable, PROJECT / "study.py", path, "--device", "cpu", "--results"]
    process = subprocess.Popen([*words, "killed"], stdout=subprocess.DEVNULL)
    wait_for(lambda: len(list(Path("killed").rglob("model.resume"))) > 1)
    pids = {
        json.loads(path.read_text())["pid"] for path in Path("killed").rglob(".model.lock.json")
    }
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert pids
    wait_for(lambda: not [lock for lock in Path("killed").rglob(".model.lock") if held(lock)])
    for results in ("killed", "whole"):
        assert subprocess.run([*words, results], stdout=subprocess.DEVNULL).returncode == 0
    assert found("killed") == found("whole") and len(found("whole")) > 15


def held(lock):
    """Whether a process holds this lock, and so runs on."""
    try:
        with filelock.FileLock(lock, timeout=0):
            return False
    except filelock.Timeout:
        return True


def wait_for(what, seconds=120):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def test_time_left_by_what_was_like_it(grid, monkeypatch):
    jobs = planned(grid(prune_sparsity=[0.5, 0.6, 0.7]))
    assert running.time_left(jobs, 1) is None
    monkeypatch.setattr(running.time, "monotonic", lambda: 100.0)
    made, first, attack, second, *_ = jobs
    made.state, made.seconds, first.state, first.seconds = "done", 40.0, "done", 10.0
    attack.state, attack.began = "running", 95.0
    # two prunings of 10 s; three attacks, of which nothing is known, of (40 + 10) / 2 s, one of them 5 s old
    assert running.time_left(jobs, 2) == pytest.approx((2 * 10 + 3 * 25 - 5) / 2)


# ---- attack networks


def test_an_attack_network_is_trained_once_for_all_victims(grid, write_config, monkeypatch):
    monkeypatch.setattr(neural, "CONFIG", TrainConfig(epochs=2, optimizer="sgd"))
    config, trained = write_config(), []
    train = neural.BaseModel.train
    monkeypatch.setattr(
        neural.BaseModel, "train", lambda *args, **how: trained.append(1) or train(*args, **how)
    )
    assert pretrain.main(["cpu", config]) == 0
    for defence in ("", "ppb"):
        assert prune.main(["cpu", config, "--defend", defence]) == 0
    del trained[:]
    assert mia.main(["cpu", config, "--attacks", "nn"]) == 0 and len(trained) == 1
    assert (
        mia.main(["cpu", config, "--attacks", "nn", "--defend", "ppb"]) == 0 and len(trained) == 1
    )
    kept = found()
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
    now = [line for line in found()[name] if not line["adaptive"]]
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


# ---- on a Ray cluster


def test_nodes_are_sent_the_code_and_nothing_else(tmp_path):
    """In a folder that is no git repository, beside large and private files; stages run in the copy."""
    project, copy = tmp_path / "project", tmp_path / "copy"
    copy_code(PROJECT, project)
    for name in (
        "checkpoints.bin",
        "venv/lib/x.py",
        "wandb/run/y.py",
        "models/weights.pth",
        "results/z.json",
        ".env",
        "data/a.npz",
    ):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(b"large")
    copy_code(project, copy)
    names = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    assert {
        "pretrain.py",
        "mia.py",
        "bench/options.py",
        "core/files.py",
        "attackers/lira.py",
        "models/column.py",
    } <= names
    assert all(name.endswith(".py") for name in names) and not any(
        name.startswith(("venv", "wandb", "tests", "benchmarks")) for name in names
    )
    assert sum(path.stat().st_size for path in copy.rglob("*.py")) < 2**21
    for stage in STAGES:
        ran = subprocess.run(
            [sys.executable, f"{stage}.py", "--help"], cwd=copy, capture_output=True
        )
        assert ran.returncode == 0, ran.stderr
    config = config_writer(tmp_path)(epochs=1, shadow_num=1)
    for words in (
        ["pretrain.py", "cpu", config],
        ["mia.py", "cpu", config, "--original", "--attacks", "gap,nn"],
    ):
        ran = subprocess.run(
            [sys.executable, *words, "--results", tmp_path / "made"], cwd=copy, capture_output=True
        )
        assert ran.returncode == 0, ran.stderr


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two nodes on this machine, of one CPU each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A study, and what processes of this machine find in it."""
    folder = tmp_path_factory.mktemp("local")
    config = config_writer(folder)(epochs=20, save_every=0, shadow_num=1)
    path = folder / "grid.json"
    path.write_text(
        json.dumps({"config": config, "seed": [1, 2, 3], "attacks": ["threshold", "loss"]})
    )
    words = [
        sys.executable,
        PROJECT / "study.py",
        path,
        "--device",
        "cpu",
        "--results",
        folder / "results",
    ]
    assert subprocess.run(words, stdout=subprocess.DEVNULL).returncode == 0
    return path, found(folder / "results")


def at_work(raylet):
    """Whether a stage runs below this process."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True
    ).stdout
    processes = [line.split(maxsplit=2) for line in listed.splitlines()]
    below = {str(raylet)}
    while more := {pid for pid, parent, _ in processes if parent in below} - below:
        below |= more
    return any(
        stage in args
        for pid, _, args in processes
        if pid in below
        for stage in ("pretrain.py", "prune.py", "mia.py")
    )


@pytest.mark.parametrize("ship", [False, True], ids=["shared folder", "object store"])
def test_a_node_that_dies_changes_no_result(cluster, local, ship):
    path, whole = local
    node = cluster.add_node(num_cpus=1)
    words = ["--ray", cluster.address] + ["--ship"] * ship
    process = subprocess.Popen(
        [
            sys.executable,
            PROJECT / "study.py",
            path,
            "--device",
            "cpu",
            "--results",
            "on_ray",
            *words,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    raylet = node.all_processes["raylet"][0].process.pid
    wait_for(
        lambda: (
            process.poll() is not None
            or list(Path("on_ray").rglob("manifest.json"))
            and at_work(raylet)
        )
    )
    cluster.remove_node(node, allow_graceful=False)  # with what runs on it
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and "[3/3]" in said, said
    assert "Task _run_there failed" in said  # Ray says so of what ran on the node
    assert found("on_ray") == whole and len(whole) > 20
    assert not list(Path("on_ray").rglob("*.resume")) and not list(Path("on_ray").glob(".shared*"))


def test_a_folder_that_is_not_shared_is_said(cluster, local):
    """The nodes of this machine see every folder; so the file that proves it is not written."""
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(PROJECT)!r})\n"
        "import study\nfrom studies import runners\nreal = runners.write\n"
        "runners.write = lambda path, content: path.name.startswith('.shared') or real(path, content)\n"
        "study.main(sys.argv[1:])",
        str(local[0]),
        "--device",
        "cpu",
        "--results",
        "on_ray",
        "--ray",
        cluster.address,
    ]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert ran.returncode == 1 and "3 of 3 cells failed" in ran.stdout
    assert "is not the same folder on node" in ran.stdout and not list(
        Path("on_ray").rglob("*.pth")
    )
