"""The tables of an audit's page."""

from __future__ import annotations

import numpy as np

from attackers.ties import remark
from auditing import wording
from auditing.result import AttackResult, Audit, Comparison, Estimate, GroupRisk
from reporting.columns import MEASURES
from reporting.document import Cell, Table

WORST_GROUPS, WORST_RECORDS = 4, 10


def attacks_table(audit: Audit) -> Table:
    """All attacks, those on the audited model first and the strongest of them on top."""

    def order(attack: AttackResult) -> tuple:
        area = attack.measures["auc"]
        return (attack.release == "original", -1.0 if area is None else -area)

    strongest = None if audit.strongest is None else audit.attacks[audit.strongest]
    rows = [
        [
            Cell(attack.name, attack.name, wording.about_line(attack.about), attack is strongest),
            Cell(attack.release, attack.release),
            *(_figure(measure, attack.estimate(measure)) for measure in MEASURES),
        ]
        for attack in sorted(audit.attacks, key=order)
    ]
    several = len({attack.release for attack in audit.attacks}) > 1
    caption = (
        "Below each figure its 95\N{NO-BREAK SPACE}% interval. Accuracy is balanced: of as many "
        "members as non-members. Guessing gives an accuracy of 50\N{NO-BREAK SPACE}%, an AUC of 0.5 "
        f"and a TPR equal to the FPR. {wording.NO_FIGURE}: these data or scores do not tell."
    )
    if several:
        caption += " Model: whose answers the attack saw."
    return Table("", caption, ["Attack", "Model", *map(wording.title, MEASURES)], rows)


def remarks(audit: Audit) -> list[str]:
    """What is to be said beside figures, of each attack on the audited model."""
    said = [
        (attack.name, _remark(attack.measures))
        for attack in audit.attacks
        if attack.release != "original"
    ]
    return [f"{name}: {text}." for name, text in said if text]


def _remark(measures: dict) -> str | None:
    """Of an attack without a threshold nothing is said of the records that it calls members."""
    no_threshold = measures["called_members"] is None
    return remark(measures | {"called_members": 0.5} if no_threshold else measures)


def untested(audit: Audit) -> list[tuple[str, str]]:
    """Attacks that were not made, and the reason that they share."""
    by_reason: dict[str, list[str]] = {}
    for each in audit.untested:
        by_reason.setdefault(each.reason, []).append(each.name)
    return [(", ".join(names), reason) for reason, names in by_reason.items()]


def comparison_table(audit: Audit) -> Table | None:
    """Released model against original, the strongest attack first; None where there is no original."""
    by_attack: dict[str, dict[str, Comparison]] = {}
    for each in audit.comparisons:
        by_attack.setdefault(each.attack, {})[each.measure] = each
    if not by_attack:
        return None
    first = "" if audit.strongest is None else audit.attacks[audit.strongest].name

    def order(name: str) -> tuple:
        area = by_attack[name].get("auc")
        return (name != first, 0.0 if area is None else -area.released)

    shown = [name for name in MEASURES if any(name in found for found in by_attack.values())]
    rows = [
        [Cell(name, name), *(_difference(by_attack[name].get(measure)) for measure in shown)]
        for name in sorted(by_attack, key=order)
    ]
    caption = (
        "The same attack on both, paired by record: released minus original (rates in points) with "
        "the 95\N{NO-BREAK SPACE}% interval, and below it both figures and whether the released "
        "model gives away less or more than its original. Where the interval holds 0 they are not "
        "told apart."
    )
    return Table("", caption, ["Attack", *map(wording.title, shown)], rows)


def _difference(found: Comparison | None) -> Cell:
    """A difference with its interval, below it both figures and what it comes to."""
    if found is None:
        return Cell(wording.NO_FIGURE, None)
    value, low, high = (
        wording.difference_text(found.measure, one)
        for one in (found.difference.value, found.difference.low, found.difference.high)
    )
    before, after = (
        wording.value_text(found.measure, one) for one in (found.original, found.released)
    )
    under = f"{before} \N{RIGHTWARDS ARROW} {after}: {wording.change(found)}"
    return Cell(f"{value} ({low} to {high})", found.difference.value, under)


