"""Which signals of the victims figures show, of members and of non-members, and the captions."""

from __future__ import annotations

import numpy as np
import pandas as pd

from attackers import Signals
from reporting import signal_plots
from reporting.columns import REPEATED
from reporting.document import Picture
from reporting.signal_plots import SIGNAL_LABELS, TrueClassSignals, class_means

MIN_PER_CLASS = 5  # fewer members or non-members of a class are no mean to look at
_FILES = {"confidence": "logits", "sensitivity": "sensitivity"}
_WORDS = {
    "confidence": "the posterior of the true class",
    "sensitivity": "the sensitivity of the true class's posterior to small noise on the record",
}
_LEFT_END = {"sensitivity": " (values of 0 at the left end)"}
_REMEDIES = {
    "confidence": "any attack again with mia.py --fresh",
    "sensitivity": "samia, which asks for them, with mia.py --attacks samia",
}


def signal_figures(rows: pd.DataFrame, victims: list[str]) -> list[Picture | str]:
    """Histograms of what the victims answer, and its means by class."""
    signals = {
        kind: {
            victim: true_class_signals(rows[rows["victim"] == victim], file) for victim in victims
        }
        for kind, file in _FILES.items()
    }
    # a signal is shown where all victims have kept it
    shown: dict[str, dict[str, TrueClassSignals]] = {}
    parts: list[Picture | str] = []
    for kind in SIGNAL_LABELS:
        of_victims = {victim: one for victim, one in signals[kind].items() if one is not None}
        if len(of_victims) == len(victims):
            shown[kind] = of_victims
        else:
            parts.append(
                f"Members and non-members by {kind}: not every victim shown has kept its answers "
                f"with the numbers of the records asked; to have them, run {_REMEDIES[kind]}."
            )
    if shown:
        parts.insert(0, _histograms_figure(shown, victims))
    return parts + [_class_figure(kind, of_victims) for kind, of_victims in shown.items()]


def _histograms_figure(
    shown: dict[str, dict[str, TrueClassSignals]], victims: list[str]
) -> Picture:
    words = ", and to its right ".join(_WORDS[kind] + _LEFT_END.get(kind, "") for kind in shown)
    counts = " ".join(f"{kind.capitalize()}: {_counts(shown[kind])}." for kind in shown)
    return Picture(
        "histograms",
        "What the victim answers for members and for non-members",
        f"{words.capitalize()}: the share of all members and of all non-members in each of 40 "
        f"bins, on a logarithmic axis; vertical lines are means. {counts}",
        signal_plots.histograms(
            {victim: {kind: shown[kind][victim] for kind in shown} for victim in victims}
        ),
    )


def _class_figure(kind: str, of_victims: dict[str, TrueClassSignals]) -> Picture | str:
    means = {victim: class_means(one, least=MIN_PER_CLASS) for victim, one in of_victims.items()}
    if min(map(len, means.values())) == 0:
        return (
            f"{kind.capitalize()} by class: no class has {MIN_PER_CLASS} members and "
            f"{MIN_PER_CLASS} non-members."
        )
    return Picture(
        f"classes_{kind}",
        f"{kind.capitalize()} by class",
        f"Means of members and of non-members of each class of {_WORDS[kind]}, and the gap "
        f"between them, by which the classes are sorted ({list(of_victims)[-1]}). Classes with "
        f"fewer than {MIN_PER_CLASS} of either are left out. {_counts(of_victims)}.",
        signal_plots.by_class(means, kind),
    )


def _counts(of_victims: dict[str, TrueClassSignals]) -> str:
    """How many records and seeds stand behind signals, once where it is the same for all victims."""
    words = {
        victim: f"{int(one.member.sum())} members and {int((~one.member).sum())} non-members, "
        f"{one.seeds} victim{'s together' if one.seeds > 1 else ''}"
        for victim, one in of_victims.items()
    }
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return "; ".join(f"{victim}: {text}" for victim, text in words.items())


def true_class_signals(rows: pd.DataFrame, file: str) -> TrueClassSignals | None:
    """A victim's answers for the true class of its targets, of those seeds that have kept them.

    None where none has.

    Args:
        rows: those of the victim.
        file: logits or sensitivity, the name of the file of answers.
    """
    parts = []
    for row in rows.drop_duplicates(REPEATED).itertuples():
        stored, truth = row.victim_results.outputs(file), row.victim_results.truth(row.line)
        if stored is None or truth is None or not np.isin(truth["records"], stored[0]).all():
            continue
        records, answers = stored
        order = np.argsort(records)
        targets = answers[order[np.searchsorted(records, truth["records"], sorter=order)]]
        values = targets if file == "sensitivity" else Signals(targets).posteriors()[0]
        true_class = values[np.arange(len(targets)), truth["labels"]]
        parts.append((true_class, truth["labels"], truth["member"]))
    if not parts:
        return None
    value, labels, member = (np.concatenate(part) for part in zip(*parts))
    return TrueClassSignals(value, labels, member, len(parts))
