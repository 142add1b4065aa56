"""The table of epsilon that is claimed of networks beside what attacks on them prove."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from attackers.audit_bound import epsilon_of_gaussian, epsilon_of_one_run, epsilon_of_rates
from reporting.document import Cell, Table
from reporting.tables import guarantee_cells

LEVEL = 0.05
_BOUNDS: dict[str, Callable[..., float]] = {
    "proven ε, one run": epsilon_of_one_run,
    "ε by rates": epsilon_of_rates,
    "ε by rates, Gaussian": epsilon_of_gaussian,
}


def proven_table(rows: pd.DataFrame, accuracies: pd.DataFrame) -> Table | None:
    """A row for each network; None where none has a guarantee.

    Args:
        rows: of `summary.label_configurations`, of one section.
        accuracies: of `summary.network_accuracies`.
    """
    if accuracies["epsilon"].isna().all():
        return None
    # a guarantee says nothing of other releases that an attacker holds
    decided = rows[(rows["measure"] == "accuracy") & (rows["also"] == "")]
    body = []
    for network in accuracies.itertuples():
        delta = accuracies["delta"].max() if math.isnan(network.delta) else network.delta
        audits = _audits(decided[decided["model"] == network.model])
        if not audits:
            continue
        claimed = guarantee_cells(network)[0]
        whole = network.from_scratch and not network.caveat
        proven = [_proven_cell(audits, bound, delta) for bound in _BOUNDS.values()]
        if whole and proven[0].key is not None and proven[0].key > network.epsilon:
            proven[0] = Cell(proven[0].text, proven[0].key, proven[0].under, best=True)
        if not (whole or claimed.key is None):
            claimed = Cell(claimed.text, claimed.key, network.caveat or "of the fine-tuning only")
        name = Cell(network.model, network.model)
        count = Cell(str(len(audits)), len(audits))
        body.append([name, claimed, Cell(f"{delta:g}", delta), *proven, count])
    caption = (
        "Of each network what is claimed, and the largest epsilon that its attacks refute: the "
        "strongest of them all, with 95 % over all (attacks and trainings, Bonferroni), at the same "
        "delta; of networks without a guarantee the least epsilon that could be claimed of them. "
        "Decisions are by the threshold from the shadow models, which is chosen for accuracy, not "
        "for this; 0 says that nothing was proven, not that nothing leaks. One run: from the right "
        "guesses among pairs of a member and a non-member (Steinke et al. 2023), which needs no "
        "more than that the split is random. By rates: TPR > exp(epsilon) FPR + delta, or the same "
        "of non-members, at the ends of Clopper & Pearson's intervals, as published audits do; it "
        "takes the records of a training as independent draws, which they are not exactly; "
        "Gaussian: likewise, for training that is as private as a Gaussian mechanism. In bold a "
        "proof beyond the claim."
    )
    header = ["victim", "claimed ε", "δ", *_BOUNDS, "audits"]
    return Table("Epsilon claimed and proven", caption, header, body)


def _audits(rows: pd.DataFrame) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(attack, decision, member) of each attack and training whose scores can be read."""
    known = ((row.attack, row.victim_results.truth(row.line)) for row in rows.itertuples())
    return [
        (str(attack), truth["scores"] >= truth["threshold"], truth["member"])
        for attack, truth in known
        if truth is not None
    ]


def _proven_cell(
    audits: list[tuple[str, np.ndarray, np.ndarray]], bound: Callable[..., float], delta: float
) -> Cell:
    """The largest bound, rounded down, and by which attack."""
    level = LEVEL / len(audits)
    proven = [
        (bound(decision, member, delta=delta, level=level), attack)
        for attack, decision, member in audits
    ]
    most, attack = max(proven, key=lambda each: each[0])
    return Cell(
        f"{math.floor(100 * most) / 100:.2f}" if most else "0", most, attack if most else ""
    )
