"""What a report consists of, before it is rendered: tables, pictures, answers, sections."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """A cell of a table: text, what it is sorted by, and under the text how far it is to be trusted."""

    text: str
    key: float | str | None
    under: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table with one sentence or more on how to read it; the first column names the rows.

    `name` is what a switch between several tables calls it; `title` where there is no other.
    """

    title: str
    caption: str
    header: list[str]
    rows: list[list[Cell]]
    name: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure as a page shows it; `name` is that of its file, `png` its content."""

    name: str
    title: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Point:
    """A question answered: a lead on how, "" where that is plain, and what was found, a text each."""

    heading: str
    lead: str
    texts: list[str]


@dataclass(frozen=True)
class Answer:
    """What was found of a data set, network and split, in words and one table."""

    title: str
    points: list[Point]
    table: Table


@dataclass
class Section:
    """One data set, network and split.

    Attributes:
        answer: what was found, shown before all sections.
        pictures: the figures.
        absent: which figures are not there, and why.
        victims: the accuracy of the networks themselves, what they take, and the other tables that
            stand alone.
        measures: tables of the same rows and columns, of which a page shows one at a time.
    """

    title: str
    answer: Answer | None = None
    pictures: list[Picture] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    victims: list[Table] = field(default_factory=list)
    measures: list[Table] = field(default_factory=list)

    @property
    def tables(self) -> list[Table]:
        """All tables of the section but the answer's."""
        return self.victims + self.measures


@dataclass(frozen=True)
class Page:
    """A whole report: `command` made it from `facts`; `notes` say what was left out."""

    title: str
    about: str
    command: str
    facts: str
    notes: list[str]
    sections: list[Section]
