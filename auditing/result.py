"""What an audit found, before it is written: `audit.json` is this, and `audit.html` shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Outcome = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval: a fraction, or a difference of two."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Subject:
    """What was audited.

    Attributes:
        title: a name in a line, such as that of the file.
        source: `answers`, what the user's arrays say, or `model`, what the bench asked of a model.
        files: sha256 of each file that was read, by its name.
        members, non_members: targets of each kind.
        population: known non-members beside the targets.
        classes: of the labels.
        accuracy_members, accuracy_non_members: of the model on the targets.
        shadows: number of shadow models.
        online: whether shadow models were trained on targets too.
        original: whether the attacker also has the original of a compressed model.
    """

    title: str
    source: Literal["answers", "model"]
    files: dict[str, str]
    members: int
    non_members: int
    population: int
    classes: int
    accuracy_members: float
    accuracy_non_members: float
    shadows: int
    online: bool
    original: bool


@dataclass(frozen=True, eq=False)
class AttackResult:
    """What one attack found on the targets.

    Attributes:
        name: of the verdict, such as `lira` or `mentr`.
        about: the attack in a line.
        release: `released`, the model that was audited; `original`; or `both`.
        measures: as `attackers.metrics.measures` gives them.
        scores: (n,) of the targets; `named` (n,) bool, who scores above all but 1 % of the
            non-members, nobody where these are too few to tell.
        called: (n,) bool, whom it takes for a member; None where it has no threshold, and so no
            accuracy.
    """

    name: str
    about: str
    release: Literal["released", "original", "both"]
    measures: dict
    scores: np.ndarray
    named: np.ndarray
    called: np.ndarray | None = None

    @property
    def of_released(self) -> bool:
        """Whether it takes the released model, with or without the original."""
        return self.release != "original"

    def estimate(self, measure: str) -> Estimate | None:
        """`accuracy`, `auc`, `tpr_at_0.01` and so on; None where these data cannot tell."""
        value, interval = self.measures[measure], self.measures.get(f"{measure}_interval")
        return None if value is None or interval is None else Estimate(value, *interval)


@dataclass(frozen=True)
class Untested:
    """An attack that was not made, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """The released model minus its original in one measure of one attack, paired by record."""

    attack: str
    measure: str
    released: float
    original: float
    difference: Estimate


@dataclass(frozen=True)
class GroupRisk:
    """How the strongest attack does on a class or on a group of the user's.

    `kind` is `class` or `group`; `accuracy` is balanced; None where there are too few.
    """

    kind: Literal["class", "group"]
    name: str
    members: int
    non_members: int
    accuracy: Estimate | None
    auc: Estimate | None
    named_members: Estimate | None


@dataclass(frozen=True)
class GateResult:
    """One condition of `--gate`, and what came of it.

    Attributes:
        condition: as it was given, such as `auc<=0.6`.
        attack: the one that decides: that with the largest value.
        estimate: its figure; None where there is none.
        reason: in a sentence.
        add: what would make it conclusive, a text each; empty where it is.
    """

    condition: str
    measure: str
    limit: float
    outcome: Outcome
    attack: str
    estimate: Estimate | None
    reason: str
    add: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Records:
    """The targets: (n,) each.

    Attributes:
        record_ids: as the user has them, else row numbers.
        labels, member: the truth.
        memorisation: mean true-class posterior of shadows with the record minus that of those
            without; None where no shadow was trained on targets.
        group: the user's, as text; None where there are none.
    """

    record_ids: np.ndarray
    labels: np.ndarray
    member: np.ndarray
    memorisation: np.ndarray | None
    group: np.ndarray | None = None


@dataclass(frozen=True)
class Audit:
    """All that an audit found.

    Attributes:
        command: what makes it again; `made` when, in UTC; `versions` of this bench (its commit), of
            Python and of packages.
        smallest_fpr: the smallest of 10 %, 1 %, 0.1 % at which these data tell a TPR; None: none.
        strongest: index in `attacks` of the attack with the largest AUC on the released model, by
            the attacker with the most to hold; None where no attack could be made.
        weaknesses: why the evidence bears less than a full audit, a text each: few shadow models,
            few non-members, weak attacks alone.
        gates: of `--gate`; empty where none was given.
        outcome: of all gates together: the worst; None where there are none.
        warnings: what was odd in the input.
    """

    subject: Subject
    command: str
    made: str
    versions: dict[str, str]
    attacks: list[AttackResult]
    untested: list[Untested]
    smallest_fpr: float | None
    strongest: int | None
    comparisons: list[Comparison]
    groups: list[GroupRisk]
    records: Records
    gates: list[GateResult]
    outcome: Outcome | None
    weaknesses: list[str]
    warnings: list[str]
