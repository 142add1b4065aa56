"""A section of a report: answer, figures and tables of one data set, network and split."""

from __future__ import annotations

import pandas as pd

from bench.guesses import knowledge_in_words
from reporting.answer import answer
from reporting.columns import MEASURES, SECTION
from reporting.document import Picture, Section
from reporting.findings import findings, original_of
from reporting.neighbours import neighbour_table
from reporting.pictures import (
    beyond_guarantee,
    epsilon_figure,
    low_fpr_figure,
    privacy_figure,
    roc_figure,
    shadows_figure,
    sparsity_figure,
)
from reporting.proven_epsilon import proven_table
from reporting.retrainings import Retrained, retrained_attacks, retraining_figure, retraining_table
from reporting.signal_pictures import signal_figures
from reporting.summary import best_informed, headline_victims, network_accuracies, summarise
from reporting.tables import accuracy_table, change_table, measure_table, size_table
from reporting.untested import untested
from reporting.weighing import weigh, weighing_figure, weighing_point, weighing_table


def sections(table: pd.DataFrame) -> tuple[list[Section], pd.DataFrame, pd.DataFrame]:
    """A section for each data set, network and split; and the means they are made from.

    Args:
        table: of `summary.label_configurations`; rows without a value are those of equal scores.
    Returns:
        The sections, and of all of them `summary.summarise` and `summary.network_accuracies`.
    """
    silent = table[table["value"].isna()]
    measured = table[table["value"].notna()].reset_index(drop=True)
    summary, accuracies = summarise(measured), network_accuracies(measured)
    all_sections = []
    for key, rows in measured.groupby(SECTION, sort=False):
        mine = (
            other[(other[SECTION] == list(key)).all(axis=1)]
            for other in (summary, accuracies, silent)
        )
        all_sections.append(_section(rows, *mine, everything=table))
    return all_sections, summary, accuracies


def _section(
    rows: pd.DataFrame,
    summary: pd.DataFrame,
    accuracies: pd.DataFrame,
    silent: pd.DataFrame,
    *,
    everything: pd.DataFrame,
) -> Section:
    dataset, network, split = rows[SECTION].iloc[0]
    title = f"{dataset}, {network}" + (", in/out split" if split == "inout" else "")
    most = knowledge_in_words({"attacker_records": rows["attacker_records"].max()})
    title += f", attacker with {most}" if most else ""
    sizes = size_table(accuracies)
    section = Section(title, victims=[accuracy_table(accuracies), *([sizes] if sizes else [])])
    tried = pd.concat([rows, silent]) if len(silent) else rows
    informed, means = best_informed(rows), best_informed(summary)
    network_findings = findings(informed, means, accuracies)
    weighed = weigh(network_findings, informed)
    section.answer = answer(title, network_findings, untested(tried, everything))
    section.answer.points.insert(-1, weighing_point(weighed))
    section.measures += [
        measure_table(summary[summary["measure"] == measure], measure, silent)
        for measure in MEASURES
        if (summary["measure"] == measure).any()
    ]
    again = retrained_attacks(informed)
    more = (
        weighing_table(weighed),
        neighbour_table(informed, accuracies),
        proven_table(informed, accuracies),
        retraining_table(again),
    )
    section.victims += [table for table in more if table]
    changes = change_table(informed, original_of(informed, accuracies))
    section.measures += [changes] if changes else []
    if len(informed):
        front = weighing_figure(weighed, network_findings)
        _add_figures(section, informed, means, accuracies, again, front)
    return section


def _add_figures(
    section: Section,
    rows: pd.DataFrame,
    summary: pd.DataFrame,
    accuracies: pd.DataFrame,
    again: list[Retrained],
    front: Picture | None,
) -> None:
    # where the number of shadow models varies, figures show what most attacks were made with, or
    # else the most models
    numbers = rows.groupby("shadow_num")["attack"].nunique()
    usual = max(numbers.items(), key=lambda item: (item[1], item[0]))[0]
    # a figure's bars are of trainings where there is one split, see `wording.seeds_of`
    summary = summary.assign(sd=summary["sd"].fillna(summary["training_sd"]))
    main = summary[summary["shadow_num"] == usual]
    headline = headline_victims(main)
    beyond = beyond_guarantee(rows)
    rows = rows[rows["victim"].isin(headline)]
    for part in (
        sparsity_figure(main),
        roc_figure(rows, headline),
        low_fpr_figure(main, headline),
        *signal_figures(rows, headline),
        # of all victims, where there are not so many defences that these would crowd it
        front or privacy_figure(main, accuracies),
        epsilon_figure(main, beyond),
        shadows_figure(summary),
        retraining_figure(again, headline),
    ):
        if isinstance(part, str):
            section.absent.append(part)
        elif part is not None:
            section.pictures.append(part)
