"""What lies in a folder of results, as a table; what is damaged, missing or stale is named."""

import html
import json
import shutil

import pandas as pd
import pytest
from report_helpers import flip, lines_of

import report
from bench.results import find_results
from core.files import sealed
from reporting.results import results_table
from reporting.summary import label_configurations, summarise

MEASURES = ("accuracy", "auc", "tpr_at_0.1", "tpr_at_0.01", "tpr_at_0.001")


@pytest.mark.slow
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
    assert not {"victim_results", "line", "delta_option"} & set(table)


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


def test_what_lies_there_twice_counts_once_and_is_said(results):
    shutil.copytree(results / "tiny" / "seed_7", results / "tiny" / "seed_7_copy")
    table, notes = label_configurations(results_table(find_results(results), results))
    assert "seed_7_copy" in notes[0] and summarise(table)["seeds"].max() == 2


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


@pytest.mark.slow
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


def one_error(capsys, *words):
    """The one line on stderr of a report that fails."""
    assert report.main([str(word) for word in words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said
