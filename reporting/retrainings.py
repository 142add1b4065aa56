"""Which members attacks name again where a split was trained several times: table and figure."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd

from attackers.disparity import jaccard, jaccard_by_chance, shares_by_chance, shares_named
from attackers.metrics import named_records
from core.console import percent
from reporting import retraining_plot
from reporting.columns import MEASURES
from reporting.document import Cell, Picture, Table

MAX_ATTACKS = 8  # in the figure
_MEASURES = ("tpr_at_0.01", "tpr_at_0.1")  # the first that there are enough non-members for


@dataclass(frozen=True, eq=False)
class Retrained:
    """What an attack names in several trainings of one split.

    Attributes:
        victim, attack, verdict: as `label_configurations` has them.
        measure: the TPR of which the threshold is.
        split: what the attacks on this victim have in common: its seed and its targets.
        named: {train_seed: (m,) bool, which of the m members}, two trainings or more.
        alarms: likewise which of the non-members, which are named falsely.
    """

    victim: str
    attack: str
    verdict: str
    measure: str
    split: tuple
    named: dict[int, np.ndarray]
    alarms: dict[int, np.ndarray]

    @property
    def all_named(self) -> np.ndarray:
        """(trainings, m)."""
        return np.stack([*self.named.values()])

    @property
    def rate(self) -> float:
        return float(self.all_named.mean())

    @property
    def shares(self) -> np.ndarray:
        """(trainings,), see `shares_named`."""
        return shares_named(self.all_named)

    @property
    def chance_shares(self) -> np.ndarray:
        return shares_by_chance(self.all_named.mean(axis=1))

    def beside(self, other: Retrained) -> list[tuple[np.ndarray, np.ndarray]]:
        """What this attack names and what the other does, of each training that both attacked; of
        the attack itself each two trainings."""
        if other is self:
            return pairs_of(self.named)
        if (other.victim, other.split) != (self.victim, self.split):
            return []
        return [(named, other.named[at]) for at, named in self.named.items() if at in other.named]


def pairs_of(named: dict[int, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each two trainings."""
    return list(itertools.combinations(named.values(), 2))


def retrained_attacks(rows: pd.DataFrame) -> list[Retrained]:
    """The attacks of a section on splits that were trained more than once, of those whose scores
    can be read; [] where there are none.

    Args:
        rows: of `summary.label_configurations`.
    """
    for measure in _MEASURES:
        of_measure = rows[rows["measure"] == measure]
        trainings = of_measure.groupby(["victim", "attack", "seed"])["train_seed"]
        found = _by_split(of_measure[trainings.transform("nunique") > 1], measure)
        if found:
            return found
    return []


def _by_split(rows: pd.DataFrame, measure: str) -> list[Retrained]:
    """The attacks of these rows on two trainings or more with the same targets."""
    limit = float(measure.removeprefix("tpr_at_"))
    found: dict[tuple, Retrained] = {}
    for row in rows.itertuples():
        truth = row.victim_results.truth(row.line)
        if truth is None:
            continue
        split = (row.seed, row.line["targets"])
        named = named_records(truth["scores"], truth["member"], limit=limit)
        one = found.setdefault(
            (row.victim, row.attack, split),
            Retrained(row.victim, row.attack, row.verdict, measure, split, {}, {}),
        )
        one.named[row.train_seed] = named[truth["member"]]
        one.alarms[row.train_seed] = named[~truth["member"]]
    return [one for one in found.values() if len(one.named) > 1]


def mean_jaccard(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float, list[float]]:
    """The mean Jaccard index of pairs, what chance gives, and the index of each pair that names
    anybody; NaN where none does."""
    some = [(one, other) for one, other in pairs if one.any() or other.any()]
    if not some:
        return np.nan, np.nan, []
    each = [jaccard(one, other) for one, other in some]
    chance = [
        jaccard_by_chance(int(one.sum()), int(other.sum()), members=len(one)) for one, other in some
    ]
    return float(np.mean(each)), float(np.mean(chance)), each


def retraining_table(attacks: list[Retrained]) -> Table | None:
    """A row for each victim and attack; None of none."""
    if not attacks:
        return None
    by_row: dict[tuple[str, str], list[Retrained]] = {}
    for one in attacks:
        by_row.setdefault((one.victim, one.attack), []).append(one)
    rows = [
        [Cell(victim, victim), Cell(attack, attack), *_cells(splits, attacks)]
        for (victim, attack), splits in by_row.items()
    ]
    caption = (
        f"Which members an attack names at {_rate_words(attacks)}, in trainings of one split that "
        "differ in --train_seed alone: the share of all members (%) that one training names on "
        "average, that every training names (stability), and that any names (coverage; Wang et "
        "al., CCS 2025), which grows with the number of trainings. Jaccard: of the members that "
        "either of two names, the share that both name; of each two trainings, with the least and "
        "the largest; the same of the non-members that are named falsely: where they come again as "
        "often, it is records that are told again, members or not; and of this attack and each "
        "other one on the same training. Chance: as many named each time, drawn independently. Attacks whose scores are decisions name "
        "nobody at such a rate and are not here."
    )
    header = ["victim", "attack", "trainings", "named by one", "by every", "by any"]
    header += ["Jaccard, two trainings", "of false alarms", "Jaccard, other attacks"]
    return Table("Members named again in another training", caption, header, rows)


