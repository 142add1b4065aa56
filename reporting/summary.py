"""Means over seeds, and the names under which configurations are printed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from attackers import OPTION_NAMES, registered_position
from bench.attack_lines import name_with_releases
from bench.guesses import GUESSES, KNOWLEDGE, knowledge_in_words
from reporting.columns import (
    ATTACKER,
    DEFENCE_OPTIONS,
    LABELS,
    RECORDED,
    REPEATED,
    SECTION,
    SIZES,
    VICTIM,
)

_OWN = [name for name in OPTION_NAMES if name != "also"]  # options of single attacks
HEADLINE_SPARSITY = 0.7  # figures of a single pruned victim take the one nearest to it


def label_configurations(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows in order, with names for what they are about; and what was there twice.

    Adds columns: `model`, the network; `victim`, the same with what the attacker has; `knowledge`,
    what of it is wrong or missing; `verdict`, the registered name of the attack, and to `attack` the
    other releases that it has, and those of its options that differ among the attacks on a victim.
    `series` and `model_series` are victim and model at any sparsity,
    `noise_series` the victim at any strength of its defence; `trained_with` is what the names say
    of options of training, and `recipe` the value of all of these but defences', for comparing.
    """
    table = _in_order(table)
    known = {*SECTION, *VICTIM, *REPEATED, *OPTION_NAMES, "shadow_num", "delta", "dp_noise"}
    known |= {"canaries"}
    known |= {"pruned", "prune_epochs", "quantize_epochs", *KNOWLEDGE}
    training = [name for name in RECORDED if name not in known]
    noise = [
        ", seeded noise" * bool(caveat) + (f", {canaries:g} canaries" if canaries else "")
        for caveat, canaries in zip(table["caveat"], table["canaries"])
    ]
    name = _names(table) + noise
    whole = _differing(table, training, within=SECTION)
    fine_tuned = ["prune_epochs", "quantize_epochs", "delta_option"]
    detail = _differing(table.assign(model=name + whole), fine_tuned, within=[*SECTION, "model"])
    table["trained_with"] = whole + detail
    table["model"] = name + table["trained_with"]
    table["model_series"] = _names(table, sparsity=False) + noise + table["trained_with"]
    attacker = table["adaptive"].map({True: ", adaptive attack", False: ""})
    numbers = table.groupby(SECTION)["shadow_num"].transform("nunique")
    shadows = [
        f", {n} shadow models" if many > 1 else "" for n, many in zip(table["shadow_num"], numbers)
    ]
    table["knowledge"] = [knowledge_in_words(row) for row in table[[*KNOWLEDGE]].to_dict("records")]
    attacker = attacker + [f", {words}" if words else "" for words in table["knowledge"]] + shadows
    table["victim"] = table["model"] + attacker
    table["series"] = table["model_series"] + attacker
    strengthless = _names(table, strength=False) + noise + table["trained_with"]
    table["noise_series"] = strengthless + attacker
    shared = [name for name in training if name not in DEFENCE_OPTIONS]
    table["recipe"] = _as_text(table, shared).agg(" ".join, axis=1) if len(table) else ""
    table["verdict"] = table["attack"]
    options = _differing(table, _OWN, within=[*SECTION, "victim", "verdict"])
    also = [filter(None, names.split(",")) for names in table["also"]]
    table["attack"] = [*map(name_with_releases, table["attack"], also)] + options
    same = table.duplicated([*SECTION, "victim", "attack", "measure", *REPEATED])
    folders = ", ".join(sorted(set(table.loc[same, "folder"])))
    note = f"{folders}: the same configuration and seeds lie in another folder too, which counts"
    return table[~same].reset_index(drop=True), [note] if folders else []


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """The rows in the order of tables: by section, victim, attacker, attack and seed."""
    table = table.copy()
    for name in ("defend", "pruner_name", "quantizer"):  # "" where there is none
        table[name] = table[name].astype(object).where(table[name].notna(), "")
    table["order"] = table["attack"].map(registered_position)
    victim = ["pruner_name", "prune_iterations", "rewind", "quantizer", "defend", "defend_arg"]
    victim += ["from_scratch", "prune_sparsity", "adaptive"]
    by = [*SECTION, "original", *victim, "attacker_records", *GUESSES]
    by += ["shadow_num", "order", *REPEATED, "folder"]
    # splits and originals descend: the paper's split before in/out, the original before the pruned;
    # so do shares of the records
    ascending = [name not in ("split", "original", "attacker_records") for name in by]
    table = table.sort_values(by, ascending=ascending, na_position="first")
    return table.drop(columns="order").reset_index(drop=True)


