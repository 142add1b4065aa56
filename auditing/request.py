"""What is asked of an audit, however the model's answers come about."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from attackers import ATTACKS
from auditing.gate import GUESSING, Gate, read_gate
from auditing.weaknesses import Weakness
from bench.options import OPTIONS
from core.console import UserError
from core.inputs import check_folder, path_argument

QUICK, ALL = "quick", "all"


@dataclass(frozen=True)
class Settings:
    """What the options of every kind of audit say.

    Attributes:
        out: folder of what is written.
        attacks: names, `quick` or `all`, see `auditing.attacks.make_attacks`.
        seed: of the attacks' randomness and of the resampling.
    """

    out: Path
    gates: tuple[Gate, ...]
    attacks: tuple[str, ...]
    seed: int


@dataclass(frozen=True)
class Request:
    """An audit that is asked for.

    Attributes:
        title, source, files: as of `result.Subject`.
        command: what makes it again.
        weaknesses: what is known to be weak beside what the answers show.
    """

    settings: Settings
    title: str
    source: Literal["answers", "model"]
    files: dict[str, str]
    command: str
    weaknesses: tuple[Weakness, ...] = ()


def printable(text: str) -> str:
    """The text with `?` for what no file can hold: half characters of foreign paths, and controls."""
    return "".join(one if one.isprintable() else "?" for one in text)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every kind of audit."""
    out = "folder of audit.html, audit.json, audit.xml and records.csv (default: audit)"
    parser.add_argument("--out", metavar="DIR", type=path_argument, default="audit", help=out)
    parser.add_argument(
        "--gate",
        metavar="TEXT",
        action="append",
        default=[],
        help=f"what must hold, such as auc<=0.6 or tpr_at_0.01<0.03; as often as wanted (measures: "
        f"{', '.join(GUESSING)})",
    )
    attacks = (
        f"names, separated by commas; {QUICK}: all but those that train networks or forests for "
        f"minutes; {ALL}: those too (default: {QUICK})"
    )
    parser.add_argument("--attacks", metavar="NAMES", default=QUICK, help=attacks)
    seed = OPTIONS["seed"].default
    about = f"of attacks that draw (default: {seed}, as mia.py's --train_seed)"
    parser.add_argument("--seed", type=int, default=seed, help=about)
    parser.add_argument("--title", help="what the audit is called (default: its file)")


def options_of(given: argparse.Namespace) -> Settings:
    """The settings of a command line. Raises UserError where one is wrong."""
    check_folder("--out", given.out)
    gates = tuple(map(read_gate, given.gate))
    names = tuple(filter(None, given.attacks.split(",")))
    checked = tuple(name if name in (QUICK, ALL) else ATTACKS.check(name) for name in names)
    if not checked:
        raise UserError(f"--attacks names none: {QUICK}, {ALL} or names separated by commas")
    if not 0 <= given.seed < 2**32:
        raise UserError(f"--seed must be from 0 to 2^32 - 1, not {given.seed}")
    return Settings(Path(given.out), gates, checked, given.seed)
