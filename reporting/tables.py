"""The tables of a section: accuracies of the networks, and a table a measure, victims by attacks."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

from bench.sizes import SIZE_TITLES, size_cells
from core.console import percent
from defenders.accounting import rounded_up
from reporting.columns import MEASURES, SIZES, ordered_attacks
from reporting.comparison import attack_runs, same_attack_differences
from reporting.document import Cell, Table

_TRAININGS = (
    ' "Over n trainings": the standard deviation over trainings of one split, which differ in '
    "--train_seed alone"
)


def mean_cell(
    mean: float,
    spread: float,
    *,
    best: bool = False,
    seeds: int | None = None,
    more: Iterable[str] = (),
) -> Cell:
    """A mean, and under it its standard deviation over split seeds, their number, and `more`."""
    under = ("" if math.isnan(spread) else f"± {percent(spread)}") + (
        f" (n = {seeds})" if seeds else ""
    )
    return Cell(percent(mean), mean, "; ".join(filter(None, [under.strip(), *more])), best)


def over_trainings(spread: float, trainings: int) -> str:
    """The standard deviation over trainings of one split; "" where each was trained once."""
    return "" if math.isnan(spread) else f"± {percent(spread)} over {trainings} trainings"


def accuracy_table(accuracies: pd.DataFrame) -> Table:
    """Train and test accuracy of each network, and the guarantee of those that have one."""
    private = bool(accuracies["epsilon"].notna().any())
    rows = []
    for row in accuracies.itertuples():
        train, test = (
            mean_cell(mean, sd, more=[over_trainings(within, row.trainings)])
            for mean, sd, within in (
                (row.train, row.train_sd, row.train_training_sd),
                (row.test, row.test_sd, row.test_training_sd),
            )
        )
        gap = Cell(percent(row.train - row.test), row.train - row.test)
        cells = [Cell(row.model, row.model), Cell(str(row.seeds), row.seeds), train, test, gap]
        rows.append(cells + (guarantee_cells(row) if private else []))
    caption = "Percent, mean ± standard deviation over split seeds; gap = train - test."
    if (accuracies["trainings"] > accuracies["seeds"]).any():
        caption += f"{_TRAININGS}."
    if private:
        caption += (
            ' ε and δ are those of private training; without "from scratch" they hold for the '
            "fine-tuning only, not for the network."
        )
    header = ["victim", "seeds", "train", "test", "gap", *["ε", "δ"] * private]
    return Table("Accuracy of the victims", caption, header, rows)


def guarantee_cells(row) -> list[Cell]:
    """Epsilon and delta of a row of `network_accuracies`; dashes where it has none."""
    if math.isnan(row.epsilon):
        return [Cell("-", None), Cell("-", None)]
    epsilon = rounded_up(row.epsilon, decimals=0 if row.epsilon > 100 else 2)
    return [Cell(epsilon, row.epsilon, row.caveat), Cell(f"{row.delta:g}", row.delta)]


def size_table(accuracies: pd.DataFrame) -> Table | None:
    """What each network takes; None where it was counted of none."""
    if accuracies["weights"].isna().all():
        return None
    rows = []
    for row in accuracies.itertuples():
        size = None
        if not math.isnan(row.weights):
            size = {name: getattr(row, name) for name in SIZES}
        cells = [Cell(text, _number(text)) for text in size_cells(size)]
        rows.append([Cell(row.model, row.model), *cells, Cell(percent(row.test), float(row.test))])
    caption = (
        "Weights are those of convolutions and linear layers; bits of all weights, with masks, scales "
        "and codebooks, by their number; kB of all parameters and of BatchNorm's statistics; "
        "multiply-adds, in thousands, of one record, and those whose weight is not zero, which is "
        "what a runtime that skips zeros would do. Means over seeds; accuracy in percent."
    )
    return Table("What the victims take", caption, ["victim", *SIZE_TITLES, "test"], rows)


def _number(text: str) -> float | None:
    return None if text == "-" else float(text.replace(",", ""))


def measure_table(summary: pd.DataFrame, measure: str, silent: pd.DataFrame | None = None) -> Table:
    """Rows are victims, columns attacks.

    Args:
        summary: of `summary.summarise`, of this measure alone.
        silent: rows whose scores were all equal, with columns victim, attack and verdict; a dash
            each.
    """
    columns, dashes = summary[["attack", "verdict"]], set()
    if silent is not None:
        silent = silent[silent["victim"].isin(summary["victim"])]
        columns = pd.concat([columns, silent[["attack", "verdict"]]])
        dashes = {*zip(silent["victim"], silent["attack"])}
    attacks = ordered_attacks(columns)
    rows = []
    for victim, group in summary.groupby("victim", sort=False):
        by_attack = {row.attack: row for row in group.itertuples()}
        most = int(group["seeds"].max())
        cells = [
            _measure_cell(by_attack[name], most)
            if name in by_attack
            else Cell("-" if (victim, name) in dashes else "", None)
            for name in attacks
        ]
        rows.append([Cell(victim, victim), Cell(str(most), most), *cells])
    caption = _measure_caption(summary, measure)
    caption += " A dash: all targets have the same score, which says nothing." if dashes else ""
    title = MEASURES[measure].title
    return Table(title, caption, ["victim", "seeds", *attacks], rows, title)


def _measure_cell(row, most: int) -> Cell:
    """The mean of a row of `summarise`, with its spreads, and of one split its interval.

    Args:
        most: how many seeds the table's row has.
    """
    interval = f"[{percent(row.low)}, {percent(row.high)}]" if row.seeds == 1 else ""
    return mean_cell(
        row.mean,
        row.sd,
        best=row.best,
        seeds=None if row.seeds == most else row.seeds,
        more=[interval, over_trainings(row.training_sd, row.trainings)],
    )


def _measure_caption(summary: pd.DataFrame, measure: str) -> str:
    words = (
        f"Percent ({100 * MEASURES[measure].chance:g} = guessing), mean ± standard deviation over "
        "split seeds, which deal the records and train anew; (n = …) where an attack has fewer "
        "seeds than the row."
    )
    several = (summary["trainings"] > summary["seeds"]).any()
    if (summary["seeds"] == 1).any():
        mean = " (the mean of its ends over the trainings)" if several else ""
        words += (
            f" In brackets, where there is one seed, the 95 % interval{mean}: it covers the choice "
            "of the target records, not the randomness of training."
        )
    if several:
        words += f"{_TRAININGS}, beside which no interval says how much another training changes."
    return words + (
        " In bold the strongest attack on each victim, on the seeds that all attacks on it share."
    )


def change_table(rows: pd.DataFrame, original_of: dict[str, str]) -> Table | None:
    """Of each attack its accuracy on a compressed victim - that on its original, paired over seeds.

    None where no attack was made on both.

    Args:
        rows: of `label_configurations`, of one section.
        original_of: {compressed network: its original}, of `findings.original_of`.
    """
    runs, names = attack_runs(rows), ordered_attacks(rows)
    cells: dict[str, dict[str, Cell]] = {}
    most: dict[str, int] = {}
    victims = rows.drop_duplicates("victim").set_index(["model", "shadow_num", "adaptive"])[
        "victim"
    ]
    for model, original in original_of.items():
        for attacker, change in same_attack_differences(runs[model], runs[original]).items():
            victim = victims[(model, attacker.shadow_num, attacker.adaptive)]
            ends = f"[{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
            under = ends if change.seeds > 1 else "(n = 1)"
            sure = change.is_above_zero or change.is_below_zero
            cell = Cell(f"{100 * change.mean:+.1f}", change.mean, under, best=sure)
            cells.setdefault(victim, {})[attacker.attack] = cell
            most[victim] = max(most.get(victim, 0), change.seeds)
    if not cells:
        return None
    attacks = [name for name in names if any(name in row for row in cells.values())]
    body = [
        [Cell(victim, victim), Cell(str(most[victim]), most[victim])]
        + [cells[victim].get(name, Cell("", None)) for name in attacks]
        for victim in victims
        if victim in cells
    ]
    caption = (
        "Percentage points: each attack against itself, its accuracy on the compressed victim "
        "minus that on the original, paired over the split seeds of both; in brackets the 95 % "
        "interval by Student's t over the seeds' differences ((n = 1): one seed, no interval). In "
        "bold where it does not hold 0; of so many intervals one in twenty misses by chance."
    )
    title = "Change of attack accuracy by compression"
    header = ["victim", "seeds", *attacks]
    return Table(title, caption, header, body, "Change from the original")