def _names(table: pd.DataFrame, *, sparsity: bool = True, strength: bool = True) -> pd.Series:
    """A name for each row's network, on request without its sparsity or its defence's strength."""
    names = []
    for row in table.itertuples():
        if row.original:
            names.append("original")
            continue
        parts = [_pruning_in_words(row, sparsity=sparsity)] if row.pruner_name else []
        parts += [row.quantizer] if row.quantizer else []
        if row.defend:
            parts.append(f"{row.defend} {row.defend_arg:g}" if strength else row.defend)
        names.append(", ".join(parts) + " from scratch" * row.from_scratch)
    return pd.Series(names, index=table.index, dtype=object)


def _pruning_in_words(row, *, sparsity: bool) -> str:
    words = f"{row.pruner_name} {100 * row.prune_sparsity:g} %" if sparsity else row.pruner_name
    words += f" in {row.prune_iterations:g} rounds" if (row.prune_iterations or 1) > 1 else ""
    return words + (
        f" rewound to {row.rewind:g}" if row.rewind is not None and row.rewind >= 0 else ""
    )


def _as_text(table: pd.DataFrame, options: list[str]) -> pd.DataFrame:
    """Options as text: they are of mixed types, and a missing one is a value too."""
    return table[options].astype(object).where(table[options].notna(), None).map(str)


def _differing(table: pd.DataFrame, options: list[str], *, within: Iterable[str]) -> pd.Series:
    """For each row, in brackets, those options that differ among the rows alike in `within`."""
    values = _as_text(table, options)
    differ = values.groupby([table[key] for key in within]).transform("nunique") > 1
    if not differ.to_numpy().any():
        return pd.Series("", index=table.index, dtype=object)
    texts = [
        " ".join(f"{name} {value}" for name, value, differs in zip(options, row, which) if differs)
        for row, which in zip(values.to_numpy(), differ.to_numpy())
    ]
    return pd.Series(
        [f" ({text})" if text else "" for text in texts], index=table.index, dtype=object
    )


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """What `average` says of each attack's measures on each victim, a row each.

    Beside it: the mean ends `low` and `high` of the 95 % intervals, and `best`: whether no attack
    on this victim has a higher mean over those seeds that all attacks on it share.
    """
    keys = [*SECTION, "victim", "attack", "measure"]
    groups = table.groupby(keys, sort=False)
    summary = groups[[*LABELS, "shadow_num", "also", "caveat", *VICTIM, *ATTACKER]].first()
    numbers = ["low", "high", "epsilon", "delta", "members", "non_members"]
    summary = summary.join(average(table, keys, "value")).join(groups[numbers].mean())
    summary = summary.reset_index()
    one = [*SECTION, "victim", "measure"]
    number = table.groupby(one)["attack"].transform("nunique")
    shared = table[table.groupby([*one, *REPEATED])["attack"].transform("nunique") == number]
    means = average(shared, keys, "value")["mean"].rename("shared").reset_index()
    summary = summary.merge(means, how="left", on=keys)
    compared = summary["shared"].fillna(summary["mean"])  # of no seed in common, all that there is
    largest = compared.groupby([summary[key] for key in one]).transform("max")
    return summary.assign(best=compared == largest).drop(columns="shared")


def best_informed(rows: pd.DataFrame) -> pd.DataFrame:
    """Those rows of a section whose attackers know how the victim was compressed, and have the most
    of the records that any attacker there has: who has less is another question than who is
    strongest."""
    right = rows[list(GUESSES)].isna().all(axis=1)
    return rows[right & (rows["attacker_records"] == rows["attacker_records"].max())]


