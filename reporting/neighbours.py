"""Networks beside those that differ from them in one thing: compression, rounds, choice of weights."""

from __future__ import annotations

from typing import Any

import pandas as pd

from reporting.answer_table import difference_cell, signed
from reporting.comparison import attack_change, attack_runs, paired_difference
from reporting.document import Cell, Table
from reporting.findings import UNCOMPRESSED, plain_like, reference_of
from reporting.findings import test_accuracies as accuracies_by_run

_NAMES = (
    "minus fine-tuning alone",
    "minus one-shot",
    "minus pruned at random",
    "minus float weights",
)
_CAPTION = (
    "Percentage points: accuracy of the strongest attack on the network minus that of the strongest "
    "on another that differs in one thing, of the attacks made on both, and so the test accuracy; "
    "fine-tuning alone is a network of as many rounds of which hardly a weight was pruned; "
    "paired over the split seeds that both have, with the 95 % interval by Student's t. In bold "
    "where it does not hold 0; of so many intervals one in twenty misses by chance."
)


def neighbour_table(rows: pd.DataFrame, accuracies: pd.DataFrame) -> Table | None:
    """Each network without a defence beside the one that was fine-tuned and hardly compressed, the
    one-shot one, the one pruned at random, and the one with float weights; None where there are no
    such pairs.

    Args:
        rows: of `summary.label_configurations`, of one section.
        accuracies: of `summary.network_accuracies`.
    """
    runs, tests = attack_runs(rows), accuracies_by_run(rows)
    body: list[list[Cell]] = []
    seen: set[str] = set()
    for network in accuracies.itertuples():
        if network.original or network.defend or network.model not in runs:
            continue
        cells = [Cell(network.model, network.model)]
        for name, candidates in _others(network, accuracies).items():
            reference = reference_of(network, candidates, runs)
            if reference is None:
                cells.append(Cell("", None))
                continue
            seen.add(name)
            change = attack_change(runs[network.model], runs[reference]).best
            gained = paired_difference(tests[network.model], tests[reference])
            cells.append(difference_cell(change, f"test {signed(gained)}" if gained else ""))
        if any(cell.text for cell in cells[1:]):
            body.append(cells)
    if not body:
        return None
    shown = [0, *(number for number, name in enumerate(_NAMES, 1) if name in seen)]
    header = ["victim", *_NAMES]
    return Table(
        "Beside networks that differ in one thing",
        _CAPTION,
        [header[number] for number in shown],
        [[cells[number] for number in shown] for cells in body],
    )


def _others(network: Any, accuracies: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """{what a network is compared with: the rows of such networks}."""
    rounds = network.prune_iterations if (network.prune_iterations or 1) > 1 else 1
    both = bool(network.pruner_name and network.quantizer)
    # what was not fine-tuned, or twice, has no such control
    untuned = bool(network.quantizer) and network.quantize_epochs == 0
    tuned_once = not (both or untuned or network.bits_per_weight >= UNCOMPRESSED)
    plain = accuracies[~accuracies["original"] & (accuracies["defend"] == "")]
    none = plain[:0]
    tuned = (plain["bits_per_weight"] >= UNCOMPRESSED) & (plain["prune_iterations"] == rounds)
    chosen = bool(network.pruner_name) and network.pruner_name != "random"
    others = (
        plain[tuned] if tuned_once else none,
        plain_like(network, plain, prune_iterations=1) if rounds > 1 else none,
        plain_like(network, plain, pruner_name="random") if chosen else none,
        plain_like(network, plain, quantizer="") if both else none,
    )
    return dict(zip(_NAMES, others))
