"""What lies in folders of results, for who reads them without options."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.attack_lines import (
    has_present_intervals,
    is_of_present_definition,
    names_of_arrays,
    read_lines,
    remeasured,
)
from bench.guesses import GUESSES
from bench.layout import (
    ATTACKS,
    MANIFEST,
    NAMED_AFTER,
    SCORES,
    WEIGHTS,
    is_victim_folder,
    outputs_file,
    results_around,
    roots_of,
    victim_folders,
)
from bench.matchup import Matchup
from bench.options import OPTIONS, Options
from core.console import UserError
from core.files import read_arrays, read_sealed


@dataclass(frozen=True, eq=False)
class VictimResults:
    """What lies in the folder of a victim.

    Attributes:
        folder: of the victim.
        lines: what attacks on the models that lie there now have found, an object a verdict.
        stale: how many more lines there are, on models that are gone or have been made anew, or by
            another definition of the attack.
        manifest: of the victim; {} where it is not finished, or cannot be read.
        unmeasured: how many more lines there are, with intervals by an older method, whose scores
            are gone.
        problems: what of its files was left out, and why; more is added when they are read.
    """

    folder: Path
    lines: list[dict]
    stale: int
    manifest: dict
    unmeasured: int = 0
    problems: list[str] = field(default_factory=list)

    def add_problem(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    @functools.cached_property
    def scores(self) -> dict[str, np.ndarray]:
        """The arrays of scores.npz, see `names_of_arrays`; {} where it cannot be read."""
        try:
            return read_arrays(self.folder / SCORES)[1]
        except UserError as error:
            self.add_problem(_without_remedy(error))
            return {}

    def truth(self, line: dict) -> dict[str, np.ndarray] | None:
        """The `records`, `labels` and `member` (n,) of a line's targets, their `scores` and the
        `threshold`; None where scores.npz lacks them."""
        scores, threshold, *rest = names_of_arrays(line)
        if not {scores, threshold, *rest} <= set(self.scores):
            if self.scores:
                path = self.folder / SCORES
                self.add_problem(f"{path} lacks the scores of {line['attack']}")
            return None
        return {name.split("_")[0]: self.scores[name] for name in rest} | {
            "scores": self.scores[scores],
            "threshold": self.scores[threshold],
        }

    def outputs(self, what: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Numbers of the records asked for (N,) and the victim's outputs (N, C); None where there
        are none of this victim, or from before the numbers were kept, or that can be read."""
        path = self.folder / outputs_file(what)
        if not os.path.exists(path):
            return None
        try:
            facts, arrays = read_arrays(path)
        except UserError as error:
            self.add_problem(_without_remedy(error))
            return None
        current = facts.get("model") == self.manifest.get("files", {}).get(WEIGHTS)
        complete = {"records", "answers"} <= set(arrays)
        return (arrays["records"], arrays["answers"]) if current and complete else None


def find_results(results: Path, *, unreadable: list[str] | None = None) -> list[VictimResults]:
    """All victims below a folder, at any depth, those not attacked yet included, or the one whose
    folder it is.

    Args:
        unreadable: what cannot be read of the folders below is added to it.
    Raises UserError where there is no such folder.
    """

    def fail(error: OSError):
        problem = f"cannot read {error.filename}: {error.strerror}"
        if Path(error.filename) == results:
            around = results_around(results) or "that of --results"
            raise UserError(f"{problem}: name a folder of results, such as {around}") from error
        if unreadable is not None:
            unreadable.append(problem)

    if is_victim_folder(results):
        return [_results_in(results)]
    roots: set[Path] = set()
    for folder, _, files in os.walk(results, onerror=fail):
        roots.update(roots_of(files, Path(folder), results))
    return [_results_in(folder) for root in sorted(roots) for folder in victim_folders(root)]


def _without_remedy(error: UserError) -> str:
    """What cannot be read and why; not that it be removed, which is for a stage that makes it
    anew."""
    return str(error).partition(": it is damaged")[0]


def _results_in(folder: Path) -> VictimResults:
    """What lies in a victim's folder."""
    manifest, problems = _manifest_in(folder)
    lines, stale, more = _current_lines(folder)
    problems += more
    try:
        measured, lost = remeasured(lines, folder / SCORES)
    except UserError as error:
        measured = [line for line in lines if has_present_intervals(line)]
        lost = [line for line in lines if not has_present_intervals(line)]
        problems.append(_without_remedy(error))
    return VictimResults(folder, measured, stale, manifest, len(lost), problems)


def _manifest_in(folder: Path) -> tuple[dict, list[str]]:
    """The manifest, {} where there is none or it cannot be read, and what is wrong with it."""
    path = folder / MANIFEST
    try:
        manifest = read_sealed(path) if os.path.exists(path) else {}
    except UserError as error:
        return {}, [_without_remedy(error)]
    if not all(isinstance(manifest.get(name) or {}, dict) for name in ("files", "privacy")):
        return {}, [f"{path} is of another version"]
    return manifest, []


def _current_lines(folder: Path) -> tuple[list[dict], int, list[str]]:
    """The lines of attacks on the models that lie there now, how many more there are, and what of
    the file cannot be read."""
    path, problems = folder / ATTACKS, []
    try:
        lines, problem = read_lines(path)
    except UserError as error:
        return [], 0, [_without_remedy(error)]
    if problem:
        problems.append(f"of {path}: {problem}")
    is_current, current = _currency(folder), []
    stale = 0
    for line in lines:
        try:
            fits = is_current(line)
        except UserError as error:
            problem = f"results in {folder}: {_without_remedy(error)}"
        except (KeyError, TypeError, ValueError, AttributeError):
            problem = f"{path}: results of another version"
        else:
            current += [line] if fits else []
            stale += not fits
            continue
        if problem not in problems:
            problems.append(problem)
    return current, stale, problems


def _currency(folder: Path) -> Callable[[dict], bool]:
    """A function that tells whether a line is about the models that lie there now, by the present
    definition of its attack; what it reads of the models it reads once."""
    root = Path(os.path.abspath(folder)).parent
    names = ("dataset_name", "model_name", "shadow_num", *NAMED_AFTER, *GUESSES)

    @functools.cache
    def digests_now(values: tuple) -> tuple[str | None, str | None]:
        matchup = Matchup.of(Options(stage="mia", **dict(values))).moved_to(root)
        return matchup.stored_digest(), matchup.stored_releases()

    def is_current(line: dict) -> bool:
        values = tuple((name, line.get(name, OPTIONS[name].default)) for name in names)
        values += tuple((name, line[name]) for name in ("original", "adaptive"))
        values += (("also", tuple(line.get("also", ()))),)
        said = line["models"], line.get("releases")
        return is_of_present_definition(line) and digests_now(values) == said

    return is_current