def average(table: pd.DataFrame, keys: list[str], column: str) -> pd.DataFrame:
    """Mean and spread of a column for each group; another split apart from another training.

    `mean`: over the split seeds, of each the mean over its trainings (`train_seed`); `sd`: the
    standard deviation (n - 1; NaN of one) of these means; `seeds`: how many; `trainings`: how many
    values there are in all; `training_sd`: the standard deviation within a split, pooled over the
    splits (NaN where each was trained once).
    """
    runs = table.groupby([*keys, "seed"], sort=False)[column].agg(["mean", "count", "var"])
    runs = runs.reset_index()
    runs["squares"] = runs["var"] * (runs["count"] - 1)
    groups = runs.groupby(keys, sort=False)
    averages = groups["mean"].agg(mean="mean", sd="std", seeds="count")
    averages["trainings"] = groups["count"].sum()
    repeated = averages["trainings"] > averages["seeds"]
    freedom = (averages["trainings"] - averages["seeds"]).where(repeated)
    averages["training_sd"] = (groups["squares"].sum() / freedom) ** 0.5
    return averages


def network_accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """Train and test accuracy of each network, see `average`, what it takes, and its guarantee; a row
    each."""
    keys = [*SECTION, "model"]
    table = table.drop_duplicates([*keys, *REPEATED])
    groups = table.groupby(keys, sort=False)
    labels = ["model_series", "recipe", "trained_with", "prune_epochs", "quantize_epochs"]
    accuracies = groups[[*VICTIM, "caveat", *labels]].first()
    for part in ("train", "test"):
        averages = average(table, keys, f"{part}_accuracy")
        names = {"mean": part, "sd": f"{part}_sd", "training_sd": f"{part}_training_sd"}
        accuracies = accuracies.join(averages[[*names]].rename(columns=names))
    accuracies = accuracies.join(groups[["epsilon", "delta", *SIZES]].mean())
    return accuracies.join(averages[["seeds", "trainings"]]).reset_index()


def pareto(gain: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """(n,) bool: whether no other point has as much gain and as little loss, and more of one."""
    gain, loss = np.asarray(gain), np.asarray(loss)
    no_worse = (gain[:, None] >= gain) & (loss[:, None] <= loss)
    better = (gain[:, None] > gain) | (loss[:, None] < loss)
    return np.logical_not((no_worse & better).any(axis=0))


def headline_victims(summary: pd.DataFrame) -> list[str]:
    """The original, and the undefended compressed victim with most attacks, nearest to a sparsity
    of 0.7.

    The original is the one trained as that victim was.
    """
    pruned = summary[~summary["original"] & (summary["defend"] == "")]
    if pruned.empty:
        pruned = summary[~summary["original"]]
    ranked = pruned.groupby("victim", sort=False).agg(
        attacks=("attack", "nunique"), at=("prune_sparsity", "first"), recipe=("recipe", "first")
    )
    ranked["far"] = (ranked["at"] - HEADLINE_SPARSITY).abs()
    nearest = ranked.sort_values(["attacks", "far"], ascending=[False, True])[:1]
    originals = summary[summary["original"]]
    if len(nearest):
        originals = originals[originals["recipe"] == nearest["recipe"].iloc[0]]
    return [*originals["victim"].unique()[:1], *nearest.index]


def csv_text(summary: pd.DataFrame, accuracies: pd.DataFrame) -> str:
    """All means of the tables as fractions: a line for each victim, attack and measure.

    Accuracies of the victims themselves, and what these take, are lines without an attack.
    """
    accuracies = accuracies.assign(victim=accuracies["model"])
    networks = [
        accuracies.assign(
            measure=f"{part}_accuracy",
            mean=accuracies[part],
            sd=accuracies[f"{part}_sd"],
            training_sd=accuracies[f"{part}_training_sd"],
        )
        for part in ("train", "test")
    ]
    counted = accuracies[accuracies["weights"].notna()]
    networks += [counted.assign(measure=name, mean=counted[name]) for name in SIZES]
    names = [*SECTION, "victim", "shadow_num", *VICTIM, *KNOWLEDGE, "epsilon", "delta", "caveat"]
    means = ["mean", "sd", "seeds", "training_sd", "trainings", "low", "high", "best"]
    table = pd.concat([summary, *networks]).reindex(
        columns=[*names, "attack", "also", "measure", *means]
    )
    return table.astype({"shadow_num": "Int64"}).to_csv(index=False, lineterminator="\n")
