"""Defences weighed: each by its strongest attack, beside undefended networks at least as accurate."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from core.console import percent
from reporting.answer_table import attacker_name, difference_cell, measured_cell, signed
from reporting.comparison import Difference, attack_runs, paired_difference
from reporting.document import Cell, Picture, Point, Table
from reporting.findings import Finding, test_accuracies
from reporting.summary import pareto
from reporting.tables import mean_cell
from reporting.weighing_plot import defences_plot
from reporting.wording import count

_NAMED = 8  # so many networks are named in the answer
_ROUNDING = 1e-9  # of test accuracies of networks that are the same
MIN_DEFENCES = 3  # for a figure of their own in place of that of all victims


@dataclass(frozen=True, eq=False)
class Weighed:
    """A defended network beside the undefended one that it must beat.

    Attributes:
        baseline: of the undefended networks whose mean test accuracy is at least this one's, that
            with the least accurate strongest attack, both over the split seeds that all of them
            share with it; None where there is none so accurate.
        difference: accuracy of the strongest attack on this one - that on the baseline, paired over
            split seeds; None without a baseline.
    """

    defended: Finding
    baseline: Finding | None
    difference: Difference | None


def weigh(findings: list[Finding], rows: pd.DataFrame) -> list[Weighed]:
    """Each defended network of a section beside its baseline.

    Args:
        findings: of `findings.findings`, of these rows.
        rows: of `summary.label_configurations`.
    """
    runs, tests = attack_runs(rows), test_accuracies(rows)
    undefended = [each for each in findings if each.is_plain]
    return [
        _beside_the_best(each, undefended, runs, tests) for each in findings if each.network.defend
    ]


def _beside_the_best(
    defended: Finding,
    undefended: list[Finding],
    runs: dict[str, pd.DataFrame],
    tests: dict[str, pd.Series],
) -> Weighed:
    model = defended.network.model
    attack = runs[model].loc[defended.attacker]
    compared: list[tuple[Finding, Difference]] = []
    for each in undefended:
        gained = paired_difference(tests[each.network.model], tests[model])
        beside = runs[each.network.model].loc[each.attacker]
        difference = paired_difference(attack, beside)
        if gained and difference and gained.mean >= -_ROUNDING:
            compared.append((each, difference))
    # over as many seeds as can be: a network attacked with fewer would be picked for these
    most = max((difference.seeds for _, difference in compared), default=0)
    compared = [pair for pair in compared if pair[1].seeds == most]
    baseline, difference = max(compared, key=lambda pair: pair[1].mean, default=(None, None))
    return Weighed(defended, baseline, difference)


def beats(weighed: Weighed) -> bool:
    """Whether the strongest attack on it is less accurate than on its baseline, beyond the 95 %
    interval."""
    return weighed.difference is not None and weighed.difference.is_below_zero


def weighing_point(weighed: list[Weighed]) -> Point:
    """Which defences leave less to the strongest attack than an undefended network as accurate."""
    heading = "Which defence beats leaving it out"
    if not weighed:
        return Point(heading, "", ["Not known: no defence was tested."])
    compared = [each for each in weighed if each.difference and each.difference.seeds > 1]
    if not compared:
        return Point(heading, "", ["Cannot be told: too few seeds, or none in common."])
    better = sorted(filter(beats, compared), key=lambda each: each.defended.accuracy.mean)
    worse = sum(each.difference is not None and each.difference.is_above_zero for each in compared)
    lead = (
        "Strongest attack on a defended network minus that on the undefended one that leaks least "
        "of those at least as accurate, percentage points, paired over seeds:"
    )
    items = [
        f"{each.defended.network.model}: {signed(each.difference)}, test accuracy "
        f"{percent(each.defended.network.test)} %."
        for each in better[:_NAMED]
        if each.difference
    ]
    items.append(
        f"Attacked less, beyond the 95 % interval: {len(better)} of {len(compared)}; more: {worse}."
    )
    return Point(heading, lead, items)


def weighing_table(weighed: list[Weighed]) -> Table | None:
    """A row for each defended network, the least accurate attack first; None where there is none."""
    if not weighed:
        return None
    numbered = len({each.defended.accuracy.shadow_num for each in weighed}) > 1
    rows = []
    for each in sorted(weighed, key=lambda one: one.defended.accuracy.mean):
        network, baseline = each.defended.network, each.baseline
        beside = [Cell("none as accurate", None), Cell("", None)]
        if baseline is not None:
            name = baseline.network.model
            beside = [Cell(name, name), measured_cell(baseline.accuracy)]
        attack = attacker_name(each.defended.attacker, numbered=numbered)
        rows.append(
            [
                Cell(network.model, network.model),
                mean_cell(network.test, network.test_sd),
                Cell(attack, attack),
                measured_cell(each.defended.accuracy),
                measured_cell(each.defended.tpr),
                *beside,
                difference_cell(each.difference),
            ]
        )
    caption = (
        "Percent, mean ± standard deviation over split seeds; brackets beside a mean: the 95 % "
        "interval for the choice of the target records. Each defence by the strongest attack, which "
        "knows it where such a one was tried, beside the undefended network that leaks least of "
        "those at least as accurate on test records, of whatever sparsity and training: what a "
        "defence must beat. Difference, in percentage points: with the defence minus without, "
        "paired over split seeds, with a 95 % interval by Student's t; bold where it does not hold "
        "0. The baseline is picked as the least of several noisy means, which is optimistic for it, "
        "as the strongest attack is for the attacker; and of many defences some differ by chance."
    )
    header = ["victim", "test accuracy", "strongest attack", "its accuracy", "its TPR at FPR 1 %"]
    header += ["undefended, as accurate", "attack on that", "difference"]
    return Table("Defences beside undefended networks as accurate", caption, header, rows)


def weighing_figure(weighed: list[Weighed], findings: list[Finding]) -> Picture | None:
    """Test accuracy and strongest attack of all defences, beside the undefended networks' Pareto
    front; None of fewer than `MIN_DEFENCES`."""
    if len({each.defended.network.defend for each in weighed}) < MIN_DEFENCES:
        return None
    shown = [each for each in findings if not each.network.original]
    points = pd.DataFrame(
        [
            {
                "defend": each.network.defend,
                "rounds": (each.network.prune_iterations or 1) > 1,
                "test": 100 * each.network.test,
                "worst": 100 * each.accuracy.mean,
            }
            for each in shown
        ]
    )
    plain = (points["defend"] == "").to_numpy()
    points["front"] = False
    points.loc[plain, "front"] = pareto(
        points["test"].to_numpy()[plain], points["worst"].to_numpy()[plain]
    )
    return Picture(
        "weighing",
        "Defences beside undefended networks",
        "Each network by its test accuracy and the accuracy of the strongest attack on it, which "
        "knows the defence where such a one was tried: further down and to the right is better. A "
        "colour and marker each defence, lines join its strengths, hollow: pruned in several "
        "rounds. Grey: undefended networks, of all sparsities and trainings; the stepped line is "
        "their Pareto front, what a defence must be below. "
        f"{count(pd.DataFrame([each.accuracy for each in shown]))}.",
        defences_plot(points),
    )
