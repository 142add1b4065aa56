"""Rounds of training, each from what the one before came to: iterative pruning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from base_model import BaseModel
from core.console import say
from core.files import digested, read_digested, write


@dataclass(frozen=True)
class Round:
    """A round that is to begin, for one role.

    Attributes:
        number: from 1.
        weights: the best of the round before; {} in the first.
        masks: of the round before; {} in the first.
    """

    number: int = 1
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)
    masks: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def after(self, model: BaseModel) -> Round:
        """The one that begins where a model's training has ended."""
        weights = {name: tensor.cpu() for name, tensor in model.network.state_dict().items()}
        return Round(self.number + 1, weights, model.masks or {})


@dataclass(frozen=True)
class RoundFile:
    """Where the rounds of a role, or of a stack of several, are kept until all are finished.

    Attributes:
        facts: what is trained and how; another's rounds are refused by `refuse(path, have, wanted)`.
        form: on which kind of device, and in which stack; rounds of another form are left aside.
        fresh: whether what is there is left aside in any case.
    """

    path: Path
    facts: dict
    form: list[str]
    refuse: Callable
    fresh: bool

    def load(self, roles: list[str]) -> dict[str, Round]:
        """Each role's round that is to begin: the first where none is finished."""
        first = {role: Round() for role in roles}
        if self.fresh:
            self.path.unlink(missing_ok=True)
        if not self.path.exists():
            return first
        stored = read_digested(self.path)
        if stored["form"] != self.form:
            return first
        self.refuse(self.path, stored["facts"], self.facts)
        rounds = {role: Round(**state) for role, state in stored["rounds"].items()}
        say(f"{self.path}: going on with round {rounds[roles[0]].number}")
        return rounds

    def save(self, rounds: Mapping[str, Round]) -> None:
        """Keep where each role's next round begins."""
        states = {role: vars(one) for role, one in rounds.items()}
        write(self.path, digested({"facts": self.facts, "form": self.form, "rounds": states}))


def round_purpose(number: int) -> list[str]:
    """What the randomness of a round is for, beside its stage and role; nothing in the first, so
    that a training in one round is that of a stage without rounds."""
    return [f"round {number}"] if number > 1 else []
