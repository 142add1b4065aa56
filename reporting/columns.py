"""Columns of a table of results, and the order and titles of attacks and measures."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from attackers import registered_position
from bench.guesses import KNOWLEDGE
from bench.layout import NAMED_AFTER
from bench.options import OPTIONS
from defenders import DEFENDERS
from quantizer.compression_size import CompressionSize

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Measure:
    """How a measure is headed, and its value where an attacker guesses, a fraction."""

    title: str
    chance: float


MEASURES = {
    "accuracy": Measure("Attack accuracy", 0.5),
    "auc": Measure("AUC", 0.5),
    "tpr_at_0.1": Measure("TPR at FPR 10 %", 0.1),
    "tpr_at_0.01": Measure("TPR at FPR 1 %", 0.01),
    "tpr_at_0.001": Measure("TPR at FPR 0.1 %", 0.001),
}
SECTION = ["dataset_name", "model_name", "split"]
# `pruned` says no more than that there are a pruner and a quantiser
VICTIM = [*(name for name in NAMED_AFTER if name != "pruned"), "adaptive", "original"]
REPEATED = ["seed", "train_seed"]
# `knowledge`: what an attacker has wrong or lacks, in words; see `summary.best_informed`
ATTACKER = [*KNOWLEDGE, "knowledge"]
# what is written about a configuration, see `summary.label_configurations`
LABELS = ["model", "series", "model_series", "noise_series", "trained_with", "recipe", "verdict"]
DEFENCE_OPTIONS = [
    name for defence in DEFENDERS for name in DEFENDERS[defence].options.get("option_names", ())
]
SIZES = [one.name for one in fields(CompressionSize)]
RECORDED = [name for name, option in OPTIONS.items() if option.result]


def ordered_attacks(rows: pd.DataFrame) -> dict[str, str]:
    """{attack as it is printed: its registered verdict}, as they are registered.

    Not by their means: these would be over other victims and seeds for each.
    """
    pairs = rows[["attack", "verdict"]].drop_duplicates().itertuples(index=False, name=None)
    return dict(sorted(pairs, key=lambda pair: (registered_position(pair[1]), pair[0])))
