"""attacks.jsonl and scores.npz: their format, and what of them counts today."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from attackers import Verdict
from attackers import version as attack_version
from attackers.metrics import INTERVALS, measures
from core.console import UserError
from core.files import read_arrays, sealed, tested, user_error_if_damaged, write


def read_lines(path: Path) -> tuple[list[dict], str]:
    """What can be read of an attacks.jsonl, [] where there is none, and what is wrong with the rest
    of it, "" where nothing is. Lines from before there were scores are left out.

    Raises UserError where nothing can be read at all.
    """
    if not os.path.exists(path):
        return [], ""
    with user_error_if_damaged(path):
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    lines, damaged = [], []
    for number, text in enumerate(texts, 1):
        try:
            lines.append(tested(text))
        except (ValueError, KeyError, TypeError, AttributeError):
            damaged.append(str(number))
    # each says how many there are
    counts = [line.pop("lines", None) for line in lines]
    problem = "" if lines and set(counts) == {len(texts)} else "lines are missing"
    if damaged:
        numbers = f"line{'s' * (len(damaged) > 1)} {', '.join(damaged)}"
        problem = f"{numbers} damaged or of another program"
    return [line for line in lines if "targets" in line], problem


def read_whole_lines(path: Path) -> list[dict]:
    """The lines of an attacks.jsonl; [] where there is none. Raises UserError where one is damaged
    or missing."""
    lines, problem = read_lines(path)
    if problem:
        raise UserError(
            f"cannot read {path}: {problem}: mia.py --fresh makes its attacks anew and keeps the "
            f"lines that can be read"
        )
    return lines


def write_lines(path: Path, lines: list[dict]) -> None:
    # each says how many there are, so that a file that was cut between two is noticed
    text = "".join(json.dumps(sealed(line | {"lines": len(lines)})) + "\n" for line in lines)
    write(path, text.encode())


def read_scores(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a scores.npz; {} where there is none. Raises UserError where it is damaged."""
    return read_arrays(path)[1] if os.path.exists(path) else {}


def names_of_arrays(line: dict) -> list[str]:
    """What an attack's line refers to in scores.npz: its scores, the threshold, and the records,
    labels and membership of its targets."""
    scores, targets = line["scores"], line["targets"]
    truth = (f"{name}_{targets}" for name in ("records", "labels", "member"))
    return [scores, f"{scores}_threshold", *truth]


def name_with_releases(attack: str, also: Iterable[str]) -> str:
    """An attack, and the other releases that it had."""
    return " + ".join([attack, *also])


def is_of_present_definition(line: dict) -> bool:
    """Whether a line was made by the present definition of its attack."""
    return line.get("version", 1) == attack_version(line["attack"])


def has_present_intervals(line: dict) -> bool:
    """Whether the intervals of a line's measures are by the present methods."""
    return line.get("intervals") == INTERVALS


def remeasured(lines: list[dict], scores_file: Path) -> tuple[list[dict], list[dict]]:
    """Lines whose intervals are all by the present methods, and those that cannot be had so.

    A line with intervals by older methods gets its measures anew from its scores, threshold and
    truth, with no attack made again. Where these are gone from `scores_file`, that is not possible.

    Raises UserError where `scores_file` is needed and damaged.
    """
    if all(map(has_present_intervals, lines)):
        return lines, []
    arrays = read_scores(scores_file)
    current, lost = [], []
    for line in lines:
        if has_present_intervals(line):
            current.append(line)
        elif set(names_of_arrays(line)) <= arrays.keys():
            scores, threshold, _, labels, member = (arrays[name] for name in names_of_arrays(line))
            verdict, num_cls = Verdict(scores, threshold), len(line["class_accuracy"])
            current.append(line | measures(verdict, member, labels, num_cls=num_cls))
        else:
            lost.append(line)
    return current, lost
