"""An audit as a page to be read on a screen and printed on two sheets."""

from __future__ import annotations

from pathlib import Path

from auditing import figures, statements, tables, wording
from auditing.result import Audit, Outcome
from core.files import write
from reporting.columns import MEASURES
from reporting.document import Picture
from reporting.page import environment

AUDIT_PAGE = "audit.html"
_TEMPLATES = Path(__file__).parent / "templates"
# a mark beside the word, so that no outcome is told by its colour alone
MARKS: dict[Outcome | None, tuple[str, str]] = {
    "pass": ("\N{CHECK MARK}", "Pass"),
    "fail": ("\N{MULTIPLICATION X}", "Fail"),
    "inconclusive": ("?", "Inconclusive"),
    None: ("\N{EN DASH}", "Not decided"),
}


def write_page(audit: Audit, out: Path) -> None:
    """Write audit.html into a folder: style and images are inside."""
    write(out / AUDIT_PAGE, as_html(audit).encode())


def as_html(audit: Audit) -> str:
    """The page in one text."""
    strongest = None if audit.strongest is None else audit.attacks[audit.strongest]
    key_figures = [
        (wording.title(measure), estimate, measure)
        for measure in MEASURES
        if strongest and (estimate := strongest.estimate(measure))
    ]
    groups = {kind: tables.group_table(audit, kind) for kind in ("group", "class")}
    return (
        environment(_TEMPLATES)
        .get_template("audit.html.j2")
        .render(
            audit=audit,
            subject=audit.subject,
            strongest=strongest,
            key_figures=key_figures,
            marks=MARKS,
            words=wording,
            statements=statements,
            pictures=pictures(audit),
            attacks=tables.attacks_table(audit) if audit.attacks else None,
            remarks=tables.remarks(audit),
            untested=tables.untested(audit),
            comparisons=tables.comparison_table(audit),
            groups={kind: found for kind, found in groups.items() if any(found)},
            records=tables.record_table(audit),
            style=(_TEMPLATES / "audit.css").read_text(encoding="utf-8"),
        )
    )


def pictures(audit: Audit) -> list[Picture]:
    """The ROC of the strongest attack and some others, and the strongest one's scores."""
    found, member = [], audit.records.member
    if chosen := figures.curves(audit):
        what = "; ".join(f"{one.label} {one.attack.measures['auc']:.3f}" for one in chosen)
        found.append(
            Picture(
                "roc",
                f"ROC curves on logarithmic axes, beside the line of guessing. AUC: {what}.",
                "How many members are named (up) at how many false alarms (right). Both axes are "
                "logarithmic: the left half is what counts for a person who can be named with "
                "confidence. Grey: too few non-members to tell.",
                figures.roc(chosen, member, audit.smallest_fpr),
            )
        )
    if audit.strongest is not None:
        attack = audit.attacks[audit.strongest]
        found.append(
            Picture(
                "scores",
                f"Histogram of the scores of {attack.name}: shares of the members and of the "
                "non-members.",
                "The more the two overlap, the less is given away."
                + figures.histogram_note(attack),
                figures.score_histogram(attack, member),
            )
        )
    return found
