"""The answer that a report opens with, for a data set, network and split, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from core.console import percent
from reporting.answer_table import answer_table, attacker_name, interval_of, signed
from reporting.comparison import DefenceCost, Difference, cheapest
from reporting.document import Answer, Point
from reporting.findings import EQUAL, Finding, at_equal_accuracy, mean_change

_NAMED = 8  # so many networks are listed by name, of more the number


def answer(title: str, findings: list[Finding], untested: list[str]) -> Answer:
    """The answer of a section.

    Args:
        findings: of `findings.findings`.
        untested: of `untested.untested`.
    """
    numbered = len({finding.accuracy.shadow_num for finding in findings}) > 1
    points = [
        Point("Which attack is strongest", "", _strongest_items(findings, numbered=numbered)),
        _change_point(findings),
        _defence_point(findings),
        Point("What was not tested", "", untested or ["Nothing of what can be chosen here."]),
    ]
    return Answer(title, points, answer_table(findings, numbered=numbered))


def _strongest_items(findings: list[Finding], *, numbered: bool) -> list[str]:
    items = []
    for finding in findings:
        if finding.network.original:
            name = attacker_name(finding.attacker, numbered=numbered)
            text = f"On the {finding.network.model}: {name}, accuracy {_measured(finding.accuracy)}"
            rate = finding.tpr
            items.append(text + (f", TPR at FPR 1 % {_measured(rate)}." if rate else "."))
    groups = (
        ("Compressed, no defence", [each for each in findings if each.is_plain]),
        ("With a defence", [each for each in findings if each.network.defend]),
    )
    for noun, group in groups:
        if group:
            names = Counter(attacker_name(each.attacker, numbered=numbered) for each in group)
            listed = _listed(f"{name} (on {n} of {len(group)})" for name, n in names.most_common())
            order = sorted(group, key=lambda each: each.accuracy.mean)
            span = " to ".join(
                f"{percent(each.accuracy.mean)} % ({each.network.model})"
                for each in dict.fromkeys((order[0], order[-1]))
            )
            items.append(f"{noun}: {listed}, accuracy {span}.")
    return items


def _measured(row) -> str:
    """A mean of `summary.summarise` with its interval."""
    return f"{percent(row.mean)} % [{percent(row.low)}, {percent(row.high)}]"


def _change_point(findings: list[Finding]) -> Point:
    heading = "What compression changed"
    plain = [each for each in findings if each.is_plain]
    if not plain:
        return Point(heading, "", ["Not known: no compressed network without a defence."])
    changes = [
        (each.network.model, each.change.best) for each in plain if each.change and each.change.best
    ]
    if not changes:
        reason = "Not known: the original was not attacked."
        if any(each.network.original for each in findings):
            reason = "Not known: no original trained alike was attacked in the same way."
        return Point(heading, "", [reason])
    lead = (
        "Accuracy of the strongest attack on a compressed network without a defence minus that of "
        "the strongest on the original, percentage points, paired over "
        f"{_seeds(one for _, one in changes)}:"
    )
    judged = [(model, one) for model, one in changes if one.seeds > 1]
    groups = (
        ("Higher", [pair for pair in judged if pair[1].is_above_zero]),
        ("Lower", [pair for pair in judged if pair[1].is_below_zero]),
        ("No difference beyond its interval", [pair for pair in judged if pair[1].holds_zero]),
        ("Cannot be judged", [pair for pair in changes if pair[1].seeds == 1]),
    )
    items = [f"{verdict}: {_changes_in_words(group)}." for verdict, group in groups if group]
    equal = at_equal_accuracy(plain)
    mean = mean_change(equal)
    if mean:
        items.append(
            f"As accurate on test records as the original, within {100 * EQUAL:g} point on average "
            f"and {200 * EQUAL:g} in every split: {_named(equal)}; the mean of their changes: "
            f"{signed(mean)}."
        )
    each = [one for finding in plain for one in finding.same.values() if one.seeds > 1]
    if each:
        higher, lower = (
            sum(one.is_above_zero for one in each),
            sum(one.is_below_zero for one in each),
        )
        items.append(
            f"Each attack against itself, {len(each)} comparisons: {higher} higher and {lower} "
            "lower beyond their 95 % interval (the tables have each)."
        )
    return Point(heading, lead, items)


def _changes_in_words(group: list[tuple[str, Difference]]) -> str:
    """Networks with their changes, of many the ends."""
    if len(group) <= _NAMED:
        return _listed(f"{model} {signed(one)}" for model, one in group)
    order = sorted(group, key=lambda pair: pair[1].mean)
    ends = " to ".join(f"{signed(one)} ({model})" for model, one in (order[0], order[-1]))
    return f"{len(group)} networks, {ends}"


def _named(findings: list[Finding]) -> str:
    """The networks of these, of many the number."""
    if len(findings) > _NAMED:
        return f"{len(findings)} networks"
    return _listed(finding.network.model for finding in findings)


def _seeds(differences: Iterable[Difference]) -> str:
    numbers = sorted({difference.seeds for difference in differences})
    span = " to ".join(map(str, dict.fromkeys((numbers[0], numbers[-1]))))
    return f"{span} seed{'s' * (numbers[-1] > 1)}"


def _defence_point(findings: list[Finding]) -> Point:
    heading = "Which defence costs least"
    if not any(finding.network.defend for finding in findings):
        return Point(heading, "", ["Not known: no defence was tested."])
    costs: dict[str, list[DefenceCost]] = {}
    for finding in findings:
        if finding.cost:
            costs.setdefault(finding.cost.undefended, []).append(finding.cost)
    if not costs:
        reason = (
            "Not known: no network without a defence is pruned and trained like those with one."
        )
        return Point(heading, "", [reason])
    lead = (
        "The fewest points of test accuracy lost for each point taken from the accuracy of the "
        "strongest attack, which knows the defence where that was tried; of the defences that "
        "take something beyond the 95 % interval, paired over "
        f"{_seeds(one.taken for group in costs.values() for one in group)}:"
    )
    items: list[str] = []
    without: dict[str, list[str]] = {}
    for undefended, group in costs.items():
        best = cheapest(group)
        if best is not None:
            items.append(_cheapest_words(best))
            continue
        one_seed = all(cost.taken.seeds == 1 for cost in group)
        verdict = (
            "cannot be told (one seed: no interval)"
            if one_seed
            else "none takes anything away beyond its interval"
        )
        without.setdefault(verdict, []).append(undefended)
    items += [f"Against {_listed(names)}: {verdict}." for verdict, names in without.items()]
    return Point(heading, lead, items)


def _cheapest_words(cost: DefenceCost) -> str:
    unaware = "" if cost.adaptive else "; no attacker who knows it was tried"
    return (
        f"Against {cost.undefended}: {cost.defended}, {cost.price:.1f} for each point "
        f"({100 * cost.lost.mean:.1f} {interval_of(cost.lost)} lost for "
        f"{100 * cost.taken.mean:.1f} {interval_of(cost.taken)} taken{unaware})."
    )


def _listed(items: Iterable[str]) -> str:
    """Items with commas, or semicolons where they hold commas."""
    items = list(items)
    return ("; " if any("," in item for item in items) else ", ").join(items)
