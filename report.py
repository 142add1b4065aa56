"""What attacks have found, to read and to look at: one page, the same as CSV and Markdown.

    python report.py results/
    python report.py results/ --study config/studies/location.json

Writes report.html (one file, images inside), report.csv, report.md and report_figures/ into the results folder, of a
study into its folder there. As a table in Python: `report.load_results("results/")`.
"""

from __future__ import annotations

from core import console  # first, see core.interrupts

# isort: split

import math
import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from attackers import ATTACKS, VERDICTS
from bench.command_line import Parser
from bench.options import OPTIONS
from core.console import UserError, percent
from core.inputs import path_argument, read_object
from reporting.page import Cell, Section, Table, as_html, as_markdown

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from bench.results import VictimResults
    from reporting.figures import Answers, Picture

TITLES = {
    "accuracy": "Attack accuracy",
    "auc": "AUC",
    "tpr_at_0.1": "TPR at FPR 10 %",
    "tpr_at_0.01": "TPR at FPR 1 %",
    "tpr_at_0.001": "TPR at FPR 0.1 %",
}
SECTION = ["dataset_name", "model_name", "split"]
VICTIM = [
    "pruner_name",
    "prune_sparsity",
    "defend",
    "defend_arg",
    "from_scratch",
    "adaptive",
    "original",
]
REPEATED = ["seed", "train_seed"]
OWN = [name for attack in ATTACKS for name in ATTACKS[attack].options.get("option_names", ())]
RECORDED = [name for name, option in OPTIONS.items() if option.result]
SHOWN = 0.7  # figures of a single pruned victim take the one nearest to this sparsity
CURVES = 8  # attacks in a ROC figure
FEW = 5  # fewer members or non-members of a class are no mean to look at