def _rate_words(attacks: list[Retrained]) -> str:
    return MEASURES[attacks[0].measure].title.removeprefix("TPR at ")


def _cells(splits: list[Retrained], attacks: list[Retrained]) -> list[Cell]:
    """The cells of an attack on a victim: means over the splits."""
    counts = sorted({len(one.named) for one in splits})
    number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    pairs = [pair for one in splits for pair in pairs_of(one.named)]
    alarms = [pair for one in splits for pair in pairs_of(one.alarms)]
    others = [
        pair
        for one in splits
        for other in attacks
        if other is not one
        for pair in one.beside(other)
    ]
    return [
        Cell(number, counts[0], f"{len(splits)} splits" if len(splits) > 1 else ""),
        Cell(*_share(np.mean([one.rate for one in splits]))),
        *(
            Cell(
                *_share(np.mean([one.shares[at] for one in splits])),
                f"chance {percent(float(np.mean([one.chance_shares[at] for one in splits])))}",
            )
            for at in (-1, 0)
        ),
        _jaccard_cell(pairs, spread=True),
        _jaccard_cell(alarms, spread=False),
        _jaccard_cell(others, spread=False),
    ]


def _share(share: np.floating) -> tuple[str, float]:
    return percent(float(share)), float(share)


def _jaccard_cell(pairs: list[tuple[np.ndarray, np.ndarray]], *, spread: bool) -> Cell:
    mean, chance, each = mean_jaccard(pairs)
    if not each:
        return Cell("-", None)
    under = f"chance {chance:.2f}"
    if spread:
        number = f"{len(each)} pair{'s' * (len(each) > 1)}"
        under += f"; {number}" + (f", {min(each):.2f} to {max(each):.2f}" if len(each) > 1 else "")
    return Cell(f"{mean:.2f}", mean, under)


def retraining_figure(attacks: list[Retrained], victims: list[str]) -> Picture | None:
    """The attacks that name most on the last of these victims that was trained again, or on the
    first that was; None of none.

    Args:
        victims: of `summary.headline_victims`.
    """
    if not attacks:
        return None
    again = list(dict.fromkeys(one.victim for one in attacks))
    victim = next((name for name in reversed(victims) if name in again), again[0])
    split = next(one.split for one in attacks if one.victim == victim)
    ranked = [one for one in attacks if (one.victim, one.split) == (victim, split)]
    shown, same = _distinct(sorted(ranked, key=lambda one: -one.rate))
    matrix = np.array([[mean_jaccard(one.beside(other))[0] for other in shown] for one in shown])
    curves = {
        one.attack: retraining_plot.NamedAgain(one.verdict, one.shares, one.chance_shares)
        for one in shown
    }
    members = len(next(iter(shown[0].named.values())))
    return Picture(
        "retrainings",
        "Members named again in another training",
        f"{victim}, seed {split[0]}: attacks that name most at {_rate_words(shown)}. Left: the "
        "share of the members that at least so many trainings name; from any, coverage, down to "
        "every, stability; faint: as many named each time, but drawn independently. "
        "Right: Jaccard index, of the members that either of two names the share that both name: "
        "of two attacks on the same training and, framed, of an attack on two trainings; means. "
        f"{same}{members} members, {max(len(one.named) for one in shown)} trainings.",
        retraining_plot.retrainings(curves, matrix),
    )


def _distinct(ranked: list[Retrained]) -> tuple[list[Retrained], str]:
    """The first attacks of which no two name the same in every training, and a sentence on who
    names the same as these."""
    shown: list[Retrained] = []
    alike: dict[str, list[str]] = {}
    for one in ranked:
        twin = next((other for other in shown if _names_the_same(one, other)), None)
        if twin:
            alike.setdefault(twin.attack, []).append(one.attack)
        elif len(shown) < MAX_ATTACKS:
            shown.append(one)
    words = "; ".join(f"{', '.join(names)} as {attack}" for attack, names in alike.items())
    return shown, f"Name the same in every training: {words}. " if words else ""


def _names_the_same(one: Retrained, other: Retrained) -> bool:
    return one.named.keys() == other.named.keys() and all(
        np.array_equal(named, other.named[at]) for at, named in one.named.items()
    )
