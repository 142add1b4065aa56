"""Two networks compared over the split seeds that both have: by an attack, or by accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from reporting.columns import REPEATED

CONFIDENCE = 0.95


class Attacker(NamedTuple):
    """An attack as it is printed, its shadow models' number, and whether it knows the defence."""

    attack: str
    shadow_num: int
    adaptive: bool

    @classmethod
    def from_key(cls, key: tuple) -> Attacker:
        """Who a row of `attack_runs` is about; plain Python values, in place of numpy's."""
        attack, shadow_num, adaptive = key
        return cls(str(attack), int(shadow_num), bool(adaptive))

    @property
    def unaware(self) -> Attacker:
        """The same attacker without knowledge of a defence."""
        return self._replace(adaptive=False)


@dataclass(frozen=True)
class Difference:
    """A mean difference over split seeds, a fraction, and its interval; NaN ends of one seed."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def is_above_zero(self) -> bool:
        """Whether the whole interval is above 0; never of one seed."""
        return self.low > 0

    @property
    def is_below_zero(self) -> bool:
        """Whether the whole interval is below 0; never of one seed."""
        return self.high < 0

    @property
    def holds_zero(self) -> bool:
        """Whether 0 is in the interval; never of one seed."""
        return self.low <= 0 <= self.high


def student_interval(values: np.ndarray) -> tuple[float, float]:
    """Ends of the 95 % interval of a mean by Student's t, n - 1 degrees of freedom.

    NaN of fewer than two values, which say nothing of their spread.
    """
    from scipy.stats import t

    if len(values) < 2:
        return math.nan, math.nan
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * error)
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def paired_difference(after: pd.Series, before: pd.Series) -> Difference | None:
    """`after` - `before`, paired over what both have; None where they share no seed.

    Args:
        after, before: values by (seed, train_seed). Trainings of a split count as one, their mean.
    """
    both = (after - before).dropna()
    seeds = both.groupby(level="seed").mean().to_numpy()
    if not len(seeds):
        return None
    return Difference(float(seeds.mean()), *student_interval(seeds), len(seeds))


def attack_runs(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """{model: attack accuracies}, a row an `Attacker`, a column a (seed, train_seed).

    Of attackers who hold one release alone: what holding more gives is another question than what
    compression changed. Nor of those measured on a sample of the targets where others were on more
    of them: by chance alone, the strongest would often be among them.

    Args:
        rows: of `label_configurations`, of one section. Attacks that are missing somewhere are NaN.
    """
    accuracy = rows[(rows["measure"] == "accuracy") & (rows["also"] == "")]
    targets = accuracy["members"] + accuracy["non_members"]
    most = targets.groupby([accuracy[key] for key in ("model", *REPEATED)]).transform("max")
    accuracy = accuracy[targets == most]
    return {
        model: group.pivot(
            index=["attack", "shadow_num", "adaptive"], columns=REPEATED, values="value"
        ).loc[list(dict.fromkeys(map(tuple, group[[*Attacker._fields]].to_numpy().tolist())))]
        for model, group in accuracy.groupby("model", sort=False)
    }


def attackers_of(runs: pd.DataFrame) -> list[Attacker]:
    """Who attacked a model, as the rows of `attack_runs` say."""
    return [Attacker.from_key(key) for key in runs.index]


def strongest(runs: pd.DataFrame) -> Attacker:
    """The attacker with the largest mean accuracy, compared over seeds that both have.

    First among those that attacked with the most split seeds, over the seeds that these share (over
    all that there are where they share none). One with fewer seeds takes its place where it is more
    accurate over the seeds of both, of several the one that is so by most. Of equal ones the first.
    """
    seeds = runs.notna().T.groupby(level="seed").any().sum()
    most = runs[seeds == seeds.max()]
    shared = most.dropna(axis="columns")
    means = (shared if shared.shape[1] else most).T.groupby(level="seed").mean().mean()
    first = Attacker.from_key(means.idxmax())
    ahead: dict[Attacker, float] = {}
    for attacker in attackers_of(runs[seeds < seeds.max()]):
        difference = paired_difference(runs.loc[attacker], runs.loc[first])
        if difference is not None and difference.mean > 0:
            ahead[attacker] = difference.mean
    return max(ahead, key=lambda attacker: ahead[attacker]) if ahead else first


@dataclass(frozen=True)
class AttackChange:
    """How attacks on a network differ from those on another one, the reference.

    Attributes:
        same: of the network's strongest attacker, against itself; None where it did not attack
            both.
        best: of the strongest on this one against the strongest on the reference, each among those
            that attacked both; None where none did, or where they share no seed.
        best_after, best_before: these two.
    """

    same: Difference | None
    best: Difference | None = None
    best_after: Attacker | None = None
    best_before: Attacker | None = None


def attack_change(runs: pd.DataFrame, reference: pd.DataFrame) -> AttackChange:
    """Compare attacks on a network with those on an undefended reference, accuracies by `attack_runs`.

    An attacker who knows the network's defence is compared with itself on the reference, which has
    none to be known.
    """
    both = [each for each in attackers_of(runs) if each.unaware in attackers_of(reference)]
    if not both:
        return AttackChange(None)
    overall = strongest(runs)
    same = None
    if overall in both:
        same = paired_difference(runs.loc[overall], reference.loc[overall.unaware])
    after = strongest(runs.loc[both])
    before = strongest(reference.loc[list(dict.fromkeys(each.unaware for each in both))])
    best = paired_difference(runs.loc[after], reference.loc[before])
    return AttackChange(same, best, after, before)


def same_attack_differences(
    runs: pd.DataFrame, reference: pd.DataFrame
) -> dict[Attacker, Difference]:
    """Of each attacker of both networks its accuracy on this one - that on the reference."""
    differences: dict[Attacker, Difference] = {}
    for attacker in attackers_of(runs):
        if attacker.unaware in attackers_of(reference):
            difference = paired_difference(runs.loc[attacker], reference.loc[attacker.unaware])
            differences |= {attacker: difference} if difference else {}
    return differences


@dataclass(frozen=True)
class DefenceCost:
    """What a defence takes from the strongest attack and from the test accuracy, fractions.

    Attributes:
        defended, undefended: names of the two networks.
        taken: attack accuracy, undefended - defended, each by its strongest attack of those on
            both.
        lost: test accuracy, undefended - defended.
        adaptive: whether an attacker who knows the defence attacked the defended one.
    """

    defended: str
    undefended: str
    taken: Difference
    lost: Difference
    adaptive: bool

    @property
    def price(self) -> float:
        """Test accuracy lost for each unit of attack accuracy taken; 0 where none is lost."""
        return max(0.0, self.lost.mean) / self.taken.mean if self.taken.mean > 0 else math.inf


def cheapest(costs: list[DefenceCost]) -> DefenceCost | None:
    """Of the defences that take something beyond their interval the one of the lowest price.

    None where none does. Of the same price that which takes more.
    """
    effective = [cost for cost in costs if cost.taken.is_above_zero]
    return min(effective, key=lambda cost: (cost.price, -cost.taken.mean), default=None)
