"""What attacks found, as a table: a row for each configuration, seed, attack and measure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from core import console
from bench.layout import ATTACKS
from bench.options import OPTIONS
from reporting.columns import MEASURES, RECORDED, SIZES

if TYPE_CHECKING:  # pandas is imported where it is used, so that --help answers at once
    import pandas as pd

    from bench.results import VictimResults

_INTERNAL = ["victim_results", "line", "delta_option"]


def load_results(results: str | Path) -> pd.DataFrame:
    """All that attacks found below a folder: a row for each configuration, seed, attack, measure.

    Columns: `folder` of the victim below `results`; every recorded option; `device`; `attack`,
    `measure`, its `value` and the 95 % interval `low`, `high`, which covers the choice of the
    target records alone; numbers of `members` and `non_members`; the victim's `train_accuracy` and
    `test_accuracy`, and what it takes (see `quantizer.compression_size`; NaN of models from before
    that was counted); `epsilon` and `delta` of its training (NaN where not private), and `caveat`,
    what must stand beside them ("" where nothing must). All are fractions. An original has no
    pruner, sparsity or defence. Results on models that have been made anew since, and files that
    cannot be read, are skipped and named in a line each.

    Raises UserError where there is no such folder.
    """
    from bench.results import find_results

    notes: list[str] = []
    victims = find_results(Path(results), unreadable=notes)
    table = results_table(victims, Path(results))
    for note in [*notes, *skipped(victims, Path(results))]:
        console.say(f"left out: {note}")
    return table[table["value"].notna()].reset_index(drop=True).drop(columns=_INTERNAL)


def results_table(victims: list[VictimResults], results: Path) -> pd.DataFrame:
    """The table of `load_results`, where all scores are equal with NaN for accuracy and AUC.

    Three more columns say where a row is from: `victim_results`, `line` (of attacks.jsonl), and
    `delta_option`, the option, where `delta` is that of the guarantee.
    """
    import pandas as pd

    rows = []
    for victim_results in victims:
        for line in victim_results.lines:
            try:
                rows += _rows_of_line(victim_results, line, results)
            except (KeyError, TypeError, ValueError):
                path = victim_results.folder / ATTACKS
                victim_results.add_problem(f"{path}: results of another version")
    recorded = [name for name in RECORDED if name != "delta"]
    verdict = ["device", "attack", "measure", "value", "low", "high", "members", "non_members"]
    network = ["train_accuracy", "test_accuracy", *SIZES, "epsilon", "delta", "caveat"]
    table = pd.DataFrame(rows, columns=["folder", *recorded, *verdict, *network, *_INTERNAL])
    numbers = [
        "prune_sparsity",
        "prune_iterations",
        "rewind",
        "defend_arg",
        "shadow_sparsity",
        "attacker_records",
        "epsilon",
        "delta",
        "value",
        "low",
        "high",
        *SIZES,
    ]
    epochs = ["prune_epochs", "quantize_epochs"]
    return table.astype(dict.fromkeys(numbers, float) | dict.fromkeys(epochs, "Int64"))


def _rows_of_line(victim_results: VictimResults, line: dict, results: Path) -> list[dict]:
    """The rows of a line of attacks.jsonl, one a measure.

    Raises KeyError, TypeError or ValueError where the line has another shape.
    """
    from defenders.accounting import caveat

    privacy = victim_results.manifest.get("privacy") or {}
    shared: dict[str, object] = {"folder": folder_name(victim_results, results)}
    shared |= {name: line.get(name, OPTIONS[name].when_missing) for name in RECORDED}
    if line["original"] or not line["pruner_name"]:  # also by lines from before there were rounds
        shared |= {"prune_iterations": None, "rewind": None}
    # lines from before there was secret noise don't say that theirs was not
    shared["dp_noise"] = ("seeded" if caveat(privacy) else "secret") if privacy else None
    # with which the model was made, whatever mia.py was told
    made = victim_results.manifest.get("options") or {}
    shared |= {name: made.get(name, shared[name]) for name in RECORDED if name.startswith("canar")}
    shared |= {"device": line.get("device"), "attack": line["attack"]}
    shared |= {name: ",".join(line.get(name) or ()) for name in ("also", "ensemble_of")}
    counts = ("members", "non_members", "train_accuracy", "test_accuracy")
    shared |= {name: line[name] for name in counts}
    size = victim_results.manifest.get("size") or {}
    shared |= {name: size.get(name) for name in SIZES}
    shared |= {"epsilon": privacy.get("epsilon"), "delta": privacy.get("delta")}
    shared |= {"caveat": caveat(privacy), "victim_results": victim_results, "line": line}
    shared["delta_option"] = line.get("delta")
    rows = []
    for measure in MEASURES:
        # None where all scores are equal, or where there are too few non-members for such a rate
        if line[measure] is None and measure not in ("accuracy", "auc"):
            continue
        ends = line[f"{measure}_interval"] or (None, None)
        value, low, high = (
            math.nan if number is None else float(number) for number in (line[measure], *ends)
        )
        rows.append(shared | {"measure": measure, "value": value, "low": low, "high": high})
    return rows


def folder_name(victim_results: VictimResults, results: Path) -> str:
    """A victim's folder below `results`; its own name where it is that folder."""
    below = victim_results.folder.relative_to(results)
    return str(below) if below.parts else victim_results.folder.absolute().name


def where_results_are(folder: Path) -> str:
    """What to do about a folder without results."""
    from bench.layout import results_around

    around = results_around(folder)
    return f"name the folder that it is part of, {around}" if around else "run mia.py first"


def problems_of(victims: list[VictimResults]) -> list[str]:
    """What of the files that were read so far was left out."""
    return [problem for victim_results in victims for problem in victim_results.problems]


def skipped(victims: list[VictimResults], results: Path) -> list[str]:
    """What lies there and is in no table, and why."""

    def counted(number: int, victim_results: VictimResults) -> str:
        return f"{number} result{'s' * (number > 1)} in {folder_name(victim_results, results)}"

    stale = [
        f"{counted(each.stale, each)}, of models that are gone or have been made anew since, or by "
        "an older definition of the attack"
        for each in victims
        if each.stale
    ]
    stale += [
        f"{counted(each.unmeasured, each)}, with intervals by an older method and without the "
        "scores to measure them again"
        for each in victims
        if each.unmeasured
    ]
    unfinished = [
        folder_name(each, results) for each in victims if not each.manifest and not each.problems
    ]
    silent = [
        folder_name(each, results)
        for each in victims
        if each.manifest and not (each.lines or each.stale or each.unmeasured or each.problems)
    ]
    return [
        *problems_of(victims),
        *stale,
        *([f"not finished: {', '.join(unfinished)}"] if unfinished else []),
        *([f"not attacked: {', '.join(silent)}"] if silent else []),
    ]
