"""Who is attacked with whose shadow models."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from bench.checkpoints import Checkpoint, parent_digest, read_manifest
from bench.layout import ModelSet
from bench.options import Options


@dataclass(frozen=True)
class Matchup:
    """A victim and the shadow models of its attacker.

    Attributes:
        victim: the version under attack.
        shadows: the version of the shadow models: the victim's where the attacker knows its
            defence or there is none, else the same without a defence.
    """

    victim: ModelSet
    shadows: ModelSet

    @classmethod
    def of(cls, options: Options, data: str = "") -> Matchup:
        """The one that the options ask for."""
        victim = ModelSet(options, original=options.original, data=data)
        knows = options.original or options.adaptive or not options.defend
        return cls(victim, victim if knows else victim.undefended)

    def moved_to(self, root: Path) -> Matchup:
        """The same in another folder of the data set and network."""
        return Matchup(*(replace(models, moved_to=root) for models in (self.victim, self.shadows)))

    @property
    def options(self) -> Options:
        return self.victim.options

    @property
    def roles(self) -> list[str]:
        """The victim and its attacker's shadow models."""
        return self.victim.roles

    def models(self, role: str) -> ModelSet:
        """Of which version a role is."""
        return self.victim if role == "victim" else self.shadows

    def folder(self, role: str) -> Path:
        """Where a role's model lies."""
        return self.models(role).folder(role)

    @property
    def victim_folder(self) -> Path:
        return self.folder("victim")

    def stored_digest(self) -> str | None:
        """The `matchup_digest` of the models that lie there now; None where one is gone or was made
        of another model than lies there.

        Raises UserError where a manifest cannot be read.
        """
        checkpoints = []
        for role in self.roles:
            checkpoint = read_manifest(self.models(role), role)
            if checkpoint is None or checkpoint.parent != parent_digest(self.models(role), role):
                return None
            checkpoints.append(checkpoint)
        return matchup_digest(checkpoints)


def matchup_digest(checkpoints: Iterable[Checkpoint]) -> str:
    """Tells a victim, its shadow models (in this order) and their originals from any others."""
    words = (checkpoint.parent + checkpoint.digest for checkpoint in checkpoints)
    return hashlib.sha256("".join(words).encode()).hexdigest()[:16]
