"""A report as one HTML file and as Markdown, by the templates beside this module."""

from __future__ import annotations

import base64
import datetime
import functools
import html
from pathlib import Path

import jinja2

from reporting.document import Cell, Page

_TEMPLATES = Path(__file__).parent / "templates"


def as_html(page: Page) -> str:
    """The page, all in one file: style, script and images are inside."""
    now = datetime.datetime.now(datetime.UTC)
    return (
        environment(_TEMPLATES)
        .get_template("page.html.j2")
        .render(
            page=page,
            when=now.isoformat(sep=" ", timespec="minutes")[:16],
            style=(_TEMPLATES / "page.css").read_text(encoding="utf-8"),
            script=(_TEMPLATES / "page.js").read_text(encoding="utf-8"),
        )
    )


def as_markdown(page: Page) -> str:
    """The same in Markdown; images are links to report_figures/, see `figure_name`."""
    text = environment(_TEMPLATES).get_template("report.md.j2").render(page=page)
    # a template leaves blank lines where a part is empty
    parts = [part.strip("\n") for part in text.split("\n\n")]
    return "\n\n".join(part for part in parts if part) + "\n"


def figure_name(number: int, name: str) -> str:
    """The file of a figure of the section of this number, from 1."""
    return f"{number}_{name}.png"


@functools.cache
def environment(templates: Path) -> jinja2.Environment:
    """What renders the templates of a folder; those of HTML escape all that they are given."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = {"base64": _base64, "plain": _plain, "lines": _lines, "key": _key, "cell": _cell}
    environment.filters |= filters
    environment.globals["figure_name"] = figure_name
    return environment


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _lines(under: str) -> list[str]:
    """The lines under a cell's text, which are not to be broken after ± and around =."""
    for words in ("± ", "n = "):
        under = under.replace(words, words.replace(" ", "\N{NO-BREAK SPACE}"))
    return under.split("; ")


def _key(cell: Cell) -> str:
    """What a cell is sorted by."""
    return "" if cell.key is None else str(cell.key)


def _plain(text: str) -> str:
    """Text that Markdown takes as it stands, in a table too."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def _cell(cell: Cell) -> str:
    """A cell in a table of Markdown."""
    text = _plain(cell.text) + (f" {_plain(cell.under)}" if cell.under else "")
    return f"**{text}**" if cell.best else text
