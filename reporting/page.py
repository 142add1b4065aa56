"""A report's page: tables and figures in, one HTML file or Markdown out."""

from __future__ import annotations

import base64
import datetime
import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reporting.figures import Picture


@dataclass(frozen=True)
class Cell:
    """A cell of a table: text, what it is sorted by, and under the text how far it is to be trusted."""

    text: str
    key: float | str | None
    under: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    title: str
    caption: str
    header: list[str]
    rows: list[list[Cell]]


@dataclass
class Section:
    """One data set, network and split."""

    title: str
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)  # which figures are not there, and why


def as_markdown(*, title, about, command, facts, notes, sections) -> str:
    def plain(text: str) -> str:
        return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")

    def cell(of: Cell) -> str:
        text = plain(of.text) + (f" {of.under}" if of.under else "")
        return f"**{text}**" if of.best else text

    parts = [
        f"# {plain(title)}",
        plain(about),
        f"`{command}`: {plain(facts)}.",
        *(f"- left out: {plain(note)}" for note in notes),
    ]
    for number, one in enumerate(sections, 1):
        parts.append(f"## {plain(one.title)}")
        for table in one.tables:
            rows = [
                " | ".join(map(plain, table.header)),
                "|".join(["---"] * len(table.header)),
                *(" | ".join(map(cell, row)) for row in table.rows),
            ]
            parts += [
                f"### {table.title}",
                plain(table.caption),
                "\n".join(f"| {row} |" for row in rows),
            ]
        for drawn in one.pictures:
            parts += [
                f"### {drawn.title}",
                f"![{drawn.title}](report_figures/{number}_{drawn.name}.png)",
                f"{plain(drawn.caption)} Made by `{command}`.",
            ]
        parts += [plain(absent) for absent in one.absent]
    return "\n\n".join(part for part in parts if part) + "\n"


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 900px; margin: 0 auto; padding: 1em; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5em; border-bottom: 1px solid #ccc; }
.scroll { overflow-x: auto; } img { width: 864px; min-width: 640px; max-width: 100%; height: auto; display: block; }
figure { margin: 0 0 2em; } figcaption, .caption, .facts { color: #444; font-size: 14px; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-size: 13px; margin: .5em 0 1em; font-variant-numeric: tabular-nums; }
th, td { padding: .25em .45em; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; min-width: 9em; }
th button { font: inherit; font-weight: 600; border: 0; background: none; padding: 0; cursor: pointer; color: inherit; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
tbody tr:hover td { background: #f4f4f4; }
td small { display: block; color: #555; font-size: 11px; white-space: nowrap; }
td b { font-weight: 800; } code { background: #f4f4f4; overflow-wrap: anywhere; }
"""
SORT = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const th = button.parentElement, table = th.closest("table"), body = table.tBodies[0];
  const column = th.cellIndex, down = th.getAttribute("aria-sort") === "ascending";
  for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
  th.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = row => row.cells[column].dataset.key;
  const order = (a, b) => {
    if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");  // what is not there comes last
    const numbers = key(a) - key(b);
    return (down ? -1 : 1) * (isNaN(numbers) ? key(a).localeCompare(key(b), "en", {numeric: true}) : numbers);
  };
  body.append(...[...body.rows].sort(order));
});
"""


def as_html(*, title, about, command, facts, notes, sections) -> str:
    """The page, all in one file."""
    text = html.escape
    when = datetime.datetime.now(datetime.UTC).isoformat(sep=" ", timespec="minutes")[:16]
    contents = "".join(
        f'<li><a href="#s{number}">{text(one.title)}</a><ul>'
        + "".join(
            f'<li><a href="#s{number}-{place}">{text(part.title)}</a></li>'
            for place, part in enumerate([*one.tables, *one.pictures])
        )
        + "</ul></li>"
        for number, one in enumerate(sections, 1)
    )
    body = "".join(html_section(number, one, command) for number, one in enumerate(sections, 1))
    left = "".join(f"<li>left out: {text(note)}</li>" for note in notes)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title><link rel="icon" href="data:,"><style>{STYLE}</style></head><body>
<h1>{text(title)}</h1>
<p>{text(about)}</p>
<p class="facts">Made on {when} UTC by <code>{text(command)}</code> from {text(facts)}. Tables are sorted by a click on
a column's head.</p>
{f'<ul class="facts">{left}</ul>' if left else ""}
<nav><h2>Contents</h2><ul>{contents}</ul></nav>
{body}
<script>{SORT}</script></body></html>
"""


def html_section(number: int, one: Section, command: str) -> str:
    parts = [f'<section><h2 id="s{number}">{html.escape(one.title)}</h2>']
    parts += [html_table(f"s{number}-{place}", table) for place, table in enumerate(one.tables)]
    for place, drawn in enumerate(one.pictures, len(one.tables)):
        image = base64.b64encode(drawn.png).decode()
        parts.append(
            f'<h3 id="s{number}-{place}">{html.escape(drawn.title)}</h3><figure><div class="scroll">'
            f'<img src="data:image/png;base64,{image}" alt="{html.escape(drawn.title)}"></div><figcaption>'
            f"{html.escape(drawn.caption)} Made by <code>{html.escape(command)}</code>.</figcaption></figure>"
        )
    parts += [f'<p class="caption">{html.escape(absent)}</p>' for absent in one.absent]
    return "\n".join([*parts, "</section>"])


def html_table(anchor: str, table: Table) -> str:
    def cell(of: Cell) -> str:
        shown = f"<b>{html.escape(of.text)}</b>" if of.best else html.escape(of.text)
        under = f"<small>{html.escape(of.under).replace('; ', ';<br>')}</small>" if of.under else ""
        return f'<td data-key="{"" if of.key is None else html.escape(str(of.key))}">{shown}{under}</td>'

    head = "".join(
        f'<th scope="col"><button type="button">{html.escape(name)}</button></th>'
        for name in table.header
    )
    rows = "\n".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in table.rows)
    return (
        f'<h3 id="{anchor}">{html.escape(table.title)}</h3><p class="caption">{html.escape(table.caption)}</p>'
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>'
    )
