"""The table of an answer: a row for each network, with its strongest attack."""

from __future__ import annotations

from core.console import percent
from reporting.comparison import Attacker, Difference
from reporting.document import Cell, Table
from reporting.findings import Finding
from reporting.tables import mean_cell, over_trainings

_CAPTION = (
    "Percent, mean ± standard deviation over split seeds. The strongest attack is the one of the "
    "largest mean accuracy, adaptive ones, which know the defence, included; attacks are compared "
    "over the seeds that they share, and one with fewer seeds counts where it is ahead on these. "
    "Picking the largest of several noisy means is optimistic for the attacker. Brackets beside an "
    "accuracy or a TPR: the 95 % interval for the choice of the target records, the mean of its "
    "ends."
)
_CHANGE_CAPTION = (
    " Changes, in percentage points: of the compressed network minus the original, its test "
    "accuracy, and the accuracy of the strongest attack against itself, and of the strongest on the "
    "one against the strongest on the other, of the attacks made on both; those of a defended "
    "network are compression's and the defence's together."
)
_DEFENCE_CAPTION = (
    " Lost and taken, in percentage points: the network without the defence minus that with it, in "
    "test accuracy and in accuracy of the strongest attack on each, of the attacks made on both; "
    "and points of test accuracy lost for each point of attack accuracy taken."
)
_INTERVAL_CAPTION = (
    " All differences are paired over the split seeds that both networks have, with a 95 % "
    "interval by Student's t over these; bold where it does not hold 0."
)


def attacker_name(attacker: Attacker, *, numbered: bool) -> str:
    """An attacker in print; `numbered`: with how many shadow models it has."""
    words = [attacker.attack] + ["adaptive"] * attacker.adaptive
    return ", ".join(words + [f"{attacker.shadow_num} shadow models"] * numbered)


def interval_of(difference: Difference) -> str:
    """The interval of a difference in percentage points, or that there is none."""
    if difference.seeds == 1:
        return "(one seed: no interval)"
    return f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


def signed(difference: Difference) -> str:
    """A difference in percentage points with its interval."""
    return f"{100 * difference.mean:+.1f} {interval_of(difference)}"


def answer_table(findings: list[Finding], *, numbered: bool = False) -> Table:
    """A row for each network: its strongest attack, what changed, and what its defence costs."""
    changed = any(finding.change for finding in findings)
    defended = any(finding.cost for finding in findings)
    header = ["victim", "test accuracy", "strongest attack", "its accuracy", "its TPR at FPR 1 %"]
    header += ["change, test accuracy", "change, this attack", "change, strongest"] * changed
    header += ["test accuracy lost", "attack accuracy taken", "lost for each point"] * defended
    rows = []
    for finding in findings:
        network, seeds = finding.network, int(finding.accuracy.seeds)
        attack = Cell(
            attacker_name(finding.attacker, numbered=numbered),
            finding.attacker.attack,
            f"{seeds} seed{'s' * (seeds > 1)}" + _trainings(finding.accuracy),
        )
        row = [
            Cell(network.model, network.model),
            mean_cell(
                network.test,
                network.test_sd,
                more=[over_trainings(network.test_training_sd, network.trainings)],
            ),
            attack,
            measured_cell(finding.accuracy),
            measured_cell(finding.tpr),
        ]
        row += _change_cells(finding, numbered=numbered) if changed else []
        row += _cost_cells(finding) if defended else []
        rows.append(row)
    caption = _CAPTION + _CHANGE_CAPTION * changed + _DEFENCE_CAPTION * defended
    caption += _INTERVAL_CAPTION * (changed or defended)
    return Table("The strongest attack on each network", caption, header, rows)


def _trainings(row) -> str:
    return f", {int(row.trainings)} trainings" if row.trainings > row.seeds else ""


def measured_cell(row) -> Cell:
    """A mean of `summary.summarise`, its spread over seeds and trainings, and its mean interval."""
    if row is None:
        return Cell("", None)
    interval = f"[{percent(row.low)}, {percent(row.high)}]"
    more = [over_trainings(row.training_sd, row.trainings), interval]
    return mean_cell(row.mean, row.sd, more=more)


def difference_cell(difference: Difference | None, more: str = "") -> Cell:
    if difference is None:
        return Cell("", None)
    under = "; ".join(filter(None, [interval_of(difference), more]))
    clear = difference.is_above_zero or difference.is_below_zero
    return Cell(f"{100 * difference.mean:+.1f}", difference.mean, under, best=clear)


def _change_cells(finding: Finding, *, numbered: bool) -> list[Cell]:
    change = finding.change
    if change is None:
        return [Cell("", None)] * 3
    pair = ""
    if change.best_after and change.best_before and change.best_after.unaware != change.best_before:
        after, before = (
            attacker_name(each, numbered=numbered)
            for each in (change.best_after, change.best_before)
        )
        pair = f"{after} minus {before}"
    return [
        difference_cell(finding.gained),
        difference_cell(change.same),
        difference_cell(change.best, pair),
    ]


def _cost_cells(finding: Finding) -> list[Cell]:
    cost = finding.cost
    if cost is None:
        return [Cell("", None)] * 3
    price = Cell(f"{cost.price:.1f}", cost.price) if cost.taken.is_above_zero else Cell("-", None)
    judged = "" if cost.adaptive else "no adaptive attack"
    return [difference_cell(cost.lost), difference_cell(cost.taken, judged), price]
