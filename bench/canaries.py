"""Canaries in the victim's private training: made, numbered behind the records, kept beside the
model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from attackers.canaries import Canaries, make_canaries
from bench.layout import CANARIES
from bench.run import Run
from core.console import UserError
from core.files import packed_arrays, read_arrays, write
from datasets import Records, RoleSplit


@dataclass(frozen=True, eq=False)
class CanarySet:
    """Those of a run; their numbers as records begin with `first`."""

    canaries: Canaries
    first: int
    facts: dict

    def __len__(self) -> int:
        return len(self.canaries.coin)

    @property
    def entered(self) -> int:
        return int(self.canaries.coin.sum())

    def __str__(self) -> str:
        return (
            f"{len(self)} canaries, of which {self.entered} were trained on by the victim alone; they "
            f"are in no accuracy"
        )

    @property
    def rows(self) -> np.ndarray:
        """The numbers of those that are trained on."""
        return self.first + np.flatnonzero(self.canaries.coin)

    def store(self, folder: Path) -> None:
        write(folder / CANARIES, packed_arrays(self.facts, vars(self.canaries)))


def with_canaries(run: Run) -> tuple[Run, CanarySet | None]:
    """The run with canaries behind its records, and these; None where none are asked for.

    They and their coins follow from the options `train_seed` and those of canaries, and from records
    that are not the victim's; the private noise follows from none of it. The digest of the data stays
    that of the records proper.

    Raises UserError where there are too few records to copy.
    """
    options, records = run.options, run.records
    if not options.canaries:
        return run, None
    rows = _copied_from(run)
    if options.canary_kind == "mislabelled":
        check_enough(options.canaries, len(rows), "records that are not the victim's")
    made = make_canaries(
        records.x[rows].numpy(),
        records.y[rows].numpy(),
        kind=options.canary_kind,
        count=options.canaries,
        num_cls=records.num_cls,
        draw=_generator(options),
    )
    extended = replace(
        records,
        x=torch.cat([records.x, torch.from_numpy(made.x)]),
        y=torch.cat([records.y, torch.from_numpy(made.y)]),
    )
    facts = {"num_cls": records.num_cls, "mean": records.mean, "std": records.std}
    return replace(run, records=extended), CanarySet(made, len(records), facts)


def check_enough(count: int, there: int, of: str) -> None:
    """Raise UserError where so many mislabelled canaries cannot be copied of these."""
    if count > there:
        raise UserError(
            f"--canaries {count}: mislabelled ones are copies of {of}, of which there are {there}: "
            f"take {'as many or fewer, or ' * bool(there)}--canary_kind random"
        )


def _generator(options) -> np.random.Generator:
    """Of canaries and coins."""
    purpose = (options.train_seed, "canaries", options.canary_kind, options.canary_seed)
    digest = hashlib.sha256(repr(purpose).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def _copied_from(run: Run) -> np.ndarray:
    """The numbers of the records that are in no part of the victim's."""
    parts = vars(run.splits["victim"]).values()
    return np.setdiff1d(np.arange(len(run.records)), np.concatenate(list(parts)))


def nominal_size(split: RoleSplit, canaries: CanarySet | None) -> int:
    """The number of train records that sampling rate, steps and guarantee go by: with half the
    canaries, however the coins fell, as else a rate would tell of them."""
    return len(split.train) + (len(canaries) // 2 if canaries else 0)


def read_canaries(folder: Path) -> tuple[Canaries, Records]:
    """Those that lie beside a model, and the same as records."""
    facts, arrays = read_arrays(folder / CANARIES)
    made = Canaries(**arrays)
    norm = {name: facts[name] and tuple(facts[name]) for name in ("mean", "std")}
    records = Records(torch.from_numpy(made.x), torch.from_numpy(made.y), facts["num_cls"], **norm)
    return made, records