@console.stage
def main(argv=None):
    parser = Parser(prog="report.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("results", type=path_argument, help="folder of results, at any depth")
    parser.add_argument(
        "--study",
        metavar="FILE",
        type=path_argument,
        help="only what this study (see study.py) has made",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=path_argument,
        help="folder of what is written (default: that of the results)",
    )
    given = parser.parse_args(argv)
    results, title, about = Path(given.results), "Membership inference", ""
    if given.study is not None:
        about = read_about(Path(given.study))
        results, title = results / Path(given.study).stem, f"{title}: {Path(given.study).stem}"

    from bench.results import find_results as attacked
    from core.files import write

    notes: list[str] = []
    found = attacked(results, unreadable=notes)
    table = frame(found, results)
    notes += left_out(found, results)
    if table["value"].isna().all():
        what = (
            f"{results}: all targets have the same score in every attack there, which says nothing"
            if len(table)
            else f"{results} holds no results of attacks: {where_results_are(results)}"
        )
        raise UserError(what + "".join(f"; {note}" for note in notes))
    words = ["python", "report.py", *(sys.argv[1:] if argv is None else argv)]
    table, doubles = described(table)
    notes += doubles
    silent, table = (
        table[table["value"].isna()],
        table[table["value"].notna()].reset_index(drop=True),
    )
    summary, accuracies = summarised(table), victims(table)
    sections = [section(*of, silent) for of in sections_of(table, summary, accuracies)]
    notes = list(dict.fromkeys([*notes, *problems_of(found)]))  # figures read more files
    for note in notes:
        console.say(f"left out: {note}")

    out = Path(given.out) if given.out is not None else results
    page = {
        "title": title,
        "about": about,
        "command": shlex.join(map(str, words)),
        "facts": facts(table),
        "notes": notes,
        "sections": sections,
    }
    pictures = [
        (f"{number}_{picture.name}.png", picture)
        for number, one in enumerate(sections, 1)
        for picture in one.pictures
    ]
    for name, picture in pictures:
        write(out / "report_figures" / name, picture.png)
    write(out / "report.csv", as_csv(summary, accuracies).encode())
    write(out / "report.md", as_markdown(**page).encode())
    write(out / "report.html", as_html(**page).encode())
    console.say(
        f"saved {out / 'report.html'}, report.csv, report.md and {len(pictures)} figures: "
        f"{facts(table)}"
    )


def read_about(path: Path) -> str:
    """What a study says it is about."""
    study = read_object(path, "study")
    if not isinstance(study.get("about", ""), str):
        raise UserError(f"study {path}: about must be a text")
    return study.get("about", "")


# ---- reading


def load_results(results: str | Path) -> pd.DataFrame:
    """All that attacks have found below a folder: a row for each (configuration, seed, attack, measure).

    Columns: `folder` of the victim below `results`; every recorded option; `device`; `attack`, `measure`, its `value`
    and the 95 % interval `low`, `high`, which covers the choice of the target records alone; numbers of `members` and
    `non_members`; the victim's `train_accuracy` and `test_accuracy`; `epsilon` and `delta` of its training (NaN where
    not private), and `caveat`, what must stand beside them ("" where nothing must). All but percentages: fractions. An
    original has no pruner, sparsity or defence. Lines on models that have been made anew since are left out, and said.

    So are files that cannot be read.

    Raises UserError where there is no such folder.
    """
    from bench.results import find_results as attacked

    notes: list[str] = []
    found = attacked(Path(results), unreadable=notes)
    table = frame(found, Path(results))
    for note in [*notes, *left_out(found, Path(results))]:
        console.say(f"left out: {note}")
    return (
        table[table["value"].notna()]
        .reset_index(drop=True)
        .drop(columns=["place", "line", "asked_delta"])
    )


def frame(found: list[VictimResults], results: Path) -> pd.DataFrame:
    """The table of `load_results`, and of each row its `place` (an `VictimResults`), `line`, and `asked_delta`, the option
    (`delta` is that of the guarantee). Where an attack's scores are all equal, accuracy and AUC are NaN."""
    import pandas as pd

    rows = []
    for place in found:
        for line in place.lines:
            try:
                rows += rows_of(place, line, results)
            except (KeyError, TypeError, ValueError):
                place.add_problem(f"{place.folder / 'attacks.jsonl'}: results of another version")
    head = [
        "folder",
        *(name for name in RECORDED if name != "delta"),
        "device",
        "attack",
        "measure",
        "value",
        "low",
        "high",
        "members",
        "non_members",
        "train_accuracy",
        "test_accuracy",
        "epsilon",
        "delta",
        "caveat",
        "place",
        "line",
        "asked_delta",
    ]
    table = pd.DataFrame(rows, columns=head)
    numbers = ["prune_sparsity", "defend_arg", "epsilon", "delta", "value", "low", "high"]
    return table.astype(dict.fromkeys(numbers, float))


def rows_of(place: VictimResults, line: dict, results: Path) -> list[dict]:
    """The rows of a line of attacks.jsonl: one a measure. Raises KeyError, TypeError or ValueError where the line has
    another shape."""
    from defenders.accounting import caveat

    privacy = place.manifest.get("privacy") or {}
    of_line = {"folder": folder_name(place, results)}
    of_line |= {name: line.get(name, OPTIONS[name].when_missing) for name in RECORDED}
    # lines from before there was secret noise don't say that theirs was not
    of_line["dp_noise"] = ("seeded" if caveat(privacy) else "secret") if privacy else None
    after = {
        name: line[name] for name in ("members", "non_members", "train_accuracy", "test_accuracy")
    }
    after |= {
        "epsilon": privacy.get("epsilon"),
        "delta": privacy.get("delta"),
        "caveat": caveat(privacy),
        "place": place,
        "line": line,
        "asked_delta": line.get("delta"),
    }
    rows = []
    for measure in TITLES:
        if line[measure] is not None or measure in (
            "accuracy",
            "auc",
        ):  # None where all scores are equal
            value, low, high = (
                math.nan if number is None else float(number)
                for number in (line[measure], *(line[f"{measure}_interval"] or (None, None)))
            )
            rows.append(
                of_line
                | {
                    "device": line.get("device"),
                    "attack": line["attack"],
                    "measure": measure,
                    "value": value,
                    "low": low,
                    "high": high,
                }
                | after
            )
    return rows


def folder_name(place: VictimResults, results: Path) -> str:
    """A victim's folder below `results`; its own name where it is that folder."""
    below = place.folder.relative_to(results)
    return str(below) if below.parts else place.folder.absolute().name


def where_results_are(folder: Path) -> str:
    """What to do about a folder without results."""
    from bench.layout import results_around

    around = results_around(folder)
    return f"name the folder that it is part of, {around}" if around else "run mia.py first"


def problems_of(found: list[VictimResults]) -> list[str]:
    """What of the files that were read so far was left out."""
    return [problem for place in found for problem in place.problems]


def left_out(found: list[VictimResults], results: Path) -> list[str]:
    """What lies there and is in no table, and why."""

    def of(place: VictimResults) -> str:
        return folder_name(place, results)

    stale = [
        f"{place.stale} result{'s' * (place.stale > 1)} in {of(place)}, of models that are gone or have been made "
        f"anew since, or by an older definition of the attack"
        for place in found
        if place.stale
    ]
    stale += [
        f"{place.unmeasured} result{'s' * (place.unmeasured > 1)} in {of(place)}, with intervals by an older "
        f"method and without the scores to measure them again"
        for place in found
        if place.unmeasured
    ]
    unfinished = [of(place) for place in found if not place.manifest and not place.problems]
    silent = [
        of(place)
        for place in found
        if place.manifest
        and not place.lines
        and not place.stale
        and not place.unmeasured
        and not place.problems
    ]
    return [
        *problems_of(found),
        *stale,
        *([f"not finished: {', '.join(unfinished)}"] if unfinished else []),
        *([f"not attacked: {', '.join(silent)}"] if silent else []),
    ]


# ---- means over seeds


def described(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows with names for what they are about, in order; and what was left out, as it was there twice.

    Adds `model`, the victim; `victim`, the same with what the attacker has; and to `attack` those of its own options
    that differ among the attacks on a victim.
    """
    table = table.copy()
    order = {name: place for place, name in enumerate(VERDICTS)}
    table["defend"] = table["defend"].astype(object).where(table["defend"].notna(), "")
    table["order"] = table["attack"].map(order).fillna(len(order))
    table = table.sort_values(
        [
            *SECTION,
            "original",
            "pruner_name",
            "defend",
            "defend_arg",
            "from_scratch",
            "prune_sparsity",
            "adaptive",
            "shadow_num",
            "order",
            *REPEATED,
            "folder",
        ],
        ascending=[True] * 2 + [False] * 2 + [True] * 11,
        na_position="first",
    )
    table = table.drop(columns="order").reset_index(drop=True)
    parts = table[
        ["original", "pruner_name", "prune_sparsity", "defend", "defend_arg", "from_scratch"]
    ]
    table["model"] = [model_name(*row) for row in parts.itertuples(index=False, name=None)]
    table["model"] += [", seeded noise" if caveat else "" for caveat in table["caveat"]]
    known = {*SECTION, *VICTIM, *REPEATED, *OWN, "shadow_num", "delta", "dp_noise"}
    made = [name for name in RECORDED if name not in known]
    table["model"] = with_differing(
        table, "model", [name for name in made if name != "prune_epochs"], whole=True
    )
    table["model"] = with_differing(table, "model", ["prune_epochs", "asked_delta"])
    table["victim"] = table["model"] + table["adaptive"].map({True: ", adaptive attack", False: ""})
    table["victim"] += [
        f", {n} shadow models" if many else ""
        for n, many in zip(
            table["shadow_num"], table.groupby(SECTION)["shadow_num"].transform("nunique") > 1
        )
    ]
    table["attack"] = with_differing(table, "attack", OWN, within=["victim"])
    same = table.duplicated([*SECTION, "victim", "attack", "measure", *REPEATED])
    folders = sorted(set(table.loc[same, "folder"]))
    return table[~same].reset_index(drop=True), [
        f"{', '.join(folders)}: the same configuration and seeds lie in another folder too, which counts"
    ] if folders else []


def model_name(
    original: bool, pruner: str, sparsity: float, defend: str, strength: float, scratch: bool
) -> str:
    if original:
        return "original"
    return (
        f"{pruner} {100 * sparsity:g} %"
        + (f", {defend} {strength:g}" if defend else "")
        + (" from scratch" if scratch else "")
    )


def with_differing(
    table: pd.DataFrame,
    column: str,
    options: list[str],
    *,
    within: Iterable[str] = (),
    whole: bool = False,
) -> pd.Series:
    """The names in a column, and behind those that mean several configurations which options differ; `whole`: behind
    all, where an option differs anywhere in the section, so that what belongs together has the same words."""
    keys = [*SECTION, *within, *([] if whole else [column])]
    # as text: options are of mixed types, and a missing one is a value too
    values = table[options].astype(object).where(table[options].notna(), None).map(str)
    differ = values.groupby([table[key] for key in keys]).transform("nunique") > 1
    more = (
        [
            " ".join(
                f"{name} {value}" for name, value, differs in zip(options, row, which) if differs
            )
            for row, which in zip(values.to_numpy(), differ.to_numpy())
        ]
        if differ.to_numpy().any()
        else ""
    )
    return table[column] + [f" ({one})" if one else "" for one in more or [""] * len(table)]


def summarised(table: pd.DataFrame) -> pd.DataFrame:
    """What `averaged` says of each attack's measures, the mean ends `low` and `high` of the 95 % intervals, and `best`:
    whether no attack on this victim has a higher mean over those seeds that all attacks on it share."""
    keys = [*SECTION, "victim", "attack", "measure"]
    groups = table.groupby(keys, sort=False)
    found = groups[["model", "shadow_num", "caveat", *VICTIM]].first()
    found = (
        found.join(averaged(table, keys, "value"))
        .join(groups[["low", "high", "epsilon", "delta", "members", "non_members"]].mean())
        .reset_index()
    )
    one = [*SECTION, "victim", "measure"]
    number = table.groupby(one)["attack"].transform("nunique")
    shared = table[table.groupby([*one, *REPEATED])["attack"].transform("nunique") == number]
    means = averaged(shared, keys, "value")["mean"].rename("shared").reset_index()
    found = found.merge(means, how="left", on=keys)
    compared = found["shared"].fillna(found["mean"])  # of no seed in common, all that there is
    found["best"] = compared == compared.groupby([found[key] for key in one]).transform("max")
    return found.drop(columns="shared")


def averaged(table: pd.DataFrame, keys: list[str], column: str) -> pd.DataFrame:
    """Mean and spread of a column for each group, with what another split changes apart from another training.

    `mean`: over the split seeds, of each the mean over its trainings (`train_seed`); `sd`: the standard deviation
    (n - 1; NaN of one) of these means; `seeds`: how many; `trainings`: how many values there are in all; `training_sd`:
    the standard deviation within a split, pooled over the splits (NaN where each was trained once).
    """
    runs = (
        table.groupby([*keys, "seed"], sort=False)[column]
        .agg(["mean", "count", "var"])
        .reset_index()
    )
    runs["squares"] = runs["var"] * (runs["count"] - 1)
    groups = runs.groupby(keys, sort=False)
    found = groups["mean"].agg(mean="mean", sd="std", seeds="count")
    found["trainings"] = groups["count"].sum()
    within = (found["trainings"] - found["seeds"]).where(found["trainings"] > found["seeds"])
    found["training_sd"] = (groups["squares"].sum() / within) ** 0.5
    return found


def victims(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracies of each victim, see `averaged`, and its guarantee."""
    keys = [*SECTION, "model"]
    table = table.drop_duplicates([*keys, *REPEATED])
    groups = table.groupby(keys, sort=False)
    found = groups[[*VICTIM, "caveat"]].first()
    for part in ("train", "test"):
        over = averaged(table, keys, f"{part}_accuracy")
        found = found.join(
            over[["mean", "sd", "training_sd"]].rename(
                columns={"mean": part, "sd": f"{part}_sd", "training_sd": f"{part}_training_sd"}
            )
        )
    return (
        found.join(groups[["epsilon", "delta"]].mean())
        .join(over[["seeds", "trainings"]])
        .reset_index()
    )


def pareto(gain: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """(n,) bool: whether no other point has as much gain and as little loss, and more of one of them."""
    import numpy as np

    gain, loss = np.asarray(gain), np.asarray(loss)
    no_worse = (gain[:, None] >= gain) & (loss[:, None] <= loss)
    better = (gain[:, None] > gain) | (loss[:, None] < loss)
    return ~(no_worse & better).any(axis=0)


# ---- a section: tables and figures of one data set, network and split


def sections_of(table, summary, accuracies):
    """The rows of each section."""
    for key, rows in table.groupby(SECTION, sort=False):
        yield (
            rows,
            *(other[(other[SECTION] == list(key)).all(axis=1)] for other in (summary, accuracies)),
        )


def section(
    rows: pd.DataFrame, summary: pd.DataFrame, accuracies: pd.DataFrame, silent: pd.DataFrame
) -> Section:
    dataset, network, split = rows[SECTION].iloc[0]
    made = Section(f"{dataset}, {network}" + (", in/out split" if split == "inout" else ""))
    made.tables += [accuracy_table(accuracies)]
    nothing_said = {*zip(silent["victim"], silent["attack"])}
    made.tables += [
        measure_table(summary[summary["measure"] == measure], measure, nothing_said)
        for measure in TITLES
        if (summary["measure"] == measure).any()
    ]
    # where the number of shadow models varies, figures show what most attacks were made with, or else the most models
    usual = max(
        rows.groupby("shadow_num")["attack"].nunique().items(), key=lambda item: (item[1], item[0])
    )[0]
    summary = summary.assign(
        sd=summary["sd"].fillna(summary["training_sd"])
    )  # figures' bars, see `seeds_of`
    main = summary[summary["shadow_num"] == usual]
    shown = chosen(main)
    beyond = beyond_guarantee(rows)
    rows = rows[rows["victim"].isin(shown)]
    for part in (
        of_sparsity(main),
        of_roc(rows, shown),
        of_low_fpr(main, shown),
        *of_signals(rows, shown),
        of_privacy(main, accuracies),
        of_epsilon(main, beyond),
        of_shadows(summary),
    ):
        (made.absent if isinstance(part, str) else made.pictures).extend([part] if part else [])
    return made


def chosen(summary: pd.DataFrame) -> list[str]:
    """The original, and the undefended pruned victim with most attacks, of those the nearest to SHOWN."""
    pruned = summary[~summary["original"] & (summary["defend"] == "")]
    if pruned.empty:
        pruned = summary[~summary["original"]]
    ranked = pruned.groupby("victim", sort=False).agg(
        attacks=("attack", "nunique"), at=("prune_sparsity", "first")
    )
    ranked["far"] = (ranked["at"] - SHOWN).abs()
    shown = ranked.sort_values(["attacks", "far"], ascending=[False, True]).index[:1].tolist()
    originals = summary.loc[summary["original"], "victim"].unique().tolist()
    alike = [name for name in originals if not shown or options_of(name) == options_of(shown[0])]
    return alike[:1] + shown


def options_of(victim: str) -> str:
    """What a victim's name says of the options that it was trained with."""
    return " ".join(re.findall(r"\([^)]*\)", victim))


def count(rows: pd.DataFrame) -> str:
    """How many records and seeds rows are about, in words."""

    def span(name: str) -> str:
        least, most = int(rows[name].min()), int(rows[name].max())
        return f"{least}" if least == most else f"{least} to {most}"

    return f"{span('members')} members and {span('non_members')} non-members, {seeds_of(rows)}"


def seeds_of(rows: pd.DataFrame) -> str:
    """How many seeds stand behind means, in words."""
    most = int(rows["seeds"].max())
    fewer = (
        [
            f"{attack} {int(n)}"
            for attack, n in rows.groupby("attack", sort=False)["seeds"].min().items()
            if n < most
        ]
        if "attack" in rows
        else []
    )
    if "attack" in rows and len(fewer) == rows["attack"].nunique():
        return f"{int(rows['seeds'].min())} to {most} seeds" + trainings_of(rows)
    said = f"{most} seed{'s' * (most > 1)}" + trainings_of(rows)
    return said + (f" (fewer somewhere: {', '.join(fewer)})" if fewer else "")


def trainings_of(rows: pd.DataFrame) -> str:
    """Where a split was trained several times: how often, and of what the standard deviations are."""
    if not (rows["trainings"] > rows["seeds"]).any():
        return ""
    least, most = int(rows["trainings"].min()), int(rows["trainings"].max())
    of = (
        "split seeds"
        if (rows["seeds"] > 1).all()
        else "trainings"
        if (rows["seeds"] == 1).all()
        else "split seeds, where there is one of its trainings"
    )
    return f" with {least if least == most else f'{least} to {most}'} trainings (standard deviation over {of})"


def mean_cell(
    mean: float,
    spread: float,
    *,
    best: bool = False,
    seeds: int | None = None,
    more: Iterable[str] = (),
) -> Cell:
    """A mean, and under it its standard deviation over split seeds, how many there are where it is said, and `more`."""
    under = ("" if spread != spread else f"± {percent(spread)}") + (
        f" (n = {seeds})" if seeds else ""
    )
    return Cell(percent(mean), mean, "; ".join(filter(None, [under.strip(), *more])), best)


def over_trainings(spread: float, trainings: int) -> str:
    """The standard deviation over trainings of one split, in words; "" where each split was trained once."""
    return "" if spread != spread else f"± {percent(spread)} over {trainings} trainings"


TRAININGS = (
    ' "Over n trainings": the standard deviation over trainings of one split, which differ in --train_seed '
    "alone"
)


def accuracy_table(accuracies: pd.DataFrame) -> Table:
    from defenders.accounting import rounded_up

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
        cells = [
            Cell(row.model, row.model),
            Cell(str(row.seeds), row.seeds),
            train,
            test,
            Cell(percent(row.train - row.test), row.train - row.test),
        ]
        if private:
            cells += (
                [Cell("-", None), Cell("-", None)]
                if row.epsilon != row.epsilon
                else [
                    Cell(
                        rounded_up(row.epsilon, decimals=0 if row.epsilon > 100 else 2),
                        row.epsilon,
                        row.caveat,
                    ),
                    Cell(f"{row.delta:g}", row.delta),
                ]
            )
        rows.append(cells)
    caption = "Percent, mean ± standard deviation over split seeds; gap = train - test."
    if (accuracies["trainings"] > accuracies["seeds"]).any():
        caption += f"{TRAININGS}."
    if private:
        caption += (
            ' ε and δ are those of private training; without "from scratch" they hold for the fine-tuning '
            "only, not for the network."
        )
    return Table(
        "Accuracy of the victims",
        caption,
        ["victim", "seeds", "train", "test", "gap", *["ε", "δ"] * private],
        rows,
    )


def measure_table(
    summary: pd.DataFrame, measure: str, nothing_said: Iterable[tuple[str, str]] = ()
) -> Table:
    """Rows are victims, columns attacks; a dash for (victim, attack) whose scores were all equal."""
    order = {name: place for place, name in enumerate(VERDICTS)}
    attacks = sorted(
        {*summary["attack"]}
        | {name for victim, name in nothing_said if victim in {*summary["victim"]}},
        key=lambda name: (order.get(name.split()[0], len(order)), name),
    )
    rows = []
    for victim, found in summary.groupby("victim", sort=False):
        by_attack, most = {row.attack: row for row in found.itertuples()}, int(found["seeds"].max())
        rows.append(
            [
                Cell(victim, victim),
                Cell(str(most), most),
                *(
                    measure_cell(by_attack[name], most)
                    if name in by_attack
                    else Cell("-" if (victim, name) in nothing_said else "", None)
                    for name in attacks
                ),
            ]
        )
    caption = measure_caption(summary, measure)
    caption += (
        " A dash: all targets have the same score, which says nothing." if nothing_said else ""
    )
    return Table(TITLES[measure], caption, ["victim", "seeds", *attacks], rows)


def measure_cell(row, most: int) -> Cell:
    """Of a row of `summarised` the mean with its spread over split seeds and trainings, and where there is one split,
    so no spread over them, the interval. `most`: how many seeds the table's row has."""
    interval = f"[{percent(row.low)}, {percent(row.high)}]" if row.seeds == 1 else ""
    return mean_cell(
        row.mean,
        row.sd,
        best=row.best,
        seeds=None if row.seeds == most else row.seeds,
        more=[interval, over_trainings(row.training_sd, row.trainings)],
    )


def measure_caption(summary: pd.DataFrame, measure: str) -> str:
    chance = {"accuracy": "50 = guessing", "auc": "50 = guessing"}.get(
        measure, f"{100 * float(measure[7:] or 0):g} = guessing" if measure[:3] == "tpr" else ""
    )
    said = (
        f"Percent ({chance}), mean ± standard deviation over split seeds, which deal the records and train anew; "
        f"(n = …) where an attack has fewer seeds than the row."
    )
    several = (summary["trainings"] > summary["seeds"]).any()
    if (summary["seeds"] == 1).any():
        said += (
            " In brackets, where there is one seed, the 95 % interval"
            + (" (the mean of its ends over the trainings)" if several else "")
            + ": it covers the choice of the target records, not the randomness of training."
        )
    said += (
        f"{TRAININGS}, beside which no interval says how much another training changes."
        if several
        else ""
    )
    return (
        said
        + " In bold the strongest attack on each victim, on the seeds that all attacks on it share."
    )


def picture(name: str, title: str, caption: str, png: bytes) -> Picture:
    from reporting.figures import Picture

    return Picture(name, title, caption, png)


def of_sparsity(summary: pd.DataFrame) -> Picture | str:
    import pandas as pd

    from reporting import figures

    data = summary[summary["measure"] == "accuracy"].assign(
        sparsity=100 * summary["prune_sparsity"]
    )
    original = data[data["original"]].assign(sparsity=0.0)
    series = {}
    pruned = data[~data["original"]]
    # the name of a series is its victims' without the sparsity
    name = pruned["victim"].str.replace(r" [0-9.e-]+ %", "", n=1, regex=True)
    for title, points in pruned.groupby(name, sort=False):
        if points["sparsity"].nunique() > 1:
            plain = (points["defend"] == "").all() and original["victim"].nunique() == 1
            series[title] = pd.concat([original, points] if plain else [points])
    if not series:
        return "Attack accuracy against sparsity: no victim was pruned to more than one sparsity."
    shown = pd.concat(series.values())
    return picture(
        "sparsity",
        "Attack accuracy against sparsity",
        f"Accuracy of each attack over the share of weights that is pruned; at the left, beside the "
        f"scale, the original. Bars are a standard deviation to both sides, shifted a little so that they "
        f"can be told apart; dotted: guessing. {count(shown)}.",
        figures.sparsity(series),
    )


def of_roc(rows: pd.DataFrame, shown: list[str]) -> Picture | str:
    import numpy as np

    from reporting import figures

    areas = rows[rows["measure"] == "auc"]
    best = (
        areas[areas["victim"] == shown[-1]]
        .groupby("attack")["value"]
        .mean()
        .sort_values()
        .index[::-1][:CURVES]
    )
    grid = np.geomspace(1 / areas["non_members"].max(), 1, 300)
    runs = areas.groupby(["victim", "attack"])
    seeds = areas.assign(
        seeds=runs["seed"].transform("nunique"), trainings=runs["value"].transform("count")
    )
    panels = {}
    for victim in shown:
        curves = {
            attack: (grid, np.mean(found, axis=0), of["value"].mean())
            for attack, of in areas[areas["victim"] == victim].groupby("attack")
            if attack in best
            and (
                found := [
                    curve
                    for row in of.itertuples()
                    if (curve := rates(row.place, row.line, grid)) is not None
                ]
            )
        }
        if curves:
            panels[victim] = curves
    if not panels:
        return "ROC: no scores of the attacks shown can be read."
    seeds = seeds[seeds["attack"].isin(best)]
    return picture(
        "roc",
        "ROC",
        f"True-positive rate over false-positive rate, both logarithmic, mean over seeds: the "
        f"{len(best)} attacks with the largest AUC on {shown[-1]}. Dashed: guessing. The axes begin at one "
        f"false positive; nothing is interpolated. {count(seeds)}.",
        figures.roc(panels),
    )


def rates(place: VictimResults, line: dict, grid: np.ndarray) -> np.ndarray | None:
    """The largest TPR of a threshold whose FPR does not exceed each of the grid's; None without scores."""
    import numpy as np
    from sklearn.metrics import roc_curve

    truth = place.truth(line)
    if truth is None:
        return None
    fpr, tpr, _ = roc_curve(truth["member"], truth["scores"], drop_intermediate=False)
    return tpr[np.searchsorted(fpr, grid * (1 + 1e-9), side="right") - 1]


def of_low_fpr(summary: pd.DataFrame, shown: list[str]) -> Picture | str:
    from reporting import figures

    data = summary[summary["victim"].isin(shown)]
    measures = [
        name
        for name in ("tpr_at_0.01", "tpr_at_0.001", "tpr_at_0.1")
        if (data["measure"] == name).any()
    ]
    if not measures:
        return "TPR at low FPR: too few non-members to tell such rates by."
    panels = {TITLES[name]: data[data["measure"] == name] for name in measures}
    return picture(
        "low_fpr",
        "True-positive rate at low false-positive rates",
        f"How many of the members an attacker names with few false alarms, sorted by the first panel; "
        f"{' (hatched) and '.join(shown)} (filled). Bars are a standard deviation to both sides; dashed: "
        f"guessing. {count(data[data['measure'].isin(measures)])}.",
        figures.low_fpr(panels, shown),
    )


def of_signals(rows: pd.DataFrame, shown: list[str]) -> list[Picture | str]:
    """Histograms of what the victims answer, and its means by class."""
    from reporting import figures

    found = {
        victim: {
            what: answers_of(rows[rows["victim"] == victim], file)
            for what, file in (("confidence", "logits"), ("sensitivity", "sensitivity"))
        }
        for victim in shown
    }
    made = []
    whats = [what for what in figures.AXES if all(found[victim][what] for victim in shown)]
    for what in figures.AXES:
        if what not in whats:
            how = (
                "samia, which asks for them, with mia.py --attacks samia"
                if what == "sensitivity"
                else "any attack again with mia.py --fresh"
            )
            made.append(
                f"Members and non-members by {what}: not every victim shown has kept its answers with the "
                f"numbers of the records asked; to have them, run {how}."
            )
    if not whats:
        return made

    def said(what: str) -> str:
        each = {
            victim: f"{int(of.member.sum())} members and {int((~of.member).sum())} non-members, {of.seeds} victim"
            f"{'s together' if of.seeds > 1 else ''}"
            for victim in shown
            for of in [found[victim][what]]
        }
        same = len(set(each.values())) == 1
        return (
            each[shown[0]]
            if same
            else "; ".join(f"{victim}: {count}" for victim, count in each.items())
        )

    drawn = {
        "confidence": "the posterior of the true class",
        "sensitivity": "the sensitivity of the true class's "
        "posterior to small noise on the record (values of 0 at the left end)",
    }
    made.insert(
        0,
        picture(
            "histograms",
            "What the victim answers for members and for non-members",
            f"{', and to its right '.join(drawn[what] for what in whats).capitalize()}: the share of all members and of "
            f"all non-members in each of 40 bins, on a logarithmic axis; vertical lines are means. "
            f"{' '.join(f'{what.capitalize()}: {said(what)}.' for what in whats)}",
            figures.histograms(
                {victim: {what: found[victim][what] for what in whats} for victim in shown}
            ),
        ),
    )
    for what in whats:
        means = {victim: figures.class_means(found[victim][what], least=FEW) for victim in shown}
        if min(map(len, means.values())) == 0:
            made.append(
                f"{what.capitalize()} by class: no class has {FEW} members and {FEW} non-members."
            )
            continue
        made.append(
            picture(
                f"classes_{what}",
                f"{what.capitalize()} by class",
                f"Means of members and of non-members of each class of {drawn[what].split(' (')[0]}, and the gap between "
                f"them, by which the classes are sorted ({shown[-1]}). Classes with fewer than {FEW} of either are left "
                f"out. {said(what)}.",
                figures.by_class(means, what),
            )
        )
    return made


def answers_of(rows: pd.DataFrame, file: str) -> Answers | None:
    """A victim's answers for the true class of its targets, of those seeds that have kept them; None where none has."""
    import numpy as np

    from attackers import Signals
    from reporting.figures import Answers

    parts = []
    for row in rows.drop_duplicates(REPEATED).itertuples():
        kept, truth = row.place.outputs(file), row.place.truth(row.line)
        if kept is None or truth is None or not np.isin(truth["records"], kept[0]).all():
            continue
        records, answers = kept
        order = np.argsort(records)
        own = answers[order[np.searchsorted(records, truth["records"], sorter=order)]]
        values = own if file == "sensitivity" else Signals(own).posteriors()[0]
        parts.append(
            (values[np.arange(len(own)), truth["labels"]], truth["labels"], truth["member"])
        )
    return (
        Answers(*(np.concatenate(part) for part in zip(*parts)), seeds=len(parts))
        if parts
        else None
    )


def of_privacy(summary: pd.DataFrame, accuracies: pd.DataFrame) -> Picture | str:
    from reporting import figures

    data = summary[summary["measure"] == "accuracy"]
    common = set.intersection(*(set(of["attack"]) for _, of in data.groupby("victim")))
    if data["model"].nunique() < 2 or not common:
        return "Privacy against accuracy: " + (
            "no attack was made on all victims." if not common else "there is one victim only."
        )
    data = data[data["attack"].isin(common)]
    strongest = data.loc[
        data.groupby("victim")["mean"].idxmax()
    ]  # of each victim, adaptive and not
    worst = strongest.loc[strongest.groupby("model")["mean"].idxmax()].set_index("model")
    points = accuracies[accuracies["model"].isin(worst.index)].set_index("model")
    blind = (
        strongest[~strongest["adaptive"] & (strongest["defend"] != "")]
        .groupby("model")["mean"]
        .max()
    )
    points = points.assign(
        worst=100 * worst["mean"],
        attack=worst["attack"],
        blind=100 * blind,
        test=100 * points["test"],
    )
    points["series"] = [
        model.replace(f" {100 * row.prune_sparsity:g} %", "", 1)
        for model, row in zip(points.index, points.itertuples())
    ]
    points["defend"] = points["defend"].astype(object).where(~points["original"].astype(bool), None)
    points["label"] = [
        attack if original else f"{100 * sparsity:g} % {attack}"
        for original, sparsity, attack in points[
            ["original", "prune_sparsity", "attack"]
        ].itertuples(index=False, name=None)
    ]
    points["front"] = pareto(points["test"].to_numpy(), points["worst"].to_numpy())
    return picture(
        "privacy",
        "Privacy against accuracy",
        f"Each victim by its test accuracy and the accuracy of the strongest of the attacks that were made "
        f"on all of them: {', '.join(name for name in summary['attack'].unique() if name in common)}. "
        f"Beside a point, where there is room, its sparsity and which attack that is; the tables have all. "
        f"Filled: the strongest attacker, who may know the defence; hollow and joined to it: who does not. "
        f"Ringed: the Pareto front, victims than which no other is as accurate and as private. Means, "
        f"{count(data)}.",
        figures.privacy(points),
    )


def beyond_guarantee(rows: pd.DataFrame) -> str:
    """Which attacks on networks with a guarantee are surely better than that allows; "" where there is none."""
    from defenders import accounting

    private = rows[
        (rows["measure"] == "accuracy")
        & rows["from_scratch"]
        & rows["epsilon"].notna()
        & (rows["caveat"] == "")
    ]
    known = [
        (row, truth)
        for row in private.itertuples()
        if (truth := row.place.truth(row.line)) is not None
    ]
    if not known:
        return ""
    beyond = [
        f"{row.attack} on {row.victim} (seed {row.seed})"
        for row, truth in known
        if accounting.beyond_guarantee(
            truth["scores"] >= truth["threshold"],
            truth["member"],
            epsilon=row.epsilon,
            delta=row.delta,
            tests=len(known),
        )
    ]
    return (
        f" Of {len(known)} attacks on networks with a guarantee, those surely better than it allows (95 % over "
        f"all): {', '.join(beyond) or 'none'}."
    )


def of_epsilon(summary: pd.DataFrame, beyond: str = "") -> Picture | str | None:
    import numpy as np

    from reporting import figures

    data = summary[
        (summary["measure"] == "accuracy")
        & np.isfinite(summary["epsilon"])
        & (summary["epsilon"] > 0)
    ]
    if data.empty:
        return None
    # a panel for each series of victims: the name without the noise
    series = data["victim"].str.replace(r", dp [0-9.e+-]+", ", dp", n=1, regex=True)
    panels = {
        name.replace(", ", "\n", 1)
        + "".join(f"\n{caveat}" for caveat in rows["caveat"].unique() if caveat): rows
        for name, rows in data.groupby(series, sort=False)
    }
    bounded = {
        name
        for name, rows in panels.items()
        if rows["from_scratch"].all() and not rows["caveat"].any()
    }
    caveats = "".join(
        f" Of victims of seeded noise, {caveat}." for caveat in data["caveat"].unique() if caveat
    )
    return picture(
        "epsilon",
        "Epsilon against attack advantage",
        f"Advantage, TPR - FPR = 2 accuracy - 1, of each attack on victims trained with differential "
        f"privacy: of the network where it is trained from scratch, else of its fine-tuning only. "
        f"Dash-dotted, where it is low enough to be in sight: what no attack on the network can exceed, "
        f"given epsilon and delta; dotted: guessing.{caveats}{beyond} Bars are a standard deviation to both "
        f"sides. delta {data['delta'].max():g}, {count(data)}.",
        figures.epsilon(panels, bounded, data["delta"].max()),
    )


def of_shadows(summary: pd.DataFrame) -> Picture | None:
    from reporting import figures

    data = summary[(summary["measure"] == "accuracy") & (summary["defend"] == "")]
    numbers = data.groupby("model", sort=False)["shadow_num"].nunique()
    if numbers.empty or numbers.max() < 2:
        return None
    best = data[data["model"].isin(numbers[numbers == numbers.max()].index)]
    victim = best.loc[(best["prune_sparsity"] - SHOWN).abs().fillna(1).idxmin(), "model"]
    data = data[data["model"] == victim]
    return picture(
        "shadows",
        "Attack accuracy against the number of shadow models",
        f"Accuracy of each attack on {victim} by attackers with more or fewer shadow models. Bars are a "
        f"standard deviation to both sides. {count(data)}.",
        figures.shadows(data, victim),
    )


# ---- writing


def facts(table: pd.DataFrame) -> str:
    """From what a report is made, in a sentence."""
    lines = table.drop_duplicates([*SECTION, "victim", "attack", *REPEATED])
    seeds = table.drop_duplicates(REPEATED)[REPEATED].sort_values(REPEATED)
    said = [
        f"{seed}" if seed == train else f"{seed} (training {train})"
        for seed, train in seeds.to_numpy().tolist()
    ]
    devices = ", ".join(sorted(set(table["device"].dropna())))
    return (
        f"{table['folder'].nunique()} victims, {len(lines)} results of attacks, seed{'s' * (len(said) > 1)} "
        f"{', '.join(said)}, made on {devices or 'an unknown device'}"
    )


def as_csv(summary: pd.DataFrame, accuracies: pd.DataFrame) -> str:
    """All means of the tables as fractions: a line for each victim, attack and measure; accuracies of the victims
    themselves without an attack."""
    import pandas as pd

    own = [
        accuracies.assign(
            victim=accuracies["model"],
            measure=f"{part}_accuracy",
            mean=accuracies[part],
            sd=accuracies[f"{part}_sd"],
            training_sd=accuracies[f"{part}_training_sd"],
        )
        for part in ("train", "test")
    ]
    columns = [
        *SECTION,
        "victim",
        "shadow_num",
        *VICTIM,
        "epsilon",
        "delta",
        "caveat",
        "attack",
        "measure",
        "mean",
        "sd",
        "seeds",
        "training_sd",
        "trainings",
        "low",
        "high",
        "best",
    ]
    table = pd.concat([summary, *own]).reindex(columns=columns).astype({"shadow_num": "Int64"})
    return table.to_csv(index=False, lineterminator="\n")


if __name__ == "__main__":
    sys.exit(main())
