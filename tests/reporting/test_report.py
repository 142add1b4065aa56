"""The report: the table, the means, the page as a browser shows it."""

import csv
import html
import itertools
import json
import re
import shutil
import statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import config_writer

import mia
import pretrain
import prune
import prune_dp
import report
from attackers import VERDICTS
from bench.results import find_results as attacked
from core.files import packed_arrays, read_arrays, sealed, sealed_json
from defenders.accounting import NO_GUARANTEE, advantage_bound, rounded_up
from reporting import figures
from reporting.figures import Answers, class_means, look

ATTACKS = "threshold,gap,lira"
MEASURES = ("accuracy", "auc", "tpr_at_0.1", "tpr_at_0.01", "tpr_at_0.001")


def run(stage, *words):
    assert stage.main(["cpu", *words]) == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two seeds: original, pruned twice, ppb (adaptive too), dp from scratch; no sensitivities."""
    folder = tmp_path_factory.mktemp("study")
    config = config_writer(folder)(shadow_num=3, epochs=3)
    for seed in ("7", "8"):
        same = (
            config,
            "--seed",
            seed,
            "--results",
            str(folder / "results" / "tiny" / f"seed_{seed}"),
        )
        run(pretrain, *same)
        run(mia, *same, "--original", "--attacks", ATTACKS)
        for sparsity in ("0.5", "0.7"):
            run(prune, *same, "--prune_sparsity", sparsity)
            run(mia, *same, "--prune_sparsity", sparsity, "--attacks", ATTACKS)
        run(prune, *same, "--defend", "ppb")
        run(mia, *same, "--defend", "ppb", "--attacks", "threshold")
        run(mia, *same, "--defend", "ppb", "--adaptive", "--attacks", "threshold")
        run(prune_dp, *same, "--from_scratch")
        run(mia, *same, "--defend", "dp", "--from_scratch", "--attacks", "threshold")
    return folder / "results"


@pytest.fixture(scope="module")
def written(made, tmp_path_factory):
    """Where the report on these results lies, images and all."""
    out = tmp_path_factory.mktemp("out")
    assert report.main([str(made), "--out", str(out)]) == 0
    return out


@pytest.fixture
def results(made, tmp_path, monkeypatch):
    """A copy, to be changed; figures are drawn, but no image is made of them, which takes long."""
    monkeypatch.setattr(
        figures.Figure, "savefig", lambda figure, file, **how: file.write(b"no image")
    )
    return Path(shutil.copytree(made, tmp_path / "results"))


@pytest.fixture
def victim(results):
    return results / "tiny" / "seed_7" / "tiny_columnfc" / "l1unstructure_0.7_model"


def lines_of(folder):
    return [json.loads(line) for line in (folder / "attacks.jsonl").read_text().splitlines()]


def one_error(capsys, *words):
    """The one line on stderr of a report that fails."""
    assert report.main([str(word) for word in words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said


# ---- the table


def test_the_table_holds_what_the_lines_say(made):
    table = report.load_results(made)
    expected = [
        (
            str(path.parent.relative_to(made)),
            line["attack"],
            line["adaptive"],
            measure,
            line[measure],
            *line[f"{measure}_interval"],
            line["seed"],
            line["members"],
            line["test_accuracy"],
        )
        for path in made.rglob("attacks.jsonl")
        for line in lines_of(path.parent)
        for measure in MEASURES
        if line[measure] is not None
    ]
    columns = [
        "folder",
        "attack",
        "adaptive",
        "measure",
        "value",
        "low",
        "high",
        "seed",
        "members",
        "test_accuracy",
    ]
    assert sorted(table[columns].itertuples(index=False, name=None)) == sorted(expected)
    assert {
        "dataset_name",
        "model_name",
        "split",
        "shadow_num",
        "train_seed",
        "epochs",
        "lr",
        "rmia_a",
    } <= set(table)
    assert not {"place", "line"} & set(table)


def test_an_original_has_no_pruner_and_a_private_victim_an_epsilon(made):
    table = report.load_results(made)
    original = table["original"]
    assert (
        table.loc[original, ["pruner_name", "prune_sparsity", "defend_arg"]].isna().all(axis=None)
    )
    private = table["defend"] == "dp"
    assert private.any() and table.loc[~private, ["epsilon", "delta"]].isna().all(axis=None)
    manifest = json.loads(
        (made / table.loc[private, "folder"].iloc[0] / "manifest.json").read_text()
    )
    assert set(table.loc[private, "epsilon"]) == {manifest["privacy"]["epsilon"]}
    assert table.loc[private, "from_scratch"].all() and set(table.loc[private, "dp_noise"]) == {
        "secret"
    }
    assert table["caveat"].eq("").all() and table.loc[~private, "dp_noise"].isna().all()


@pytest.mark.parametrize("old", [False, True])
def test_no_epsilon_of_seeded_noise_stands_alone(made, tmp_path, old):
    """Nor one of a model from before there was secret noise, whose manifest and lines do not say how it was drawn."""
    shutil.copytree(made, tmp_path / "results")
    for manifest in (tmp_path / "results").rglob("l1*_dp_*/manifest.json"):
        told = json.loads(manifest.read_text())
        del told["sha256"]
        told["privacy"] |= {"noise": "seeded"}
        if old:
            del told["privacy"]["noise"], told["options"]["dp_noise"]
        manifest.write_bytes(sealed_json(told))
    table = report.load_results(tmp_path / "results")
    private = table["defend"] == "dp"
    assert set(table.loc[private, "caveat"]) == {NO_GUARANTEE} and set(
        table.loc[private, "dp_noise"]
    ) == {"seeded"}
    assert report.main([str(tmp_path / "results")]) == 0
    for name in ("report.csv", "report.md", "report.html"):
        text = (tmp_path / "results" / name).read_text()
        epsilon = rounded_up(
            table.loc[private, "epsilon"].iloc[0], decimals=0 if table["epsilon"].max() > 100 else 2
        )
        shown = [line for line in text.splitlines() if f"{epsilon}" in line and "dp 0.1" in line]
        assert (shown or name == "report.csv") and all(NO_GUARANTEE in line for line in shown)
        of_dp = (
            [line for line in text.splitlines() if ",dp," in line] if name == "report.csv" else []
        )
        assert all(NO_GUARANTEE in line for line in of_dp) and (of_dp or name != "report.csv")
    caption = (
        (tmp_path / "results" / "report.md")
        .read_text()
        .split("Epsilon against attack advantage", 1)[1]
    )
    assert f"Of victims of seeded noise, {NO_GUARANTEE}." in caption


def test_a_bound_is_drawn_of_secret_noise_only(monkeypatch):
    table = pd.concat(
        [
            rows(
                ("conf", 7, 0.6),
                defend="dp",
                defend_arg=1.0,
                from_scratch=True,
                epsilon=2.0,
                delta=1e-4,
                caveat=caveat,
                dp_noise="",
            )
            for caveat in ("", NO_GUARANTEE)
        ],
        ignore_index=True,
    )
    drawn = []
    monkeypatch.setattr(
        figures,
        "epsilon",
        lambda panels, bounded, delta: drawn.append((set(panels), bounded)) or b"",
    )
    report.of_epsilon(report.summarised(report.described(table)[0]))
    ((panels, bounded),) = drawn
    assert (
        len(panels) == 2
        and len(bounded) == 1
        and not any(NO_GUARANTEE in panel for panel in bounded)
    )
    assert all((NO_GUARANTEE in panel) == ("seeded noise" in panel) for panel in panels)


def rows(*values, **columns):
    """A table as `frame` makes it, a row for each (attack, seed, accuracy)."""
    base = (
        {name: None for name in report.RECORDED}
        | {
            "dataset_name": "d",
            "model_name": "m",
            "split": "paper",
            "shadow_num": 5,
            "pruner_name": "l1unstructure",
            "prune_sparsity": 0.7,
            "defend": "",
            "defend_arg": float("nan"),
            "from_scratch": False,
            "adaptive": False,
            "original": False,
            "device": "cpu",
            "measure": "accuracy",
            "low": 0.4,
            "high": 0.9,
            "members": 10,
            "non_members": 12,
            "train_accuracy": 0.9,
            "test_accuracy": 0.6,
            "epsilon": float("nan"),
            "delta": float("nan"),
            "caveat": "",
            "place": None,
            "line": None,
            "asked_delta": None,
        }
        | columns
    )
    return pd.DataFrame(
        [
            base
            | {
                "attack": attack,
                "seed": seed,
                "train_seed": seed,
                "value": value,
                "folder": f"{seed}",
            }
            for attack, seed, value in values
        ]
    )


def test_means_and_deviations_worked_by_hand():
    table = rows(
        ("conf", 7, 0.5),
        ("conf", 8, 0.6),
        ("conf", 9, 0.7),
        ("samia", 7, 0.65),
        ("gap", 7, 0.5),
        ("gap", 8, 0.52),
    )
    found = report.summarised(report.described(table)[0]).set_index("attack")
    assert found.loc["conf", ["mean", "sd", "seeds"]].tolist() == pytest.approx([0.6, 0.1, 3])
    assert found.loc["gap", "sd"] == pytest.approx(statistics.stdev([0.5, 0.52]))
    assert found.loc["samia", "seeds"] == 1 and np.isnan(found.loc["samia", "sd"])
    assert found["best"].to_dict() == {"samia": True, "conf": False, "gap": False}
    row = report.measure_table(found.reset_index(), "accuracy").rows[0]
    assert [(cell.text, cell.under, cell.best) for cell in row] == [
        ("l1unstructure 70 %", "", False),
        ("3", "", False),
        ("65.0", "(n = 1); [40.0, 90.0]", True),
        ("60.0", "± 10.0", False),
        ("51.0", "± 1.4 (n = 2)", False),
    ]


def trained(*values, **columns):
    """A table as `frame` makes it, a row for each (attack, seed, training, accuracy)."""
    return pd.concat(
        [
            rows((attack, seed, value), **columns).assign(train_seed=training)
            for attack, seed, training, value in values
        ],
        ignore_index=True,
    )


def test_the_spread_over_trainings_of_a_split_stands_apart_from_that_over_splits():
    """Seed 7: .50 .54 .58, mean .54; seed 8: .70 .72, mean .71. Over the means .12; within (.0032 + .0002) / 3."""
    table = trained(
        ("conf", 7, 7, 0.50),
        ("conf", 7, 1, 0.54),
        ("conf", 7, 2, 0.58),
        ("conf", 8, 8, 0.70),
        ("conf", 8, 1, 0.72),
    )
    named, doubles = report.described(table)
    found = report.summarised(named)
    assert not doubles and len(found) == 1
    expected = [0.625, statistics.stdev([0.54, 0.71]), 2, (0.0034 / 3) ** 0.5, 5]
    assert found.loc[
        0, ["mean", "sd", "seeds", "training_sd", "trainings"]
    ].tolist() == pytest.approx(expected)
    shown = report.measure_table(found, "accuracy")
    assert shown.rows[0][2].under == "± 12.0; ± 3.4 over 5 trainings"
    assert "over trainings of one split" in shown.caption and "95 %" not in shown.caption
    assert "2 seeds with 5 trainings (standard deviation over split seeds)" in report.count(found)


def test_the_spread_over_trainings_of_one_split_stands_beside_the_interval():
    table = pd.concat(
        [
            trained(
                ("conf", 7, seed, value),
                low=value - 0.1,
                high=value + 0.2,
                train_accuracy=value + 0.3,
            )
            for seed, value in ((7, 0.50), (1, 0.54), (2, 0.58))
        ],
        ignore_index=True,
    )
    named = report.described(table)[0]
    found = report.summarised(named)
    assert np.isnan(found.loc[0, "sd"])
    shown = report.measure_table(found, "accuracy")
    assert (shown.rows[0][1].text, shown.rows[0][2].under) == (
        "1",
        "[44.0, 74.0]; ± 4.0 over 3 trainings",
    )
    assert "not the randomness of training" in shown.caption and "--train_seed" in shown.caption
    accuracies = report.accuracy_table(report.victims(named))
    assert (accuracies.rows[0][2].text, accuracies.rows[0][2].under) == (
        "84.0",
        "± 4.0 over 3 trainings",
    )
    assert "1 seed with 3 trainings (standard deviation over trainings)" in report.count(found)


def test_the_best_is_that_of_the_highest_mean_and_there_may_be_two():
    table = rows(("conf", 7, 0.6), ("gap", 7, 0.6), ("xent", 7, 0.4))
    found = report.summarised(report.described(table)[0])
    assert set(found.loc[found["best"], "attack"]) == {"conf", "gap"}


def test_the_best_is_so_on_the_seeds_that_all_attacks_share():
    found = report.summarised(
        report.described(
            rows(
                ("conf", 7, 0.85),
                ("conf", 8, 0.7),
                ("conf", 9, 0.7),
                ("samia", 7, 0.8),
                ("gap", 8, 0.9),
                ("gap", 7, 0.6),
            )
        )[0]
    )
    assert found.set_index("attack")["best"].to_dict() == {
        "conf": True,
        "samia": False,
        "gap": False,
    }
    none = report.summarised(
        report.described(rows(("conf", 7, 0.6), ("conf", 9, 0.6), ("gap", 8, 0.7)))[0]
    )
    assert none.set_index("attack")["best"].to_dict() == {
        "conf": False,
        "gap": True,
    }  # no seed in common


def test_victims_that_differ_in_delta_are_two():
    both = pd.concat(
        [
            rows(("conf", 7, 0.6), asked_delta=delta, defend="dp", defend_arg=1.0)
            for delta in (1e-4, 1e-5)
        ],
        ignore_index=True,
    )
    named, doubles = report.described(both)
    assert named["model"].nunique() == 2 and not doubles


def test_a_training_option_that_differs_is_in_all_names():
    """Else a curve over sparsity would join victims of two recipes."""
    both = pd.concat(
        [
            rows(("conf", 7, 0.6), epochs=epochs, prune_sparsity=at)
            for at, epochs in ((0.5, 5), (0.7, 9))
        ],
        ignore_index=True,
    )
    assert report.described(both)[0]["model"].tolist() == [
        "l1unstructure 50 % (epochs 5)",
        "l1unstructure 70 % (epochs 9)",
    ]


def test_the_original_beside_a_pruned_victim_is_of_its_recipe():
    table = pd.concat(
        [
            rows(
                ("conf", 7, 0.6),
                lr=lr,
                original=original,
                **({"prune_sparsity": float("nan")} if original else {}),
            )
            for lr in (0.01, 0.001)
            for original in (True, False)
        ],
        ignore_index=True,
    )
    original, pruned = report.chosen(report.summarised(report.described(table)[0]))
    assert (
        original.startswith("original")
        and report.options_of(original) == report.options_of(pruned) != ""
    )


def test_configurations_that_differ_are_not_averaged():
    table = pd.concat(
        [
            rows(("conf", 7, 0.5), epochs=5),
            rows(("conf", 8, 0.7), epochs=50),
            rows(("rmia", 7, 0.5), epochs=5, rmia_gamma=2.0),
            rows(("rmia", 7, 0.6), epochs=5, rmia_gamma=3.0),
        ]
    )
    found = report.summarised(report.described(table)[0])
    assert set(zip(found["victim"], found["attack"])) == {
        ("l1unstructure 70 % (epochs 5)", "conf"),
        ("l1unstructure 70 % (epochs 50)", "conf"),
        ("l1unstructure 70 % (epochs 5)", "rmia (rmia_gamma 2.0)"),
        ("l1unstructure 70 % (epochs 5)", "rmia (rmia_gamma 3.0)"),
    }
    assert (found["seeds"] == 1).all()


def test_numbers_of_shadow_models_are_told_apart():
    table = pd.concat([rows(("conf", 7, 0.5), shadow_num=n) for n in (2, 5)])
    assert set(report.described(table)[0]["victim"]) == {
        f"l1unstructure 70 %, {n} shadow models" for n in (2, 5)
    }
    assert len(report.victims(report.described(table)[0])) == 1  # it is the same victim


def test_what_lies_there_twice_counts_once_and_is_said(results):
    shutil.copytree(results / "tiny" / "seed_7", results / "tiny" / "seed_7_copy")
    table, notes = report.described(report.frame(attacked(results), results))
    assert "seed_7_copy" in notes[0] and report.summarised(table)["seeds"].max() == 2


def test_pareto_front_against_brute_force():
    draw = np.random.default_rng(0)
    for _ in range(50):
        gain, loss = draw.integers(5, size=(2, 12))  # with ties

        def beaten(i):
            return any(
                (gain[j] >= gain[i] and loss[j] < loss[i])
                or (gain[j] > gain[i] and loss[j] <= loss[i])
                for j in range(12)
            )

        assert report.pareto(gain, loss).tolist() == [not beaten(i) for i in range(12)]


def test_rates_are_the_largest_within_the_limit():
    class Place:
        def truth(self, line):
            return {
                "member": np.array([1, 1, 1, 0, 0, 1], bool),
                "scores": np.array([9, 8, 5, 6, 1, 0.5]),
            }

    assert report.rates(Place(), {}, np.array([0.1, 0.5, 0.9, 1.0])).tolist() == [
        0.5,
        0.75,
        0.75,
        1.0,
    ]


def test_means_by_class_worked_by_hand():
    answers = Answers(
        np.array([1.0, 0.5, 0.2, 0.4, 0.9]),
        np.array([0, 0, 0, 1, 1]),
        np.array([True, True, False, True, True]),
        1,
    )
    assert class_means(answers, least=1).to_dict("index") == {
        0: pytest.approx({"members": 0.75, "non_members": 0.2, "gap": 0.55})
    }
    assert class_means(answers, least=2).empty


def test_every_attack_has_a_look_of_its_own():
    looks = [tuple(look(name).values()) for name in VERDICTS]
    assert len(set(looks)) == len(looks) and look("rmia (rmia_a 0.2)") == look("rmia")


# ---- what lies there


def test_answers_of_the_true_class_are_those_of_the_targets(made):
    folder = made / "tiny" / "seed_7" / "tiny_columnfc" / "l1unstructure_0.7_model"
    found = {place.folder: place for place in attacked(made)}[folder]
    kept = np.load(folder / "logits.npz")
    scores = np.load(folder / "scores.npz")
    target = found.lines[0]["targets"]
    table = report.described(report.frame([found], made))[0]
    answers = report.answers_of(table, "logits")
    logits = {number: row for number, row in zip(kept["records"], kept["answers"])}
    expected = [
        np.exp(logits[number][label]) / np.exp(logits[number]).sum()
        for number, label in zip(scores[f"records_{target}"], scores[f"labels_{target}"])
    ]
    assert answers.value == pytest.approx(np.array(expected), rel=1e-5)
    assert answers.member.tolist() == scores[f"member_{target}"].tolist()
    part = np.load(folder.parent / "split.npz")
    assert set(scores[f"records_{target}"][answers.member]) == set(part["victim_train"])


def test_intervals_by_an_older_method_are_measured_again_and_nothing_is_written(
    results, victim, capsys
):
    before = report.load_results(results)
    old = [
        {
            name: [0.4, 0.5] if name.endswith("_interval") and value else value
            for name, value in line.items()
            if name not in ("intervals", "sha256")
        }
        for line in lines_of(victim)
    ]
    (victim / "attacks.jsonl").write_text("".join(json.dumps(sealed(line)) + "\n" for line in old))
    text = (victim / "attacks.jsonl").read_text()
    pd.testing.assert_frame_equal(report.load_results(results), before)
    assert (victim / "attacks.jsonl").read_text() == text
    (victim / "scores.npz").unlink()
    capsys.readouterr()
    after = report.load_results(results)
    assert len(after) == len(before) - (before["folder"] == str(victim.relative_to(results))).sum()
    assert (
        f"{len(old)} results in {victim.relative_to(results)}, with intervals by an older"
        in capsys.readouterr().out
    )


def test_stale_lines_are_left_out_and_said(results, victim, capsys):
    before = report.load_results(results)
    shutil.rmtree(
        victim.parent / "shadow_l1unstructure_0.7_model_1"
    )  # a model of the lines is gone
    capsys.readouterr()
    after = report.load_results(results)
    said = capsys.readouterr().out
    gone = before["folder"].isin([str(victim.relative_to(results))])
    ppb = (
        before["folder"].str.contains("seed_7.*ppb|seed_7.*dp") & ~before["adaptive"]
    )  # the same shadow models
    assert len(after) == len(before) - (gone | ppb).sum() and gone.any() and ppb.any()
    assert f"6 results in {victim.relative_to(results)}, of models that are gone" in said
    assert report.main([str(results)]) == 0
    assert (
        "of models that are gone or have been made anew since"
        in (results / "report.html").read_text()
    )


def test_a_victim_that_is_not_attacked_is_said(results, victim, capsys):
    (victim / "attacks.jsonl").unlink()
    assert report.main([str(results)]) == 0
    assert f"not attacked: {victim.relative_to(results)}" in capsys.readouterr().out
    assert f"not attacked: {victim.relative_to(results)}" in (results / "report.md").read_text()


def test_a_victim_that_is_half_made_is_said(results, victim, capsys):
    (victim / "manifest.json").unlink()
    report.load_results(results)
    said = capsys.readouterr().out
    assert f"not finished: {victim.relative_to(results)}" in said and "6 results in" in said


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def reported(results, capsys):
    """What a report says that it has left out; the page and its Markdown say the same."""
    capsys.readouterr()
    assert report.main([str(results)]) == 0
    said, error = capsys.readouterr()
    notes = [
        line.removeprefix("left out: ")
        for line in said.splitlines()
        if line.startswith("left out: ")
    ]
    assert not error and [
        line
        for line in (results / "report.md").read_text().splitlines()
        if line.startswith("- left out: ")
    ] == [f"- left out: {note}" for note in notes]
    assert all(html.escape(note) in (results / "report.html").read_text() for note in notes)
    return notes


@pytest.mark.parametrize("name", ["attacks.jsonl", "manifest.json", "scores.npz", "logits.npz"])
@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"[1]\n"),
        lambda file: (file.unlink(), file.mkdir()),
    ],
    ids=["bit", "empty", "other", "folder"],
)
def test_a_damaged_file_is_left_out_and_named_in_one_line(results, victim, capsys, name, damage):
    folder, before = str(victim.relative_to(results)), report.load_results(results)
    damage(victim / name)
    notes = reported(results, capsys)
    assert sum(str(victim / name) in note for note in notes) in (1, 2), notes
    after = report.load_results(results)
    others = after[after["folder"] != folder], before[before["folder"] != folder]
    assert len(others[0]) == len(others[1]) > 50
    if name in ("scores.npz", "logits.npz"):  # all numbers are in the lines
        assert len(after) == len(before)


def test_a_broken_line_costs_no_other(results, victim, capsys):
    lines = (victim / "attacks.jsonl").read_text().splitlines(keepends=True)
    before = report.load_results(results)
    (victim / "attacks.jsonl").write_text(
        "".join([*lines[:2], lines[2].replace("0", "1"), *lines[3:]])
    )
    assert any(
        str(victim / "attacks.jsonl") in note and "line 3" in note
        for note in reported(results, capsys)
    )
    gone = before["folder"].eq(str(victim.relative_to(results))) & before["attack"].eq(
        json.loads(lines[2])["attack"]
    )
    assert len(report.load_results(results)) == len(before) - gone.sum() and gone.any()
    (victim / "attacks.jsonl").write_text("".join(lines[:-1]))
    assert any(
        str(victim / "attacks.jsonl") in note and "missing" in note
        for note in reported(results, capsys)
    )


def test_results_of_another_version_are_left_out_and_said(results, victim, capsys):
    lines = lines_of(victim)
    for change in (
        {"members": None},
        {"adaptive": None},
        {"accuracy_interval": None},
        {"auc": None},
    ):
        changed = [
            {
                name: value
                for name, value in (line | change).items()
                if name not in ("sha256", *(key for key, value in change.items() if value is None))
            }
            for line in lines
        ]
        (victim / "attacks.jsonl").write_text(
            "".join(json.dumps(sealed(line)) + "\n" for line in changed)
        )
        notes = reported(results, capsys)
        if "auc" not in change:  # a measure that there was not yet
            assert any(
                "results of another version" in note and str(victim) in note for note in notes
            ), change
    manifest = json.loads((victim / "manifest.json").read_text())
    for change in ({"files": ["best.pth"]}, {"privacy": [1]}, {"parent": 3}):
        changed = manifest | change
        del changed["sha256"]
        (victim / "manifest.json").write_text(json.dumps(sealed(changed)))
        reported(results, capsys)


def test_missing_scores_leave_the_tables_and_are_said(results, victim, capsys):
    before = report.load_results(results)
    (victim / "scores.npz").unlink()
    assert any(str(victim / "scores.npz") in note for note in reported(results, capsys))
    assert len(report.load_results(results)) == len(before)


def test_without_any_scores_there_is_no_roc(results, capsys):
    for file in results.rglob("scores.npz"):
        flip(file)
    reported(results, capsys)
    assert "ROC: no scores" in (results / "report.md").read_text()


@pytest.mark.parametrize(
    "below",
    [
        "tiny/seed_7/tiny_columnfc/l1unstructure_0.7_model",
        "tiny/seed_7/tiny_columnfc",
        "tiny/seed_7",
        "tiny",
    ],
)
def test_a_report_on_any_folder_of_results(results, capsys, monkeypatch, below):
    reported(results / below, capsys)
    whole, part = report.load_results(results), report.load_results(results / below)
    assert len(part) == whole["folder"].str.startswith(below).sum() > 0
    monkeypatch.chdir(results / below)
    assert len(report.load_results(".")) == len(part)


def test_a_folder_without_results_names_the_one_to_give(results, victim, capsys):
    for place in (
        victim.parent / "shadow_model_0",
        victim.parent / "attack_networks",
        victim / "best.pth",
    ):
        place.exists() or place.mkdir()
        assert str(victim.parent) in one_error(capsys, place)
    assert "cannot read" in one_error(capsys, results / "report.txt")


def test_wrong_calls_end_with_one_line(tmp_path, capsys):
    assert "no_such" in one_error(capsys, tmp_path / "no_such")
    assert "no results" in one_error(capsys, tmp_path)
    assert "--studdy" in one_error(capsys, tmp_path, "--studdy", "x")
    for content, said in (("{", "not JSON"), ("[]", "JSON object"), ('{"about": 3}', "about")):
        (tmp_path / "s.json").write_text(content)
        assert said in one_error(capsys, tmp_path, "--study", tmp_path / "s.json")
    assert "nowhere.json" in one_error(capsys, tmp_path, "--study", tmp_path / "nowhere.json")


# ---- what is written


def test_a_study_is_headed_by_what_it_is_about_and_lies_in_its_folder(results, tmp_path):
    (tmp_path / "tiny.json").write_text(
        json.dumps({"about": "Is <b>5 & 7</b> more?", "seed": [7, 8]})
    )
    assert report.main([str(results), "--study", str(tmp_path / "tiny.json")]) == 0
    page = (results / "tiny" / "report.html").read_text()
    assert (
        "Is &lt;b&gt;5 &amp; 7&lt;/b&gt; more?" in page
        and "<h1>Membership inference: tiny</h1>" in page
    )
    assert not (results / "report.html").exists()


def test_out_is_where_it_is_written_with_the_images_of_markdown(made, written):
    pictures = re.findall(r"\]\((report_figures/.*?png)\)", (written / "report.md").read_text())
    assert len(pictures) >= 6 and len(set(pictures)) == len(pictures)
    assert all((written / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert not list(made.rglob("report*"))


def page_of(results, tmp_path):
    assert report.main([str(results), "--out", str(tmp_path / "out")]) == 0
    return (tmp_path / "out" / "report.html").read_text()


def tables(page):
    """{title: [[(text, bold)]]}, the first row the header."""
    found = {}
    for title, body in re.findall(
        r"<h3[^>]*>([^<]*)</h3><p[^>]*>[^<]*</p><div[^>]*><table>(.*?)</table>", page, re.DOTALL
    ):
        found[title] = [
            [
                (html.unescape(re.sub("<[^>]*>", " ", cell)).split(), "<b>" in cell)
                for cell in re.findall(r"<t[hd][ >].*?</t[hd]>", row, re.DOTALL)
            ]
            for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
        ]
    return found


def test_csv_and_markdown_equal_the_tables_of_the_page(written):
    page = (written / "report.html").read_text()
    said = {
        (row["victim"], row["attack"]): row
        for row in csv.DictReader((written / "report.csv").open())
        if row["measure"] == "accuracy"
    }
    head, *body = tables(page)["Attack accuracy"]
    names = [" ".join(text) for text, _ in head]
    cells = {
        (" ".join(row[0][0]), name): cell
        for row in body
        for name, cell in zip(names[2:], row[2:])
        if cell[0]
    }
    assert cells.keys() == said.keys() and len(cells) > 20
    for key, (text, bold) in cells.items():
        row = said[key]
        assert text == [f"{100 * float(row['mean']):.1f}", "±", f"{100 * float(row['sd']):.1f}"]
        assert bold == (row["best"] == "True")
    markdown = (written / "report.md").read_text()
    for (victim, _), (text, bold) in cells.items():
        line = next(
            line
            for line in markdown.split("### Attack accuracy\n")[1].splitlines()
            if line.startswith(f"| {victim} |")
        )
        assert ("**{}**" if bold else "| {} |").format(" ".join(text)) in line
    for victim, best in itertools.groupby(sorted(said.items()), key=lambda item: item[0][0]):
        best = [row for _, row in best]
        assert max(best, key=lambda row: float(row["mean"]))["best"] == "True"


def test_names_are_escaped(results, tmp_path):
    evil = results / "<img src=x onerror=alert(1)>"
    shutil.move(results / "tiny" / "seed_8", evil)
    (evil / "tiny_columnfc" / "victim_model" / "attacks.jsonl").unlink()  # so that its name is told
    page = page_of(results, tmp_path)
    assert "&lt;img src=x onerror=alert(1)&gt;" in page and "<img src=x" not in page
    assert "<img src=x" not in (tmp_path / "out" / "report.md").read_text()


def test_without_sensitivities_the_page_says_so(written):
    page = (written / "report.html").read_text()
    assert "run samia, which asks for them" in page and "Confidence by class" in page
    assert "Sensitivity by class" not in page


def test_answers_without_the_numbers_of_records_are_left_out(results, tmp_path):
    for path in results.rglob("logits.npz"):
        facts, arrays = read_arrays(path)
        path.write_bytes(packed_arrays(facts, {"answers": arrays["answers"]}))
    page = page_of(results, tmp_path)
    assert (
        "mia.py --fresh" in page and "Confidence by class" not in page and '<h3 id="s1-5">' in page
    )


def test_answers_of_another_model_are_not_shown(results, tmp_path):
    for path in results.rglob("logits.npz"):
        facts, arrays = read_arrays(path)
        path.write_bytes(packed_arrays(facts | {"model": "another"}, arrays))
    assert "Confidence by class" not in page_of(results, tmp_path)


def test_one_seed_has_no_deviation(results, tmp_path):
    shutil.rmtree(results / "tiny" / "seed_8")
    page = page_of(results, tmp_path)
    assert all("±" not in text for row in tables(page)["Attack accuracy"] for text, _ in row)
    assert "1 seed" in page


def test_an_original_alone(results, tmp_path):
    for folder in (results / "tiny").glob("seed_*/tiny_columnfc/l1unstructure*"):
        shutil.rmtree(folder)
    page = page_of(results, tmp_path)
    assert "there is one victim only" in page and page.count("<img") >= 3
    assert [row[0][0] for row in tables(page)["Attack accuracy"]] == [["victim"], ["original"]]


def test_with_sensitivities_they_are_drawn(write_config, tmp_path, monkeypatch):
    import attackers.neural
    from base_model import TrainConfig

    monkeypatch.setattr(attackers.neural, "CONFIG", TrainConfig(epochs=1, optimizer="sgd"))
    config = write_config()
    run(pretrain, config)
    run(mia, config, "--original", "--attacks", "samia")
    page = page_of(Path("results"), tmp_path)
    assert "Sensitivity by class" in page and "Confidence by class" in page


def test_numbers_of_shadow_models_have_a_figure(made, tmp_path, results):
    config = str(next(made.parent.glob("tiny.json")))
    run(
        mia,
        config,
        "--results",
        str(results / "tiny" / "seed_7"),
        "--attacks",
        "threshold",
        "--shadow_num",
        "2",
    )
    page = page_of(results, tmp_path)
    assert (
        "against the number of shadow models" in page
        and "l1unstructure 70 %, 2 shadow models" in page
    )


def test_five_hundred_victims_take_seconds():
    import time

    table = pd.concat(
        [
            rows(
                *((attack, seed, 0.5) for attack in list(VERDICTS)[:15] for seed in range(5)),
                prune_sparsity=place / 101,
                test_accuracy=place / 101,
            )
            for place in range(1, 101)
        ]
    )
    start = time.process_time()
    named, _ = report.described(table)
    assert len(report.summarised(named)) == 1500 and len(report.victims(named)) == 100
    assert time.process_time() - start < 10


# ---- in a browser


@pytest.fixture
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip(
            "chromium and chromedriver are not installed (Debian: chromium, chromium-driver)"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--window-size=1000,900",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()


def test_the_page_in_a_browser(written, browser):
    page = (written / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)|url\(|@import|https?://""", page)
    browser.get((written / "report.html").as_uri())
    images = browser.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth])"
    )
    assert len(images) >= 6 and all(complete and width > 0 for complete, width in images)
    assert browser.execute_script(
        "return document.documentElement.scrollWidth <= window.innerWidth"
    )
    links = browser.execute_script(
        "return [...document.querySelectorAll('nav a')].map(a => a.getAttribute('href'))"
    )
    assert links and all(
        browser.execute_script("return document.querySelector(arguments[0]) !== null", link)
        for link in links
    )

    def column(at):
        return browser.execute_script(
            "return [...document.querySelectorAll('table')[1].tBodies[0].rows]"
            ".map(row => row.cells[arguments[0]].dataset.key)",
            at,
        )

    heads = browser.find_elements("css selector", "table")[1].find_elements("css selector", "th")
    at = [head.text for head in heads].index("gap")  # not on all victims
    before = column(at)
    there = sorted((key for key in before if key), key=float)
    gone = [""] * before.count("")
    assert gone and there and before != there + gone
    up, down = there + gone, there[::-1] + gone
    for order, expected in (("ascending", up), ("descending", down), ("ascending", up)):
        heads[at].find_element("tag name", "button").click()
        assert column(at) == expected and heads[at].get_attribute("aria-sort") == order
    names = column(0)
    heads[0].find_element("tag name", "button").click()
    assert (
        heads[at].get_attribute("aria-sort") is None and sorted(names) == sorted(column(0)) != names
    )
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_numbers_are_sorted_as_numbers(tmp_path, browser):
    from reporting.page import Cell, Section, Table, as_html

    keys = [9.5, 10.25, None, -3.0, 1e-5, 100.0]
    section = Section("s", [Table("t", "c", ["n"], [[Cell(str(key), key)] for key in keys])])
    (tmp_path / "p.html").write_text(
        as_html(title="t", about="", command="", facts="", notes=[], sections=[section])
    )
    browser.get((tmp_path / "p.html").as_uri())
    browser.find_element("css selector", "th button").click()
    shown = browser.execute_script(
        "return [...document.querySelectorAll('td')].map(cell => cell.textContent)"
    )
    assert shown == ["-3.0", "1e-05", "9.5", "10.25", "100.0", "None"]


@pytest.mark.parametrize("epsilon, delta", [(0.1, 1e-5), (1.0, 1e-3), (2.0, 0.0), (0.5, 0.2)])
def test_the_bound_of_the_advantage_by_brute_force(epsilon, delta):
    """Over all pairs of rates that an exchange of one record allows, two steps of (epsilon, delta)."""
    factor, slack = np.exp(2 * epsilon), delta * (1 + np.exp(epsilon))
    fpr, tpr = np.meshgrid(np.linspace(0, 1, 2001), np.linspace(0, 1, 2001))
    allowed = (tpr <= factor * fpr + slack) & (1 - fpr <= factor * (1 - tpr) + slack)
    most = (tpr - fpr)[allowed].max()
    assert advantage_bound(np.array([epsilon]), delta)[0] == pytest.approx(most, abs=2e-3)
    assert advantage_bound(np.array([1e3]), delta)[0] == 1
