"""Epsilon claimed and proven: which attack, at which delta and level, and what is in bold."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from report_helpers import rows, tables

from attackers.audit_bound import epsilon_of_one_run, epsilon_of_rates
from defenders.accounting import NO_GUARANTEE
from reporting.proven_epsilon import proven_table
from reporting.summary import label_configurations, network_accuracies

MEMBER = np.arange(2000) < 1000
GOOD, POOR = MEMBER ^ (np.arange(2000) % 10 == 0), MEMBER ^ (np.arange(2000) % 2 == 0)


def attacked(decisions, **columns):
    """Rows of {attack: decisions}, with thresholds as they are stored."""
    table = rows(*((attack, 7, 0.5) for attack in decisions), **columns)
    table["victim_results"] = [
        SimpleNamespace(
            truth=lambda line: {"scores": line["d"] - 3.0, "threshold": -2.0, "member": MEMBER}
        )
        for _ in range(len(table))
    ]
    table["line"] = [{"d": decision} for decision in decisions.values()]
    return table


def private(decisions, **columns):
    how = {"defend": "dp", "defend_arg": 1.0, "from_scratch": True, "epsilon": 0.5, "delta": 1e-6}
    return attacked(decisions, **how | columns)


def table_of(*parts):
    table = label_configurations(pd.concat(parts, ignore_index=True))[0]
    return proven_table(table, network_accuracies(table))


def test_the_strongest_attack_counts_at_a_level_for_all_of_them():
    both = {"conf": POOR, "lira": GOOD}
    table = table_of(private(both), attacked({"loss": GOOD}))
    of_dp, plain = (
        dict(zip(table.header, row))
        for row in sorted(table.rows, key=lambda r: -r[1].key if r[1].key else 0)
    )
    assert of_dp["claimed ε"].text == "0.50" and plain["claimed ε"].text == "-"
    assert of_dp["audits"].text == "2" and plain["audits"].text == "1"
    assert {of_dp["δ"].text, plain["δ"].text} == {"1e-06"}  # of the network without one, the same
    for row, level in ((of_dp, 0.025), (plain, 0.05)):
        for head, bound in (
            ("proven ε, one run", epsilon_of_one_run),
            ("ε by rates", epsilon_of_rates),
        ):
            expected = bound(GOOD, MEMBER, delta=1e-6, level=level)
            assert row[head].key == expected > 1.5
            assert row[head].text == f"{math.floor(100 * expected) / 100:.2f}"
    assert of_dp["proven ε, one run"].under == "lira" and plain["proven ε, one run"].under == "loss"
    assert of_dp["proven ε, one run"].best and not plain["proven ε, one run"].best


@pytest.mark.parametrize(
    "columns, under, bold",
    [
        ({}, "", True),
        ({"epsilon": 5.0}, "", False),
        ({"from_scratch": False}, "of the fine-tuning only", False),
        ({"caveat": NO_GUARANTEE}, NO_GUARANTEE, False),
    ],
)
def test_only_a_guarantee_of_the_whole_network_can_be_refuted(columns, under, bold):
    (row,) = table_of(private({"lira": GOOD}, **columns)).rows
    assert row[1].under == under and row[3].best is bold


def test_what_proves_nothing_is_zero_and_names_nobody():
    (row,) = table_of(private({"conf": POOR})).rows
    assert [(cell.text, cell.under, cell.best) for cell in row[3:6]] == [("0", "", False)] * 3


def test_without_a_guarantee_there_is_no_table():
    assert table_of(attacked({"lira": GOOD})) is None


def test_the_page_has_it(written):
    found = tables((written / "report.html").read_text())["Epsilon claimed and proven"]
    victims = [" ".join(row[0][0]) for row in found[1:]]
    assert "original" in victims and any("dp" in name for name in victims)


def test_what_is_told_by_another_release_refutes_no_guarantee():
    table = table_of(private({"lira": POOR}), private({"lira_joint": GOOD}, also="original"))
    (row,) = (dict(zip(table.header, row)) for row in table.rows)
    assert row["audits"].text == "1" and not row["proven ε, one run"].best
    assert row["proven ε, one run"].key == epsilon_of_one_run(POOR, MEMBER, delta=1e-6, level=0.05)
