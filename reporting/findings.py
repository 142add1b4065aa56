"""What stands behind a section's answer: the strongest attack on each network, and what changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bench.layout import PRUNED_AFTER
from reporting.columns import REPEATED
from reporting.comparison import (
    AttackChange,
    Attacker,
    DefenceCost,
    Difference,
    attack_change,
    attack_runs,
    attackers_of,
    paired_difference,
    same_attack_differences,
    strongest,
)

EQUAL = 0.01  # test accuracies that differ by no more on average, and in no split by twice that
UNCOMPRESSED = 32  # bits a weight


@dataclass(frozen=True, eq=False)
class Finding:
    """What was found of one network.

    Attributes:
        network: its row of `summary.network_accuracies`.
        attacker: the strongest.
        accuracy, tpr: the rows of `summary.summarise` of that attacker, accuracy and TPR at an FPR
            of 1 %; None where there are too few non-members for that rate.
        original: the name of the original it was made from; None where that was not attacked.
        change: from that original.
        gains: by (seed, train_seed), test accuracy of this network - that of the original.
        changes: likewise, the accuracy of the strongest attack on this network - that of the
            strongest on the original.
        same: of each attacker of both its accuracy on this network - that on the original.
        cost: of its defence; None where it has none, or where no undefended network is like it.
    """

    network: Any
    attacker: Attacker
    accuracy: Any
    tpr: Any | None
    original: str | None = None
    change: AttackChange | None = None
    gains: pd.Series | None = None
    changes: pd.Series | None = None
    same: dict[Attacker, Difference] = field(default_factory=dict)
    cost: DefenceCost | None = None

    @property
    def is_plain(self) -> bool:
        """Whether this is a compressed network without a defence."""
        return not self.network.original and not self.network.defend

    @property
    def gained(self) -> Difference | None:
        """The mean of `gains`; None where there are none."""
        return None if self.gains is None else paired_difference(self.gains, 0 * self.gains)

    @property
    def is_as_accurate(self) -> bool:
        """Whether its test accuracy is that of its original, see `EQUAL`."""
        if self.gained is None or self.gains is None:
            return False
        splits = self.gains.dropna().groupby(level="seed").mean().abs()
        return abs(self.gained.mean) <= EQUAL and bool((splits <= 2 * EQUAL).all())


def findings(rows: pd.DataFrame, summary: pd.DataFrame, accuracies: pd.DataFrame) -> list[Finding]:
    """One for each network of a section that has an attack accuracy, in the order of `accuracies`.

    Args:
        rows: of `summary.label_configurations`.
        summary: of `summary.summarise`.
        accuracies: of `summary.network_accuracies`.
    """
    runs, tests = attack_runs(rows), test_accuracies(rows)
    network_findings = []
    for network in accuracies.itertuples():
        if network.model not in runs:
            continue
        attacker = strongest(runs[network.model])
        original = undefended = None
        if not network.original:
            original = reference_of(network, accuracies[accuracies["original"]], runs)
        if network.defend:
            undefended = reference_of(network, plain_like(network, accuracies), runs)
        change = attack_change(runs[network.model], runs[original]) if original else None
        network_findings.append(
            Finding(
                network,
                attacker,
                _summary_row(summary, network.model, attacker, "accuracy"),
                _summary_row(summary, network.model, attacker, "tpr_at_0.01"),
                original,
                change,
                tests[network.model] - tests[original] if original else None,
                _changes(change, runs[network.model], runs[original]) if original else None,
                same_attack_differences(runs[network.model], runs[original]) if original else {},
                _defence_cost(network.model, undefended, runs, tests) if undefended else None,
            )
        )
    return network_findings


def original_of(rows: pd.DataFrame, accuracies: pd.DataFrame) -> dict[str, str]:
    """{compressed network: the original that it is compared with}, of those that have one."""
    runs = attack_runs(rows)
    originals = accuracies[accuracies["original"]]
    pairs = {
        network.model: reference_of(network, originals, runs)
        for network in accuracies[~accuracies["original"]].itertuples()
        if network.model in runs
    }
    return {model: original for model, original in pairs.items() if original}


def _changes(
    change: AttackChange | None, runs: pd.DataFrame, original: pd.DataFrame
) -> pd.Series | None:
    """`changes` of a `Finding`."""
    if change is None or change.best_after is None or change.best_before is None:
        return None
    return runs.loc[change.best_after] - original.loc[change.best_before]


def at_equal_accuracy(findings: list[Finding]) -> list[Finding]:
    """The networks without a defence that are compressed at all and as accurate as their original;
    those that share most seeds, as others could not be paired with them."""
    equal = {
        each: each.changes.dropna().index
        for each in findings
        if each.is_plain
        and each.is_as_accurate
        and each.changes is not None
        and not each.network.bits_per_weight >= UNCOMPRESSED
    }
    most = max(equal.values(), key=len, default=None)
    return [each for each, runs in equal.items() if runs.equals(most)]


def mean_change(findings: list[Finding]) -> Difference | None:
    """The mean of `changes` over networks, paired by seed; None of no network."""
    changes = [each.changes for each in findings if each.changes is not None]
    if not changes:
        return None
    mean = pd.concat(changes, axis=1).dropna().mean(axis=1)
    return paired_difference(mean, 0 * mean)


def test_accuracies(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """{model: its test accuracy by (seed, train_seed)}."""
    once = rows.drop_duplicates(["model", *REPEATED]).set_index(REPEATED)
    return {model: group["test_accuracy"] for model, group in once.groupby("model")}


def plain_like(network, accuracies: pd.DataFrame, **other) -> pd.DataFrame:
    """The networks without a defence that are compressed as this one is but for some options."""
    alike = ~accuracies["original"] & (accuracies["defend"] == "")
    for name in (*PRUNED_AFTER, "quantizer"):
        value = other.get(name, getattr(network, name))
        alike &= accuracies[name].isna() if pd.isna(value) else accuracies[name] == value
    return accuracies[alike]


def reference_of(network, candidates: pd.DataFrame, runs: dict[str, pd.DataFrame]) -> str | None:
    """The one candidate that was trained by the network's recipe; None where there is no such
    one."""
    alike = candidates[
        (candidates["recipe"] == network.recipe) & candidates["model"].isin(list(runs))
    ]
    for name in ("trained_with", "prune_epochs", "quantize_epochs"):
        if len(alike) > 1:
            same = (alike[name] == getattr(network, name)).fillna(False)
            alike = alike[same.astype(bool)] if same.any() else alike
    return alike["model"].iloc[0] if len(alike) == 1 else None


def _summary_row(summary: pd.DataFrame, model: str, attacker: Attacker, measure: str):
    mine = summary[
        (summary["model"] == model)
        & (summary["measure"] == measure)
        & (summary["attack"] == attacker.attack)
        & (summary["shadow_num"] == attacker.shadow_num)
        & (summary["adaptive"] == attacker.adaptive)
    ]
    return next(mine.itertuples(), None)


def _defence_cost(
    defended: str, undefended: str, runs: dict[str, pd.DataFrame], tests: dict[str, pd.Series]
) -> DefenceCost | None:
    change = attack_change(runs[defended], runs[undefended]).best
    lost = paired_difference(tests[undefended], tests[defended])
    if change is None or lost is None:
        return None
    taken = type(change)(-change.mean, -change.high, -change.low, change.seeds)
    adaptive = any(each.adaptive for each in attackers_of(runs[defended]))
    return DefenceCost(defended, undefended, taken, lost, adaptive)
