"""What a section says nothing about, as it was not tried."""

from __future__ import annotations

import pandas as pd

from attackers import ATTACKS, VERDICTS, part_of_all, unfit
from bench.attack_lines import name_with_releases
from datasets import SPLITS
from defenders import DEFENDERS
from models import MODELS
from pruner import PRUNERS
from quantizer import QUANTIZERS
from reporting.columns import SECTION
from reporting.summary import best_informed

_NAMED = 4  # so many victims are listed by name, of more the number


def untested(rows: pd.DataFrame, everything: pd.DataFrame) -> list[str]:
    """What was not tested of a data set, network and split, a sentence each.

    Args:
        rows: of `summary.label_configurations`, of this section, those of equal scores included.
        everything: the same of all sections.
    """
    informed = best_informed(rows)
    parts = _missing_informed(rows, informed)
    if len(informed):
        parts += _missing_attacks(informed) + _missing_adaptive(informed)
    parts += _missing_registered(rows)
    if len(informed):
        parts += _missing_seeds(informed)
    parts += _missing_splits(rows, everything)
    return [part for part in parts if part]


def _missing_attacks(rows: pd.DataFrame) -> list[str]:
    """Registered attacks that can be made in this split, by the victims on which they were not."""
    online = rows["split"].iloc[0] == "inout"
    most = int(rows["shadow_num"].max())
    also = [names for names in rows["also"].unique() if names]  # whether any attacker held more
    possible = [
        verdict
        for verdict, name in VERDICTS.items()
        if part_of_all(name) and not unfit(name, online=online, shadow_num=most, also=also)
    ]
    # attackers with other numbers of shadow models are another question: by model and knowledge
    attacked = rows.assign(name=_knowledge(rows)).groupby("name", sort=False)
    missing: dict[tuple[str, ...], list[str]] = {}
    for victim, group in attacked:
        names = tuple(_not_made(group, possible))
        if names:
            missing.setdefault(names, []).append(str(victim))
    return [
        f"Attacks not made on {_victims(victims, len(attacked))}: {', '.join(names)}."
        for names, victims in missing.items()
    ]


def _not_made(group: pd.DataFrame, possible: list[str]) -> list[str]:
    """Of these attacks those that were not made on the one victim of the rows; on several releases,
    by each attacker who held some of this victim."""
    made = set(zip(group["verdict"], group["also"]))
    held = [names for names in group["also"].unique() if names] or [""]
    return [
        _printed(verdict, names)
        for verdict in possible
        for names in (held if ATTACKS[VERDICTS[verdict]].options.get("releases") else [""])
        if (verdict, names) not in made
    ]


def _printed(verdict: str, also: str) -> str:
    """An attack and the other releases that it had, as tables name it."""
    return name_with_releases(verdict, filter(None, also.split(",")))


def _knowledge(rows: pd.DataFrame) -> pd.Series:
    return rows["model"] + rows["adaptive"].map({True: ", adaptive attack", False: ""})


def _victims(victims: list[str], number: int) -> str:
    if len(victims) == number:
        return "any victim"
    if len(victims) > _NAMED:
        return f"{len(victims)} of {number} victims"
    return "; ".join(victims)


def _missing_adaptive(rows: pd.DataFrame) -> list[str]:
    """Defended networks that no attacker attacked who knows the defence, or none who does not."""
    defended = rows[rows["defend"] != ""]
    adaptive = defended.groupby("model", sort=False)["adaptive"].agg(["any", "all"])
    unaware = adaptive.index[~adaptive["any"].to_numpy(dtype=bool)].tolist()
    aware = adaptive.index[adaptive["all"].to_numpy(dtype=bool)].tolist()
    return [
        f"An attacker who knows the defence: not on {_victims(unaware, 0)}." if unaware else "",
        f"An attacker who does not know the defence: not on {_victims(aware, 0)}." if aware else "",
    ]


def _missing_informed(rows: pd.DataFrame, informed: pd.DataFrame) -> list[str]:
    """Networks that were attacked only by who knows less than an attacker of others."""
    models = rows["model"].unique()
    less = [model for model in models if model not in set(informed["model"])]
    words = "An attacker who knows how the victim was compressed and has all the records"
    return [f"{words}: not on {_victims(less, len(models))}."] if less else []


def _missing_registered(rows: pd.DataFrame) -> list[str]:
    """The original, pruners that fit the network, quantisers, sparsities and defences that are
    absent."""
    network = rows["model_name"].iloc[0]
    layers = MODELS[network].options["layers"] if network in MODELS else ()
    pruners = [
        name
        for name in PRUNERS
        if PRUNERS[name].options["layer"] in layers and name not in set(rows["pruner_name"])
    ]
    defences = [name for name in DEFENDERS if name and name not in set(rows["defend"])]
    quantizers = [name for name in QUANTIZERS if name not in set(rows["quantizer"])]
    sparsities = rows["prune_sparsity"].dropna().unique()
    return [
        "" if rows["original"].any() else "The original: not attacked.",
        "Compressed networks: none was attacked." if rows["original"].all() else "",
        f"Other pruners: {', '.join(pruners)}." if pruners else "",
        f"Other defences: {', '.join(defences)}." if defences else "",
        f"Other quantisers: {', '.join(quantizers)}." if quantizers else "",
        f"Other sparsities than {100 * sparsities[0]:g} %." if len(sparsities) == 1 else "",
    ]


def _missing_seeds(rows: pd.DataFrame) -> list[str]:
    seeds = sorted(set(rows["seed"]))
    if len(seeds) == 1:
        return [f"Other splits of the records: there is seed {seeds[0]} only."]
    by = [_knowledge(rows), "verdict", "also"]
    per_attack = rows.groupby(by, sort=False)["seed"].agg(set)
    fewer: dict[tuple, dict[str, None]] = {}
    for (_, verdict, also), have in per_attack.items():
        absent = tuple(seed for seed in seeds if seed not in have)
        if absent:
            fewer.setdefault(absent, {})[_printed(verdict, also)] = None
    return [
        f"Seed{'s' * (len(absent) > 1)} {', '.join(map(str, absent))}: {', '.join(verdicts)} not "
        f"on every victim that they attack with other seeds."
        for absent, verdicts in fewer.items()
    ]


def _missing_splits(rows: pd.DataFrame, everything: pd.DataFrame) -> list[str]:
    dataset, network, _ = rows[SECTION].iloc[0]
    same = everything[
        (everything["dataset_name"] == dataset) & (everything["model_name"] == network)
    ]
    names = {"paper": "the paper's split", "inout": "the in/out split"}
    absent = [names.get(split, split) for split in SPLITS if split not in set(same["split"])]
    return [f"Another split: {', '.join(absent)}."] if absent else []
