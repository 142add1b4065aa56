"""What cells and stages a grid comes to, and what is refused before any work."""

import itertools
import json
import shlex
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import PROJECT

import study
from bench.command_line import as_config, parse
from bench.layout import ModelSet
from bench.options import OPTIONS
from studies import running
from studies.grid import read_cells
from studies.plan import plan

SHIPPED = sorted((PROJECT / "config" / "studies").glob("*.json"))


def planned(path):
    return plan(read_cells(path, device="cpu", results="results"))


def commands(path):
    return [shlex.join([job.stage, *job.command[4:]]) for job in planned(path)]


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


def test_all_kinds_of_compression_in_one_grid(grid):
    path = grid(
        defend=["", "ppb"],
        grids=[
            {"quantizer": ["int8", "cluster4"], "pruned": [False, True]},
            {"prune_iterations": [1, 5], "pruner_name": ["l1unstructure", "wanda"]},
        ],
    )
    jobs = planned(path)
    assert Counter(job.stage for job in jobs) == {
        "pretrain": 1,
        "prune": 8,  # those that are quantised too are of the second grid
        "quantize": 8,
        "mia": 16,
    }
    place = {job: number for number, job in enumerate(jobs)}
    for job in jobs:
        assert all(place[need] < place[job] for need in job.needs)
        if job.stage == "quantize" and job.options.pruned:
            (pruning,) = (need for need in job.needs if need.stage == "prune")
            assert ModelSet(pruning.options).version == ModelSet(job.options).parent.version
            assert {ModelSet(pruning.options).folder("victim")} <= set(job.reads())
    names = [job.label.split()[3] for job in jobs if job.stage == "mia"]
    assert {"int8", "l1unstructure_0.7_int8", "cluster4_ppb_4", "wanda_0.7_x5"} <= set(names)


def test_what_an_attacker_holds_too_is_made_before_the_attack(grid):
    jobs = planned(grid(also=["original,int8,l1unstructure_0.9_x5_int8"], defend=["ppb"]))
    assert Counter(job.stage for job in jobs) == {
        "pretrain": 1,
        "prune": 3,  # the victim's with and without a defence, and the third release's
        "quantize": 2,
        "mia": 1,
    }
    attack = jobs[-1]
    assert set(attack.needs) == set(jobs[:-1]) and "also original,int8," in attack.label
    folders = {path.name for path in attack.reads()}
    assert {"victim_model", "int8_model", "shadow_l1unstructure_0.9_x5_int8_model_1"} <= folders
    assert "shadow_l1unstructure_0.7_model_0" in folders
    assert all(not job.options.also for job in jobs[:-1])
    rounds = {
        job.options.prune_iterations: job.options.prune_epochs
        for job in jobs
        if job.stage == "prune"
    }
    assert rounds == {1: 2, 5: 1}  # of 4 epochs of pretraining


def test_what_an_attacker_holds_too_is_fine_tuned_as_the_study_says(grid):
    """Also beside a version to which that means nothing; all in one folder of results."""
    said = {"prune_epochs": 7, "quantize_epochs": 3}
    jobs = planned(
        grid(
            **said,
            grids=[
                {"original": True, "also": "l1unstructure_0.7"},
                {"quantizer": "int8", "also": "l1unstructure_0.7"},
                {"prune_sparsity": 0.7, "also": "int8"},
            ],
        )
    )
    assert Counter(job.stage for job in jobs) == {
        "pretrain": 1,
        "prune": 1,
        "quantize": 1,
        "mia": 3,
    }
    epochs = [getattr(job.options, f"{job.stage}_epochs") for job in jobs[1:] if job.stage != "mia"]
    assert sorted(epochs) == [3, 7]


def test_what_an_attacker_guesses_is_made_before_the_attack(grid, write_config):
    jobs = planned(
        grid(
            config=write_config("images.json", dataset_name="digits", data_path=None, input_dim=64),
            defend=["ppb"],
            grids=[
                {"shadow_sparsity": [0.5, 0.7]},
                {"shadow_model_name": "resnet18", "adaptive": True},
                {"original": True, "shadow_pruner_name": "random"},
            ],
        )
    )
    words = [(job.stage, job.options.model_name, ModelSet(job.options).version) for job in jobs]
    assert Counter(word for word in words if word[0] != "mia") == {
        ("pretrain", "columnfc", "l1unstructure_0.7_ppb_4"): 1,
        ("pretrain", "resnet18", "l1unstructure_0.7_ppb_4"): 1,
        ("prune", "columnfc", "l1unstructure_0.7_ppb_4"): 1,
        ("prune", "columnfc", "l1unstructure_0.7"): 1,
        ("prune", "columnfc", "l1unstructure_0.5"): 1,
        ("prune", "resnet18", "l1unstructure_0.7_ppb_4"): 1,
    }
    attacks = {job.label: job for job in jobs if job.stage == "mia"}
    assert len(attacks) == 4 and sum("original" in label for label in attacks) == 1
    (network,) = (job for label, job in attacks.items() if "shadows: resnet18" in label)
    (of_network,) = (
        job for job in network.needs if job.stage == "prune" and job.needs[0] != jobs[0]
    )
    assert of_network.options.input_dim == of_network.needs[0].options.input_dim == 1
    folders = {str(path) for path in network.reads()}
    assert "results/grid/seed_7/digits_resnet18/shadow_l1unstructure_0.7_ppb_4_model_1" in folders
    (sparsity,) = (job for label, job in attacks.items() if "shadows: 50 %" in label)
    made = {ModelSet(job.options).version for job in sparsity.needs if job.stage == "prune"}
    assert made == {"l1unstructure_0.7_ppb_4", "l1unstructure_0.5"}
    assert not any(job.options.guess for job in jobs if job.stage != "mia")


def test_shares_of_the_records_have_results_folders_apart_in_the_papers_split(grid):
    jobs = planned(grid(attacker_records=[1, 0.25], split=["paper", "inout"]))
    attacks = [job for job in jobs if job.stage == "mia"]
    assert {Path(job.options.results).name for job in attacks} == {
        "seed_7",
        "seed_7_attacker_records_0.25",
        "seed_7_split_inout",
    }


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
    """Over random studies of random configs: what the stage reads of its own config is what the
    study meant; so is the command line that is shown, where the config itself says no flag, which
    a command line cannot take back."""
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


def test_time_left_by_what_was_like_it(grid, monkeypatch):
    jobs = planned(grid(prune_sparsity=[0.5, 0.6, 0.7]))
    assert running.time_left(jobs, 1) is None
    monkeypatch.setattr(running.time, "monotonic", lambda: 100.0)
    made, first, attack, second, *_ = jobs
    made.state, made.seconds, first.state, first.seconds = "done", 40.0, "done", 10.0
    attack.state, attack.began = "running", 95.0
    # two prunings of 10 s; three attacks, of which nothing is known, of (40 + 10) / 2 s, one of
    # them 5 s old
    assert running.time_left(jobs, 2) == pytest.approx((2 * 10 + 3 * 25 - 5) / 2)


def test_an_error_is_told_whatever_bytes_are_in_the_log(tmp_path):
    log = tmp_path / "0001.log"
    log.write_bytes(b"caf\xe9\nerror: it is wrong\n")
    assert running._error(SimpleNamespace(log=log), 2) == "it is wrong"