def group_table(audit: Audit, kind: str) -> tuple[Table | None, str]:
    """The worst classes or groups, and a sentence on those that have too few records or are left out.

    The worst first, by the lower end of the AUC's interval: so small groups do not lead by chance.
    """
    every = [group for group in audit.groups if group.kind == kind]
    told = [group for group in every if group.auc is not None]
    told.sort(key=lambda group: -_low(group))
    few = [group for group in every if group.auc is None]
    sentences = []
    if len(told) > WORST_GROUPS:
        sentences.append(f"{len(told) - WORST_GROUPS} more in audit.json, none of them worse.")
    if few:
        names = [f"{group.name} ({group.members} + {group.non_members})" for group in few[:6]]
        names += [f"{len(few) - 6} more"] * (len(few) > 6)
        sentences.append(
            f"Too few records (members + non-members) to tell: {wording.listed(names)}."
        )
    if not told:
        return None, " ".join(sentences)
    with_names = any(group.named_members for group in told)
    rows = [_group_row(group, with_names=with_names) for group in told[:WORST_GROUPS]]
    header = [kind.capitalize(), "Members, others", "AUC"]
    header += ["Members named" if with_names else "Accuracy"]
    title = {"class": "Classes", "group": "Groups"}[kind]
    return Table(f"{title} most at risk", "", header, rows), " ".join(sentences)


def _low(group: GroupRisk) -> float:
    assert group.auc is not None
    return group.auc.low


def _group_row(group: GroupRisk, *, with_names: bool) -> list[Cell]:
    return [
        Cell(group.name, group.name),
        Cell(f"{group.members:,}, {group.non_members:,}", group.members),
        _figure("auc", group.auc),
        _figure("accuracy", group.named_members if with_names else group.accuracy),
    ]


def record_table(audit: Audit) -> Table | None:
    """Members that the strongest attack is surest of; None where there is no attack."""
    if audit.strongest is None:
        return None
    attack, records = audit.attacks[audit.strongest], audit.records
    members = np.flatnonzero(records.member)
    others = np.sort(attack.scores[~records.member])
    as_high = len(others) - np.searchsorted(others, attack.scores[members], side="left")
    memorised = records.memorisation
    tie = (
        np.zeros(len(members)) if memorised is None else -np.nan_to_num(memorised[members], nan=-2)
    )
    order = np.lexsort((tie, -attack.scores[members]))[:WORST_RECORDS]
    header = ["Record", "Class", "Non-members that score as high"]
    header += ["Memorisation"] if memorised is not None else []
    rows = []
    for at in order:
        index = members[at]
        row = [
            Cell(str(records.record_ids[index]), None),
            Cell(str(records.labels[index]), None),
            Cell(f"{as_high[at]:,} of {len(others):,}", int(as_high[at])),
        ]
        if memorised is not None:
            gain = memorised[index]
            text = (
                wording.NO_FIGURE
                if np.isnan(gain)
                else f"{gain:.2f}".replace("-", "\N{MINUS SIGN}")
            )
            row.append(Cell(text, None))
        rows.append(row)
    caption = (
        f"Members with the highest scores by {attack.name}. All records: records.csv. Both say who was "
        f"trained on: not for who may not see the data."
    )
    area = attack.estimate("auc")
    if area is None or wording.against_chance("auc", area) != "above guessing":
        caption += " As the attack is not told apart from guessing, this order may be chance."
    if memorised is not None:
        caption += (
            " Memorisation: how much surer of the true class shadow models are that had the record "
            "than those that had not (0 to 1)."
        )
    return Table("Records most at risk", caption, header, rows)


def _figure(measure: str, estimate: Estimate | None) -> Cell:
    """A figure with its interval below."""
    if estimate is None:
        return Cell(wording.NO_FIGURE, None)
    value = wording.value_text(measure, estimate.value)
    return Cell(value, estimate.value, wording.interval_text(measure, estimate))
