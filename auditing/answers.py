"""Audit a model from its answers, whatever made it.

python audit.py answers evidence.npz --out audit/ --gate "auc<=0.6" --gate "tpr_at_0.01<=0.03"
python audit.py answers --labels y.csv --victim p.csv --member m.csv --out audit/

Arrays of N records, C classes and S shadow models, in one .npz file, or in CSV files that have a row
a record, with or without a header; docs/audit.md says more of each.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from auditing.evidence_file import ARRAYS, OUTPUTS, read_csv, read_npz
from auditing.request import Request, add_options, options_of, printable
from bench.command_line import Parser
from core.console import UserError
from core.files import file_digest
from core.inputs import path_argument

_SEVERAL = ("shadows", "original_shadows")


def main(argv: list[str] | None = None) -> int:
    """The exit status, see `auditing.gate.STATUS`."""
    argv = sys.argv[1:] if argv is None else argv
    given = _parser().parse_args(argv)
    settings = options_of(given)
    paths = _csv_paths(given)
    if (given.evidence is None) == (not paths):
        raise UserError(
            "name an .npz file, or CSV files of the arrays: `audit.py answers evidence.npz --out "
            "audit/` (see audit.py answers --help)"
        )
    if given.evidence is not None:
        found, files = read_npz(Path(given.evidence)), [Path(given.evidence)]
    else:
        found = read_csv(paths, logits=given.logits)
        files = [path for several in paths.values() for path in several]
    from auditing.given import checked
    from auditing.run import run

    request = Request(
        settings,
        title=printable(given.title or _title(files)),
        source="answers",
        files={printable(str(path)): file_digest(path) for path in files},
        command=printable(shlex.join(["python", "audit.py", "answers", *argv])),
    )
    return run(checked(found), request)


def _parser() -> Parser:
    parser = Parser(prog="audit.py answers", description=__doc__)
    parser.add_argument("evidence", nargs="?", type=path_argument, help=".npz file of the arrays")
    add_options(parser)
    tables = parser.add_argument_group("arrays, each in the .npz file or as a CSV file")
    for name, about in ARRAYS.items():
        files = "FILE,FILE" if name in _SEVERAL else "FILE"
        tables.add_argument(f"--{name}", metavar=files, type=path_argument, help=about)
    names = ", ".join(OUTPUTS)
    tables.add_argument("--logits", action="store_true", help=f"of CSV files: {names} are logits")
    return parser


def _csv_paths(given: argparse.Namespace) -> dict[str, list[Path]]:
    """The CSV files that are named, by the name of their array."""
    named = {name: getattr(given, name) for name in ARRAYS if getattr(given, name) is not None}
    return {
        name: [Path(path) for path in (text.split(",") if name in _SEVERAL else [text])]
        for name, text in named.items()
    }


def _title(files: list[Path]) -> str:
    return files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more files"
