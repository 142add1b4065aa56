"""How many records, seeds and trainings stand behind numbers, in words."""

from __future__ import annotations

import pandas as pd

from reporting.columns import REPEATED, SECTION


def count(rows: pd.DataFrame) -> str:
    """How many records and seeds rows of `summary.summarise` are about."""

    def span(name: str) -> str:
        least, most = int(rows[name].min()), int(rows[name].max())
        return f"{least}" if least == most else f"{least} to {most}"

    return f"{span('members')} members and {span('non_members')} non-members, {seeds_of(rows)}"


def seeds_of(rows: pd.DataFrame) -> str:
    """How many seeds stand behind means, and which attacks have fewer somewhere."""
    most = int(rows["seeds"].max())
    least = rows.groupby("attack", sort=False)["seeds"].min()
    fewer = [f"{attack} {int(seeds)}" for attack, seeds in least.items() if seeds < most]
    if len(fewer) == len(least):
        return f"{int(rows['seeds'].min())} to {most} seeds" + _trainings_of(rows)
    words = f"{most} seed{'s' * (most > 1)}" + _trainings_of(rows)
    return words + (f" (fewer somewhere: {', '.join(fewer)})" if fewer else "")


def _trainings_of(rows: pd.DataFrame) -> str:
    """Where a split was trained several times: how often, and of what the deviations are."""
    if not (rows["trainings"] > rows["seeds"]).any():
        return ""
    least, most = int(rows["trainings"].min()), int(rows["trainings"].max())
    number = f"{least}" if least == most else f"{least} to {most}"
    spread = "split seeds, where there is one of its trainings"
    if (rows["seeds"] > 1).all():
        spread = "split seeds"
    elif (rows["seeds"] == 1).all():
        spread = "trainings"
    return f" with {number} trainings (standard deviation over {spread})"


def facts(table: pd.DataFrame) -> str:
    """From what a report is made, in a sentence."""
    lines = table.drop_duplicates([*SECTION, "victim", "attack", *REPEATED])
    seeds = table.drop_duplicates(REPEATED)[REPEATED].sort_values(REPEATED)
    names = [
        f"{seed}" if seed == train_seed else f"{seed} (training {train_seed})"
        for seed, train_seed in seeds.to_numpy().tolist()
    ]
    devices = ", ".join(sorted(set(table["device"].dropna())))
    return (
        f"{table['folder'].nunique()} victims, {len(lines)} results of attacks, "
        f"seed{'s' * (len(names) > 1)} {', '.join(names)}, made on {devices or 'an unknown device'}"
    )
