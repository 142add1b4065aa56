"""A report of a folder of results: read, compared and written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core import console
from bench.layout import REPORT, REPORT_FIGURES
from bench.results import find_results
from core.console import UserError
from core.files import write
from reporting.document import Page
from reporting.page import as_html, as_markdown, figure_name
from reporting.results import problems_of, results_table, skipped, where_results_are
from reporting.sections import sections
from reporting.summary import csv_text, label_configurations
from reporting.wording import facts


@dataclass(frozen=True)
class Report:
    """What a report is to be made of: all below `results`, headed and described, by this command."""

    results: Path
    title: str
    about: str
    command: str


def write_report(report: Report, out: Path) -> None:
    """Write report.html, report.csv, report.md and report_figures/ into a folder, and say so.

    Raises UserError where there are no results that say anything.
    """
    notes: list[str] = []
    victims = find_results(report.results, unreadable=notes)
    table = results_table(victims, report.results)
    notes += skipped(victims, report.results)
    if table["value"].isna().all():
        what = (
            f"{report.results}: all targets have the same score in every attack there, which says "
            "nothing"
            if len(table)
            else f"{report.results} holds no results of attacks: {where_results_are(report.results)}"
        )
        raise UserError(what + "".join(f"; {note}" for note in notes))
    table, doubles = label_configurations(table)
    made, summary, accuracies = sections(table)
    # figures read more files, of which more can be damaged
    notes = list(dict.fromkeys([*notes, *doubles, *problems_of(victims)]))
    for note in notes:
        console.say(f"left out: {note}")
    words = facts(table[table["value"].notna()])
    page = Page(report.title, report.about, report.command, words, notes, made)
    pictures = [
        (figure_name(number, picture.name), picture.png)
        for number, section in enumerate(made, 1)
        for picture in section.pictures
    ]
    for name, png in pictures:
        write(out / REPORT_FIGURES / name, png)
    write(out / f"{REPORT}.csv", csv_text(summary, accuracies).encode())
    write(out / f"{REPORT}.md", as_markdown(page).encode())
    write(out / f"{REPORT}.html", as_html(page).encode())
    console.say(
        f"saved {out / 'report.html'}, report.csv, report.md and {len(pictures)} figures: {words}"
    )
