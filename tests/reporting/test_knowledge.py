"""Reports of attackers who know less: rows of their own, and no part in the answer."""

import io

import pandas as pd
import pytest
from report_helpers import rows

from reporting.sections import sections
from reporting.summary import best_informed, csv_text, label_configurations, summarise

GUESS = {"shadow_sparsity": 0.5}
QUARTER = {"attacker_records": 0.25}


def labelled(*tables):
    return label_configurations(pd.concat(tables, ignore_index=True))[0]


def section_of(table, monkeypatch):
    monkeypatch.setattr("reporting.sections._add_figures", lambda *_: None)
    (section,), _, _ = sections(table)
    return section


@pytest.fixture
def table():
    """The less an attacker knows, the higher the accuracy: a report that mixes them tells."""
    known = rows(("lira", 7, 0.6), ("lira", 8, 0.62), ("rmia", 7, 0.58))
    original = {"original": True, "pruner_name": None, "prune_sparsity": None}
    return labelled(
        rows(("lira", 7, 0.9), ("lira", 8, 0.9), **GUESS),
        rows(("lira", 7, 0.95), **QUARTER),
        rows(("lira", 7, 0.99), shadow_pruner_name="random", shadow_model_name="columnfc"),
        known,
        rows(("lira", 7, 0.5), ("lira", 8, 0.5), **original),
        rows(("lira", 7, 0.7), **original, **QUARTER),
    )


def test_victims_say_what_the_attacker_lacks_and_models_do_not(table):
    assert list(dict.fromkeys(table["victim"])) == [
        "original",
        "original, 25 % of the records",
        "l1unstructure 70 %",
        "l1unstructure 70 %, shadows: 50 %",
        "l1unstructure 70 %, shadows: columnfc random",
        "l1unstructure 70 %, 25 % of the records",
    ]
    assert set(table["model"]) == {"original", "l1unstructure 70 %"}
    means = summarise(table).set_index(["victim", "attack"])["mean"]
    assert means["l1unstructure 70 %", "lira"] == pytest.approx(0.61)
    assert means["l1unstructure 70 %, shadows: 50 %", "lira"] == pytest.approx(0.9)


def test_the_best_informed_guess_nothing_wrong_and_have_the_largest_share(table):
    assert set(best_informed(table)["value"]) == {0.6, 0.62, 0.58, 0.5}
    less = labelled(rows(("lira", 7, 0.6), **QUARTER), rows(("lira", 7, 0.7), attacker_records=0.5))
    assert set(best_informed(less)["value"]) == {0.7}
    assert best_informed(labelled(rows(("lira", 7, 0.6), **GUESS))).empty


def test_the_answer_and_changes_are_of_the_best_informed(table, monkeypatch):
    section = section_of(table, monkeypatch)
    answers = {row[0].text: row for row in section.answer.table.rows}
    assert answers["l1unstructure 70 %"][3].text == "61.0"
    assert answers["original"][3].text == "50.0"
    (changes,) = (one for one in section.measures if one.title.startswith("Change of attack"))
    assert [[cell.text for cell in row] for row in changes.rows] == [
        ["l1unstructure 70 %", "2", "+11.0"]
    ]
    accuracies = next(one for one in section.measures if one.title == "Attack accuracy")
    assert {row[0].text for row in accuracies.rows} == set(table["victim"])


def test_who_was_attacked_only_by_others_is_said(monkeypatch):
    known = rows(("lira", 7, 0.6))
    other = rows(("lira", 7, 0.7), prune_sparsity=0.9, **GUESS)
    words = "knows how the victim was compressed and has all the records: not on"
    section = section_of(labelled(known, other), monkeypatch)
    (untested,) = (p for p in section.answer.points if p.heading == "What was not tested")
    assert any(f"{words} l1unstructure 90 %." in item for item in untested.texts)
    section = section_of(labelled(other), monkeypatch)  # of nobody else is there an answer
    (untested,) = (p for p in section.answer.points if p.heading == "What was not tested")
    assert any(f"{words} any victim." in item for item in untested.texts)
    assert section.answer.table.rows == []


def test_a_share_that_all_have_is_in_the_title(monkeypatch):
    section = section_of(labelled(rows(("lira", 7, 0.6), **QUARTER)), monkeypatch)
    assert section.title == "d, m, attacker with 25 % of the records"
    assert [row[3].text for row in section.answer.table.rows] == ["60.0"]


def test_the_csv_has_a_column_for_each(table, monkeypatch):
    monkeypatch.setattr("reporting.sections._add_figures", lambda *_: None)
    _, summary, accuracies = sections(table)
    csv = pd.read_csv(io.StringIO(csv_text(summary, accuracies)))
    found = csv[csv["attack"] == "lira"].set_index("victim")
    assert found.loc["l1unstructure 70 %, shadows: 50 %", "shadow_sparsity"] == 0.5
    row = found.loc["l1unstructure 70 %, shadows: columnfc random"]
    assert (row["shadow_pruner_name"], row["shadow_model_name"]) == ("random", "columnfc")
    assert found.loc["original, 25 % of the records", "attacker_records"] == 0.25
    assert found.loc["l1unstructure 70 %", "attacker_records"] == 1
