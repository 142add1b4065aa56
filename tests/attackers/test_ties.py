"""Verdicts in which all or most scores are equal: no figure that looks like a finding, in tables and reports either."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import fixed_evidence

import attackers.loss
import mia
import pretrain
import report
from attackers import Verdict, attack, metrics, ties

MEMBER, LABELS = np.arange(2000) % 2 == 0, np.arange(2000) // 2 % 2
FIGURES = ("accuracy", "auc", "tpr_at_0.1", "tpr_at_0.01")


def measures_of(scores, threshold=0.5):
    return metrics.measures(
        Verdict(np.asarray(scores, float), threshold), MEMBER, LABELS, num_cls=3
    )


@pytest.mark.parametrize("value", [0, 0.3, 1])
def test_of_equal_scores_nothing_is_measured(value):
    found = measures_of(np.full(2000, value))
    assert all(found[name] is None and found[f"{name}_interval"] is None for name in FIGURES)
    assert found["class_accuracy"] == found["class_auc"] == [None] * 3
    assert (found["members"], found["non_members"], found["equal_scores"]) == (1000, 1000, 1)
    assert "says nothing" in ties.remark(found)


def test_where_most_scores_are_equal_the_rest_is_measured_and_the_share_is_said():
    rare = np.arange(2000) < 100
    found = measures_of(
        np.where(rare & MEMBER, 0.9 + np.arange(2000) / 1e5, 0.2)
    )  # 50 members above all others
    assert found["equal_scores"] == pytest.approx(0.975) and "97.5 %" in ties.remark(found)
    assert found["accuracy"] == found["auc"] == pytest.approx(0.525) and found[
        "tpr_at_0.01"
    ] == pytest.approx(0.05)
    found = measures_of(
        np.where(rare & ~MEMBER, 0.1 + np.arange(2000) / 1e5, 0.9)
    )  # nobody above the many
    assert (
        found["auc"] == pytest.approx(0.525)
        and found["tpr_at_0.01"] is None is found["tpr_at_0.01_interval"]
    )


def test_decisions_and_scores_that_are_spread_need_no_remark():
    draw = np.random.default_rng(0)
    for scores in (
        np.arange(2000) >= 10,
        draw.normal(size=2000),
        draw.random(2000) < 0.5,
        np.where(np.arange(2000) < 1800, 0.2, np.arange(2000)),
    ):
        found = measures_of(scores)
        assert ties.remark(found) is None and found["accuracy"] is not None


def test_a_tie_at_the_top_of_few_scores_leaves_a_rate_of_zero():
    """As it was before: half of the targets tie, which is not most."""
    found = measures_of(np.where(np.arange(2000) < 1000, 1.0, np.arange(2000) / 4000))
    assert found["tpr_at_0.01"] == 0 and ties.remark(found) is None


@pytest.mark.parametrize(
    "threshold, kind", [(0, "members"), (1989, "non-members"), (2000, "non-members")]
)
def test_a_threshold_that_does_not_fit_the_victim_is_said(threshold, kind):
    found = measures_of(np.arange(2000), threshold)
    assert f"of the targets {kind}:" in ties.remark(found) and found["accuracy"] == pytest.approx(
        0.5, abs=0.01
    )
    assert ties.remark(measures_of(np.arange(2000), 1000)) is None


def test_older_lines_and_gap_where_the_victim_is_always_right():
    assert ties.remark({"attack": "loss", "accuracy": 0.5}) is None
    evidence = fixed_evidence(False)
    right = np.eye(4)[evidence.labels]
    verdict = attack("gap", replace(evidence, victim=replace(evidence.victim, logits=right)))["gap"]
    n = len(verdict.scores)
    assert (
        metrics.measures(verdict, np.arange(n) % 2 == 0, np.zeros(n, int), num_cls=1)["auc"] is None
    )


@pytest.fixture
def attacked(write_config, monkeypatch, capsys):
    """A victim attacked by gap, and by loss with the same score for everyone."""
    path = write_config(shadow_num=2)
    whole = attackers.loss.loss
    monkeypatch.setattr(
        attackers.loss,
        "loss",
        lambda *of, **how: {
            "loss": replace(
                whole(*of, **how)["loss"], scores=np.zeros(len(whole(*of, **how)["loss"].scores))
            )
        },
    )
    for stage, words in (
        (pretrain, []),
        (mia, ["--original", "--attacks", "gap,loss", "--per_class"]),
    ):
        assert stage.main(["cpu", path, *words]) == 0
    return capsys.readouterr().out


def test_mia_says_which_verdict_says_nothing_and_shows_dashes(attacked):
    (row,) = [
        line
        for line in attacked.splitlines()
        if line.startswith("loss") and "/" not in line and ":" not in line
    ]
    assert set(row.split()[1:]) == {"-"}
    assert attacked.count("loss: all targets have the same score: this says nothing") == 1
    (closing,) = [
        line
        for line in attacked.split("attack accuracy / AUC")[1].splitlines()
        if line.startswith("loss")
    ]
    assert closing.split()[1:] == ["-", "/", "-"]
    (line,) = [
        line
        for line in map(json.loads, next(Path().rglob("attacks.jsonl")).read_text().splitlines())
        if line["attack"] == "loss"
    ]
    assert line["accuracy"] is line["auc_interval"] is None and line["equal_scores"] == 1


def test_the_report_has_a_dash_for_it_and_tables_of_results_leave_it_out(attacked, monkeypatch):
    from reporting import figures

    monkeypatch.setattr(
        figures.Figure, "savefig", lambda figure, file, **how: file.write(b"no image")
    )
    results = next(Path().rglob("attacks.jsonl")).parent.parent.parent
    table = report.load_results(results)
    assert set(table["attack"]) == {"gap"} and table["value"].notna().all()
    assert report.main([str(results)]) == 0
    lines = (results / "report.md").read_text().splitlines()
    head = next(
        number for number, line in enumerate(lines) if line.startswith("|") and "loss" in line
    )
    cells = dict(zip(lines[head].split("|"), lines[head + 2].split("|")))
    assert cells[" loss "].strip() == "-" and cells[" gap "].strip() not in ("", "-")
    assert any("A dash: all targets have the same score" in line for line in lines)
