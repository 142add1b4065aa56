"""Canaries in a user's own private training: one more model is trained, by the user's `train`, on the
released one's members and on the canaries whose coins fell on in, and asked about all of them.

Shadow models, which have none, are asked about them too. The released model is another, and no attack
on it sees a canary.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attackers.canaries import KINDS, make_canaries
from attackers.canary_bound import residuals
from attackers.signals import Signals, log_odds
from auditing.canaries import Claim, Scored, check_delta
from auditing.queries import are_posteriors
from auditing.records import TaskRecords
from bench.canaries import check_enough
from core.console import UserError
from defenders.accounting import default_delta

NAME = "canaries"  # of the model that has them, among the shadow models' numbers
_FEWEST = 20  # of fewer hardly any guess can be wrong, and all coins may fall alike


@dataclass(frozen=True, eq=False)
class CanarySet:
    """Canaries of a task.

    Attributes:
        records: the task's and behind them the canaries, which are no members.
        rows: of the members, and of the canaries that are trained on.
        coin: (m,) bool, those that are.
    """

    records: TaskRecords
    rows: np.ndarray
    coin: np.ndarray

    @property
    def x(self) -> Any:
        return self.records.x[-len(self.coin) :]

    @property
    def labels(self) -> np.ndarray:
        return self.records.labels[-len(self.coin) :]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add those of `audit.py model`."""
    add = parser.add_argument
    about = "train one more model with half of so many made-up records, to bound epsilon from below"
    add("--canaries", type=int, metavar="N", default=0, help=f"{about} (default: none)")
    kinds = "copies of non-members under other labels, or noise"
    add("--canary_kind", choices=KINDS, help=f"{kinds} (default: {KINDS[0]})")
    delta = "default: the largest power of ten below 1 / members"
    add("--delta", type=float, metavar="X", help=f"at which epsilon is bounded ({delta})")
    add("--epsilon", type=float, metavar="X", help="that train() claims (default: nothing is)")


def check_options(given: argparse.Namespace) -> None:
    """Raise UserError where one of them is wrong."""
    if given.canaries and given.canaries < _FEWEST:
        raise UserError(f"--canaries must be {_FEWEST} or more, or 0: none, not {given.canaries}")
    for name in ("canary_kind", "delta", "epsilon"):
        if getattr(given, name) is not None and not given.canaries:
            raise UserError(f"--{name} is of canaries: ask for some, --canaries 500")
    check_delta(given.delta)
    if given.epsilon is not None and not 0 <= given.epsilon < math.inf:
        raise UserError(f"--epsilon must be a number of 0 or more, not {given.epsilon:g}")


def spec_of(given: argparse.Namespace, records: TaskRecords) -> dict | None:
    """What the canaries follow from beside the records and the seed; None where none are asked for.

    Raises UserError where these records allow none of the kind.
    """
    if not given.canaries:
        return None
    kind = given.canary_kind or KINDS[0]
    if kind == "mislabelled":
        check_enough(given.canaries, int((~records.member).sum()), "non-members")
    elif (values := _array(records.x)).dtype.kind != "f" and values.dtype != np.uint8:
        raise UserError(
            f"--canary_kind random makes numbers with a fraction, or uint8, and x is {values.dtype}: "
            f"take mislabelled"
        )
    return {"count": given.canaries, "kind": kind}


def make(records: TaskRecords, spec: dict, seed: int) -> CanarySet:
    """The canaries of such a task: mislabelled ones are copies of any non-members, as the model that
    has them is trained on none."""
    digest = hashlib.sha256(repr((seed, NAME, spec["kind"], spec["count"])).encode()).digest()
    others = ~records.member
    made = make_canaries(
        _array(records.x)[others],
        records.labels[others],
        num_cls=max(2, int(records.labels.max()) + 1),
        draw=np.random.default_rng(int.from_bytes(digest, "big")),
        **spec,
    )
    joined = TaskRecords(
        _joined(records.x, made.x),
        _joined(records.y, made.y),
        np.concatenate([records.labels, made.y]),
        np.concatenate([records.member, np.zeros(len(made.y), bool)]),
    )
    entered = len(others) + np.flatnonzero(made.coin)
    return CanarySet(joined, np.concatenate([np.flatnonzero(records.member), entered]), made.coin)


def scored(canaries: CanarySet, outputs: np.ndarray, kind: str) -> Scored:
    """How much each canary looks trained on, by answers (1 + S, m, C) of the model that has them and
    of S shadow models, whose mean tells what it would look like otherwise."""
    own, *others = (
        log_odds(Signals.from_posteriors(one) if are_posteriors(one) else Signals(one), labels)
        for labels in [canaries.labels]
        for one in outputs
    )
    scores = residuals(own, np.mean(others, axis=0)[None])
    return Scored(scores, canaries.coin, kind, [f"{len(others)} shadow models"])


def claim_of(given: argparse.Namespace, members: int) -> Claim:
    """What is claimed of `train`."""
    return Claim(given.epsilon, default_delta(members) if given.delta is None else given.delta)


def _array(values: Any) -> np.ndarray:
    """As numpy holds it: bfloat16, which it has not, as float32."""
    if not isinstance(values, torch.Tensor):
        return values
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def _joined(values: Any, more: np.ndarray) -> Any:
    """Both, as the first."""
    if isinstance(values, torch.Tensor):
        return torch.cat([values, torch.from_numpy(more).to(values)])
    return np.concatenate([values, more.astype(values.dtype)])
