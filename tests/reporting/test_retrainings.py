"""Members named again over trainings: grouped exactly, and the table and figure worked by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from report_helpers import trained

from reporting import retraining_plot
from reporting.columns import MEASURES
from reporting.retrainings import retrained_attacks, retraining_figure, retraining_table
from reporting.summary import label_configurations

MEMBER = np.arange(30) < 10  # 20 non-members: at an FPR of 10 % two of them are above the threshold


def scores(named, alarms=(28, 29)):
    """Scores by which these members and non-members, and nobody else, are named."""
    return np.where(np.isin(np.arange(30), [*named, *alarms]), 2.0, 0.0) + np.where(
        np.arange(30) == 27, 1.0, 0.0
    )


def attacked(runs, *, measure="tpr_at_0.1", targets=lambda seed, training: f"{seed}", **columns):
    """Labelled rows of {(attack, seed, train_seed): scores}."""
    table = trained(*((*key, 0.5) for key in runs), measure=measure, **columns)
    table["victim_results"] = [
        SimpleNamespace(truth=lambda line: line["truth"]) for _ in range(len(table))
    ]
    table["line"] = [
        {"targets": targets(seed, training), "truth": truth and truth | {"member": MEMBER}}
        for (_, seed, training), truth in (
            (key, None if one is None else {"scores": one}) for key, one in runs.items()
        )
    ]
    return label_configurations(table)[0]


RUNS = {
    ("conf", 7, 0): scores([0, 1, 2, 3]),
    ("conf", 7, 1): scores([2, 3, 4, 5], alarms=(25, 28)),
    ("conf", 7, 2): scores([3, 4]),
    ("lira", 7, 0): scores([0, 1]),
    ("lira", 7, 1): scores([2, 3, 4, 5]),
    ("lira", 7, 2): scores([9]),
}


def by_head(table, attack):
    (row,) = (row for row in table.rows if row[1].text == attack)
    return dict(zip(table.header, row))


def test_the_table_by_hand():
    table = retraining_table(retrained_attacks(attacked(RUNS)))
    assert "at FPR 10 %" in table.caption
    conf, lira = by_head(table, "conf"), by_head(table, "lira")
    assert conf["trainings"].text == "3"
    assert conf["named by one"].text == "33.3"  # 4, 4 and 2 of 10
    # 0.4 * 0.4 * 0.2, and 1 - 0.6 * 0.6 * 0.8
    assert (conf["by every"].text, conf["by every"].under) == ("10.0", "chance 3.2")
    assert (conf["by any"].text, conf["by any"].under) == ("60.0", "chance 71.2")
    # {0123} {2345}: 2/6; {0123} {34}: 1/5; {2345} {34}: 1/2
    alike = conf["Jaccard, two trainings"]
    assert alike.key == pytest.approx((1 / 3 + 1 / 5 + 1 / 2) / 3)
    assert alike.under.endswith("; 3 pairs, 0.20 to 0.50")
    assert conf["of false alarms"].key == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)
    assert lira["by every"].text == "0.0" and lira["Jaccard, two trainings"].key == 0
    # on the same training: 2/4, 4/4, 0
    assert conf["Jaccard, other attacks"].key == pytest.approx(0.5)
    assert lira["Jaccard, other attacks"].key == conf["Jaccard, other attacks"].key


def test_chance_of_two_sets_is_an_expectation_over_draws():
    draw, both = np.random.default_rng(0), []
    for _ in range(4000):
        one, other = draw.permutation(10) < 4, draw.permutation(10) < 4
        both.append((one & other).sum() / (one | other).sum())
    runs = {key: RUNS[key] for key in (("conf", 7, 0), ("conf", 7, 1))}
    cell = by_head(retraining_table(retrained_attacks(attacked(runs))), "conf")[
        "Jaccard, two trainings"
    ]
    assert float(cell.under.split("; ")[0].removeprefix("chance ")) == pytest.approx(
        np.mean(both), abs=0.01
    )
    assert cell.under.endswith("; 1 pair")


def test_only_trainings_of_one_split_and_configuration_are_compared():
    once = {("conf", 7, 0): scores([0]), ("conf", 8, 0): scores([0]), ("lira", 7, 1): scores([0])}
    assert retrained_attacks(attacked(once)) == []
    other_targets = attacked(RUNS, targets=lambda seed, training: f"{training}")
    assert retrained_attacks(other_targets) == []
    two = [attacked({("conf", 7, at): scores([0])}, prune_sparsity=at / 4 + 0.25) for at in (0, 1)]
    assert retrained_attacks(pd.concat(two, ignore_index=True)) == []
    unreadable = {key: None if key[2] else truth for key, truth in RUNS.items()}
    assert retrained_attacks(attacked(unreadable)) == []
    assert retrained_attacks(attacked(RUNS, measure="accuracy")) == []
    assert retraining_table([]) is None and retraining_figure([], ["x"]) is None


def test_the_lowest_rate_that_was_measured_counts():
    both = [attacked(RUNS, measure=measure) for measure in ("tpr_at_0.1", "tpr_at_0.01")]
    found = retrained_attacks(pd.concat(both, ignore_index=True))
    assert {one.measure for one in found} == {"tpr_at_0.01"} <= set(MEASURES)
    assert {one.rate for one in found} == {0}  # of 20 non-members none may be named: nobody is


def test_splits_are_averaged_and_never_mixed():
    runs = RUNS | {("conf", 8, at): scores([at]) for at in (0, 1)}
    attacks = retrained_attacks(attacked(runs))
    assert {(one.attack, one.split) for one in attacks} == {
        ("conf", (7, "7")),
        ("conf", (8, "8")),
        ("lira", (7, "7")),
    }
    conf = by_head(retraining_table(attacks), "conf")
    assert (conf["trainings"].text, conf["trainings"].under) == ("2 to 3", "2 splits")
    assert conf["by any"].key == pytest.approx((0.6 + 0.2) / 2)
    assert conf["Jaccard, two trainings"].under.endswith("4 pairs, 0.00 to 0.50")


def test_the_figure_shows_the_matrix_and_attacks_that_differ(monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        retraining_plot, "retrainings", lambda curves, matrix: drawn.update(c=curves, m=matrix)
    )
    twin = {("loss", seed, at): one for (name, seed, at), one in RUNS.items() if name == "conf"}
    rows = attacked(RUNS | twin)
    picture = retraining_figure(retrained_attacks(rows), [rows["victim"].iloc[0]])
    assert [*drawn["c"]] == ["conf", "lira"]
    assert "the same in every training: loss as conf." in picture.caption
    assert drawn["c"]["conf"].shares == pytest.approx([0.6, 0.3, 0.1])
    diagonal = (1 / 3 + 1 / 5 + 1 / 2) / 3
    assert drawn["m"] == pytest.approx(np.array([[diagonal, 0.5], [0.5, 0]]))


def test_an_attack_that_names_nobody_is_drawn_too():
    runs = RUNS | {("rmia", 7, at): scores([]) for at in (0, 1, 2)}
    picture = retraining_figure(retrained_attacks(attacked(runs)), [])
    assert picture.png.startswith(b"\x89PNG")
    row = by_head(retraining_table(retrained_attacks(attacked(runs))), "rmia")
    assert row["Jaccard, two trainings"].text == "-"
