"""Who is attacked with whose shadow models."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import models
from bench.checkpoints import Checkpoint, parent_digest, read_manifest
from bench.layout import ModelSet
from bench.options import Options
from bench.releases import release_options


@dataclass(frozen=True)
class Matchup:
    """A victim and the shadow models of its attacker.

    Attributes:
        victim: the version under attack.
        shadows: the version of the shadow models, see `ModelSet.of_attacker`.
        releases: the same of each other version that the attacker holds, by name.
    """

    victim: ModelSet
    shadows: ModelSet
    releases: Mapping[str, Matchup] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        options: Options,
        data: str = "",
        shape: tuple[int, ...] | None = None,
        *,
        alike: tuple[ModelSet, ...] = (),
    ) -> Matchup:
        """The one that the options ask for.

        Args:
            shape: of a record, by which the `input_dim` of shadow models of another network is
                set; None where only places and digests are asked for.
            alike: versions that these are to be made like, see `ModelSet`.
        """
        victim = replace(ModelSet.under_attack(options, data), alike=alike)
        shadows, guess = victim.of_attacker, options.guess.get("model_name")
        if guess and shape:
            fits = replace(shadows.options, input_dim=models.input_dim(guess, shape))
            shadows = replace(shadows, options=fits)
        releases = {
            name: cls.of(release_options(options, name), data, alike=(victim,))
            for name in options.also
        }
        return cls(victim, shadows, releases)

    def moved_to(self, root: Path) -> Matchup:
        """The same in another folder of the data set and network; shadow models of another network
        lie beside it."""
        beside = root
        if self.shadows.root != self.victim.root:
            beside = root.with_name(self.shadows.root.name)
        return Matchup(
            replace(self.victim, moved_to=root),
            replace(self.shadows, moved_to=beside),
            {name: release.moved_to(root) for name, release in self.releases.items()},
        )

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

    def stored_releases(self) -> str | None:
        """The `releases_digest` of those that lie there now; None where there are none, or of one
        of them models are missing. Raises as `stored_digest`."""
        digests = {name: release.stored_digest() for name, release in self.releases.items()}
        whole = {name: digest for name, digest in digests.items() if digest}
        return releases_digest(whole) if whole and len(whole) == len(digests) else None


def releases_digest(digests: Mapping[str, str]) -> str:
    """Tells releases, each with its `matchup_digest`, from any others."""
    words = sorted(f"{name} {digest}" for name, digest in digests.items())
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def matchup_digest(checkpoints: Iterable[Checkpoint]) -> str:
    """Tells a victim, its shadow models (in this order) and their originals from any others."""
    words = (checkpoint.parent + checkpoint.digest for checkpoint in checkpoints)
    return hashlib.sha256("".join(words).encode()).hexdigest()[:16]
