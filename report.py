"""What attacks have found, to read and to look at: one page, the same as CSV and Markdown.

    python report.py results/
    python report.py results/ --study config/studies/location.json

Writes report.html (one file, images inside), report.csv, report.md and report_figures/ into the
results folder, of a study into its folder there. As a table in Python:
`report.load_results("results/")`.
"""

from __future__ import annotations

from core import console  # first, see core.interrupts

# isort: split

import argparse
import shlex
import sys
from pathlib import Path

from bench.command_line import Parser
from core.inputs import path_argument
from reporting.results import load_results
from studies.grid import read_about

__all__ = ["load_results", "main"]


@console.stage
def main(argv=None):
    parser = Parser(
        prog="report.py",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.HelpFormatter,
    )
    parser.add_argument("results", type=path_argument, help="folder of results, at any depth")
    study = "only what this study (see study.py) has made"
    parser.add_argument("--study", metavar="FILE", type=path_argument, help=study)
    out = "folder of what is written (default: that of the results)"
    parser.add_argument("--out", metavar="DIR", type=path_argument, help=out)
    options = parser.parse_args(argv)
    results, title, about = Path(options.results), "Membership inference", ""
    if options.study is not None:
        about = read_about(options.study)
        name = Path(options.study).stem
        results, title = results / name, f"{title}: {name}"
    words = ["python", "report.py", *(sys.argv[1:] if argv is None else argv)]
    from reporting.build import Report, write_report

    report = Report(results, title, about, shlex.join(map(str, words)))
    write_report(report, Path(options.out) if options.out is not None else results)


if __name__ == "__main__":
    sys.exit(main())
