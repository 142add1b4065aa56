"""The log of attacks on a victim: what has been done, and what it found."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attackers import ATTACKS, OPTION_NAMES, VERDICTS, Verdict, registered_position
from attackers import version as attack_version
from bench.attack_lines import (
    has_present_intervals,
    is_of_present_definition,
    names_of_arrays,
    read_lines,
    read_scores,
    read_whole_lines,
    remeasured,
    write_lines,
)
from bench.checkpoints import Checkpoint
from bench.layout import ATTACKS as ATTACKS_FILE
from bench.layout import SCORES
from bench.matchup import Matchup
from bench.options import OPTIONS, Options
from bench.remedies import or_fresh
from bench.views import takes_views
from core.console import UserError, say
from core.files import array_digest, packed_arrays, write


@dataclass(frozen=True)
class Finding:
    """What an attack found.

    Attributes:
        attack: its name.
        verdicts: by name.
        measures: of each verdict, see `metrics.measures`.
        targets: the targets' `records`, `labels` and `member`, (n,).
        device: where it was made.
    """

    attack: str
    verdicts: dict[str, Verdict]
    measures: dict[str, dict]
    targets: dict[str, np.ndarray]
    device: str


@dataclass(frozen=True)
class AttackLog:
    """The attacks on the victim of a matchup.

    Attributes:
        models: `matchup_digest` of the models under attack and the attacker's.
        releases: `releases_digest` of the other versions that the attacker holds; None of none.
    """

    matchup: Matchup
    models: str | None
    releases: str | None = None

    @property
    def options(self) -> Options:
        return self.matchup.options

    @property
    def path(self) -> Path:
        return self.matchup.victim_folder / ATTACKS_FILE

    @property
    def scores_path(self) -> Path:
        return self.matchup.victim_folder / SCORES

    def lock_of(self, attack: str):
        """Hold the lock of an attack on this victim."""
        words = [attack, *["adaptive"] * self.options.adaptive, *self.options.guess.values()]
        return self.matchup.victim.lock("victim", "_".join(map(str, words)))

    def lines(self) -> list[dict]:
        """What has been found of just these models, with the options of attacks as they are now,
        all by the present definitions of attacks and intervals."""
        names = (*OPTION_NAMES, "train_seed", "threads")
        now = {name: self.options.record[name] for name in names}

        def is_now(line: dict) -> bool:
            # from before its attack took several queries, a line does not name the option
            one = {"queries": 1} if takes_views(VERDICTS.get(line["attack"], "")) else {}
            return all((one | line).get(name, value) == value for name, value in now.items())

        return list(filter(is_now, self._of_these_models()))

    def done_attacks(self, attacks: Iterable[str]) -> list[str]:
        """Those attacks of which all verdicts are recorded of these models and options, and their
        scores."""
        with or_fresh():
            scores = set(read_scores(self.scores_path))
            lines = [
                line for line in self._of_these_models() if set(names_of_arrays(line)) <= scores
            ]

        def is_complete(attack: str) -> bool:
            options = self._options_of(attack)
            verdicts = {verdict for verdict, of in VERDICTS.items() if of == attack}
            return verdicts <= {line["attack"] for line in lines if _has_options(line, options)}

        return [attack for attack in attacks if is_complete(attack)]

    def record(self, finding: Finding, victim: Checkpoint) -> Path:
        """Write what an attack on a victim found: a line for each verdict, in place of that of the
        same options.

        A line is an object: `attack`, its measures, the settings that were `chosen` on the shadow
        models, the victim's `train_accuracy` and `test_accuracy`, the digest of all `models`, the
        device, all options, those of training as they were then, what its arrays in scores.npz are
        called after (their content), and the digest of all that.
        """
        new, arrays = self._lines_of(finding, victim)
        options = self._options_of(finding.attack)
        with self.matchup.victim.lock("victim", "attacks", wait=60):
            stored, before = self._before()
            # first the scores, those of lines that go now included: at no time is a line without
            used = {name for line in before for name in names_of_arrays(line)}
            arrays |= {name: array for name, array in stored.items() if name in used - set(arrays)}
            write(self.scores_path, packed_arrays({}, dict(sorted(arrays.items()))))
            others = [
                line
                for line in before
                if set(names_of_arrays(line)) <= set(arrays)
                and not (line["attack"] in finding.verdicts and _has_options(line, options))
            ]
            lines = sorted([*new, *others], key=_order)  # whichever was finished first
            write_lines(self.path, lines)
        return self.path

    def update_measures(self) -> int:
        """Write anew the measures whose intervals are by an older method (see `remeasured`).

        Returns how many lines these were. Lines that cannot be measured any more stay as they are,
        and nobody reads them.
        """
        if self.options.fresh:  # `record` keeps what can be read of a damaged file
            return 0
        with or_fresh():
            before = read_whole_lines(self.path)
        if all(map(has_present_intervals, before)):
            return 0
        with self.matchup.victim.lock("victim", "attacks", wait=60):
            before = read_whole_lines(self.path)
            lines, lost = remeasured(before, self.scores_path)
            updated = sum(not has_present_intervals(line) for line in before) - len(lost)
            if updated:
                write_lines(self.path, lines + lost)
        return updated

    def _of_these_models(self) -> list[dict]:
        lines = [line for line in read_whole_lines(self.path) if is_of_present_definition(line)]
        current, _ = remeasured(lines, self.scores_path)
        held = {(): None, self.options.also: self.releases}  # by what lines say of it
        return [
            line
            for line in current
            if line["models"] == self.models
            # a defence may change what the same weights answer
            and line.get("adaptive", False) == self.options.adaptive
            and line.get("releases") == held.get(tuple(line.get("also", ())), "unknown")
        ]

    def _lines_of(
        self, finding: Finding, victim: Checkpoint
    ) -> tuple[list[dict], dict[str, np.ndarray]]:
        """A line for each verdict, and the arrays that these refer to."""
        targets = array_digest(*finding.targets.values())[:8]
        arrays = {f"{name}_{targets}": array for name, array in finding.targets.items()}
        where = {name: getattr(self.options, name) for name in ("attacks", "data_root", "results")}
        options = {
            name: value for name, value in victim.options.items() if name not in OPTION_NAMES
        }
        options |= self._options_of(finding.attack) | where | {"device": finding.device}
        lines = []
        for name, verdict in finding.verdicts.items():
            scores = [verdict.scores, np.asarray(verdict.threshold)]
            key = f"{name}_{array_digest(*scores)[:8]}"
            arrays |= {key: scores[0], f"{key}_threshold": scores[1]}
            line = {"attack": name, "version": attack_version(name), **finding.measures[name]}
            line |= {"chosen": verdict.chosen} if verdict.chosen else {}
            line |= {f"{part}_accuracy": victim.accuracy[part] for part in ("train", "test")}
            line |= {"models": self.models, "scores": key, "targets": targets}
            line |= {"releases": self.releases} if options.get("also") else {}
            lines.append(line | options)
        return lines, arrays

    def _before(self) -> tuple[dict[str, np.ndarray], list[dict]]:
        """What scores.npz and attacks.jsonl hold, lines by older definitions of their attacks
        included; where the options say `fresh`, as much of it as can be read."""
        if not self.options.fresh:
            lines = read_whole_lines(self.path)
            return read_scores(self.scores_path), remeasured(lines, self.scores_path)[0]
        scores: dict[str, np.ndarray] = {}
        try:
            scores = read_scores(self.scores_path)
        except UserError:
            say(f"{self.scores_path}: replaced, as it cannot be read")
        lines, problem = read_lines(self.path)
        if problem:
            say(f"{self.path}: replaced, with the lines that can be read ({problem})")
        return scores, lines

    def _options_of(self, attack: str) -> dict:
        """The options that an attack's result depends on."""
        others = set(OPTION_NAMES) - set(ATTACKS[attack].options.get("option_names", ()))
        options = {
            name: value
            for name, value in self.options.record.items()
            if "mia" in OPTIONS[name].stages and name not in others
        }
        return options | dict.fromkeys(self.matchup.victim.meaningless)


def _has_options(line: dict, options: dict) -> bool:
    """Whether a line was made with these options."""
    return all(
        line.get(name, OPTIONS[name].when_missing if value is not None else None) == value
        for name, value in options.items()
    )


def _order(line: dict) -> tuple[int, str]:
    return registered_position(line["attack"]), json.dumps(line)
