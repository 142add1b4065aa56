"""Conditions on what attacks may find, and whether they are met."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attackers import metrics
from auditing.result import AttackResult, Estimate, GateResult, Outcome
from auditing.weaknesses import STRONG, Weakness
from core.console import UserError
from core.registry import nearest

GUESSING = {"accuracy": 0.5, "auc": 0.5} | {f"tpr_at_{limit:g}": limit for limit in metrics.FPRS}
STATUS: dict[Outcome | None, int] = {None: 0, "pass": 0, "fail": 3, "inconclusive": 4}
WORST: tuple[Outcome, ...] = ("fail", "inconclusive", "pass")
MOST_MORE = 100  # times the records: beyond that, no number decides
_FORM = re.compile(r"\s*([^<>=\s]+)\s*(<=|<)\s*(\S+)\s*")


@dataclass(frozen=True)
class Gate:
    """`measure` is to be at most `limit`, or below it where `strict`."""

    condition: str
    measure: str
    limit: float
    strict: bool

    def holds(self, value: float) -> bool:
        return value < self.limit if self.strict else value <= self.limit


def read_gate(text: str) -> Gate:
    """The gate of such a text as `auc<=0.6`.

    Raises:
        UserError: it is none, or one that guessing does not meet or that everything does.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise UserError(f"--gate {text!r}: a gate is a measure, <= or <, and a number: auc<=0.6")
    measure, sign, number = found.groups()
    if "%" in text:
        raise UserError(f"--gate {text!r}: measures and limits are fractions: tpr_at_0.01<=0.03")
    if measure not in GUESSING:
        raise UserError(
            f"--gate {text!r}: unknown measure {measure!r}{nearest(measure, GUESSING)} (measures: "
            f"{', '.join(GUESSING)})"
        )
    try:
        limit = float(number)
    except ValueError:
        raise UserError(f"--gate {text!r}: {number!r} is no number") from None
    least = GUESSING[measure]
    if not least < limit < 1:
        raise UserError(
            f"--gate {text!r}: the limit is a fraction above {least:g}, which guessing reaches, and "
            f"below 1"
        )
    return Gate(f"{measure}{sign}{number}", measure, limit, sign == "<")


def outcome_of(gates: Sequence[GateResult]) -> Outcome | None:
    """The worst of all; None where there are none."""
    return min((one.outcome for one in gates), key=WORST.index, default=None)


def judge(
    gate: Gate, results: Sequence[AttackResult], member: np.ndarray, weaknesses: Sequence[Weakness]
) -> GateResult:
    """Whether a gate is met by all attacks of somebody who has the released model.

    It passes where the 95 % interval of each of them ends below the limit: where one's true figure
    is above, that one's interval must miss it, which happens in 2.5 % of cases at most, however
    many others there are. It fails where the interval of the attack with the largest figure begins
    above the limit, at a level that counts of how many attacks that one is the largest: each end is
    missed with a probability of 2.5 % divided by their number (Bonferroni). What is weak in the
    evidence turns a pass, never a fail, into `inconclusive`.

    Args:
        member: (n,) bool, of the targets.
    """
    made = [one for one in results if one.of_released]
    told = [(one, found) for one in made if (found := one.estimate(gate.measure)) is not None]
    if not told:
        return _untold(gate, member, made)
    worst, estimate = max(told, key=lambda pair: pair[1].value)
    low = interval(worst, gate.measure, member, tail=metrics.TAIL / len(told))[0]
    largest = f"the lower end of an interval for the largest of {len(told)} figures"
    outcome, reason, add = _pass(gate, made, told, weaknesses)
    if not gate.holds(low):
        outcome, add = "fail", []
        reason = f"{worst.name} reaches {estimate.value:.4g}, and at least {low:.4g}, {largest}"
    elif not all(gate.holds(found.high) for _, found in told):
        outcome, add = "inconclusive", [_more_records(gate, told, low, len(member))]
        reason = (
            f"{worst.name} reaches {estimate.value:.4g}, but {low:.4g}, {largest}, is not above"
        )
        if gate.holds(estimate.value):
            names = [one.name for one, found in told if not gate.holds(found.high)]
            reason = f"all figures are below the limit, but not the intervals of {', '.join(names)}"
    return GateResult(
        gate.condition, gate.measure, gate.limit, outcome, worst.name, estimate, reason, add
    )


def _pass(
    gate: Gate,
    made: Sequence[AttackResult],
    told: Sequence[tuple[AttackResult, Estimate]],
    weaknesses: Sequence[Weakness],
) -> tuple[Outcome, str, list[str]]:
    """Whether intervals that all end below the limit are a pass, the reason, and what to add."""
    silent = [one.name for one in made if one.name in STRONG and not one.estimate(gate.measure)]
    if silent:
        reason = f"of {', '.join(silent)} too many scores are equal to tell {gate.measure}"
        return "inconclusive", reason, ["answers with all digits"]
    below = f"the upper ends of all {len(told)} intervals are below the limit"
    blocking = [one for one in weaknesses if one.blocks]
    if blocking:
        reason = f"{below}, but {blocking[0].says}"
        return "inconclusive", reason, [one.add for one in blocking]
    return "pass", below, []


def interval(result: AttackResult, measure: str, member: np.ndarray, *, tail: float) -> list[float]:
    """The interval of a measure, each end of which is missed with this probability."""
    if measure == "accuracy":
        assert result.called is not None  # else there is no accuracy
        return metrics.accuracy_interval(result.called, member, tail=tail)
    if measure == "auc":
        return metrics.auc_interval(result.scores, member, tail=tail)
    limit = float(measure.removeprefix("tpr_at_"))
    return metrics.tpr_interval(result.scores, member, limit=limit, tail=tail)


def _untold(gate: Gate, member: np.ndarray, made: Sequence[AttackResult]) -> GateResult:
    """No attack has this measure."""
    others = int((~member).sum())
    reason, add = f"no attack tells {gate.measure} of these data", "shadow models"
    if gate.measure.startswith("tpr_at_"):
        needed = round(10 / GUESSING[gate.measure])
        if others < needed:
            reason = f"{others} non-members do not tell a TPR at so low a FPR"
            add = f"{needed - others:,} more non-members, {needed:,} in all"
    elif gate.measure == "accuracy":
        add = "known non-members beside the targets (target), or shadow models"
    name = made[0].name if made else "-"
    return GateResult(
        gate.condition, gate.measure, gate.limit, "inconclusive", name, None, reason, [add]
    )


def _more_records(
    gate: Gate, told: Sequence[tuple[AttackResult, Estimate]], low: float, n: int
) -> str:
    """About how many targets would bring an interval's end to the limit, whose distance from the
    figure falls as 1 / sqrt(n)."""
    over = max((found for _, found in told), key=lambda found: found.value)
    if over.value > gate.limit:  # to fail: by the end that counts the attacks
        ratio = (over.value - low) / (over.value - gate.limit)
    else:  # to pass: all of them must
        ratio = max(
            (found.high - found.value) / max(gate.limit - found.value, 1e-12) for _, found in told
        )
    if ratio**2 > MOST_MORE:
        return "another limit: the figure is too near this one for any number of targets to decide"
    needed = ratio**2 * n
    return (
        f"about {needed - n:,.0f} more targets, members and non-members as mixed as these, "
        f"{needed:,.0f} in all"
    )
