"""Asks the models what attacks need, and puts together what an attacker has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from types import MappingProxyType

import numpy as np
import torch

from core import console
from attackers import ATTACKS, blindmi
from attackers.evidence import Evidence
from attackers.signals import SENSITIVITY_DRAWS, SENSITIVITY_EPSILON, Release, Signals
from base_model import BaseModel
from bench.checkpoints import Checkpoint
from bench.outputs import Outputs
from bench.role_context import released
from bench.role_models import new_model, on_device
from bench.run import Run
from core.devices import generator
from core.files import array_digest
from core.parallel import parallel_map
from datasets import Records
from quantizer.attach import load_effective


@dataclass(frozen=True)
class Queries:
    """What the models of a run are asked.

    Attributes:
        checkpoints: by role.
        needs: of "sensitivity" and "generated", what is asked for beside logits.
    """

    run: Run
    checkpoints: Mapping[str, Checkpoint]
    needs: frozenset[str]

    @cached_property
    def targets(self) -> np.ndarray:
        """(n,), the victim's train and test records in the order of their numbers, which says
        nothing of who is a member."""
        victim = self.run.splits["victim"]
        return np.union1d(victim.train, victim.test)

    @cached_property
    def record_ids(self) -> np.ndarray:
        """(N,), the targets and the population: what else the shadow models have."""
        others = np.concatenate(list(vars(self.run.splits["shadow_0"]).values()))
        return np.union1d(self.targets, others)

    @cached_property
    def calibration_masks(self) -> dict[str, np.ndarray]:
        """(N,) bool of each role, which records it has as members or non-members."""
        return {
            role: np.isin(self.record_ids, np.concatenate([split.train, split.test]))
            for role, split in self.run.splits.items()
        }

    @cached_property
    def generated(self) -> Records | None:
        """Records that are made up; None where they are not needed."""
        if "generated" not in self.needs:
            return None
        options = self.run.options
        return blindmi.generate(self.run.records, self.targets, seed=options.train_seed)


def collect_signals(
    run: Run,
    checkpoints: Mapping[str, Checkpoint],
    *,
    attacks: Iterable[str],
    releases: Mapping[str, Mapping[str, Checkpoint]] = MappingProxyType({}),
) -> Evidence:
    """Evidence for these attacks. Outputs are kept in the models' folders, and taken from there the
    next time.

    Args:
        checkpoints: by role.
        releases: the same of each other version that the attacker holds, by name; asked where an
            attack uses them.
    """
    options, roles = run.options, list(run.splits)
    needs = frozenset(
        what
        for what in ("sensitivity", "generated")
        if any(ATTACKS[name].options.get(what) for name in attacks)
    )
    queries = Queries(run, checkpoints, needs)
    masks, generated = queries.calibration_masks, queries.generated  # before processes are forked
    use = any(ATTACKS[name].options.get("releases") for name in attacks)
    held = releases if use else {}
    others = {name: Queries(run.of_release(name), of, frozenset()) for name, of in held.items()}
    asked = {"": queries} | others  # by the name of a release; "" = what is under attack
    outputs = _answers(asked, roles)
    of_releases = {
        name: {role: _signals(of[role], masks[role]) for role in roles}
        for name, of in outputs.items()
    }
    signals, shadows = of_releases.pop(""), roles[1:]
    return Evidence(
        labels=run.records.y[torch.from_numpy(queries.record_ids)].numpy(),
        victim=signals["victim"],
        shadows=[signals[role] for role in shadows],
        member=np.stack([np.isin(queries.record_ids, run.splits[role].train) for role in shadows]),
        calibration_mask=np.stack([masks[role] for role in shadows]),
        target=masks["victim"],
        online=options.split == "inout",
        records=run.records,
        record_ids=queries.record_ids,
        generated=_generated(outputs[""]["victim"], generated),
        also={
            name: Release(of["victim"], [of[role] for role in shadows])
            for name, of in of_releases.items()
        },
    )


def _generated(
    outputs: dict[str, np.ndarray], records: Records | None
) -> tuple[Signals, np.ndarray] | None:
    """The victim's signals on records that were made up, and the labels of these."""
    return None if records is None else (Signals(outputs["generated"]), records.y.numpy())


def _answers(
    asked: Mapping[str, Queries], roles: list[str]
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """All outputs of all models, by release, role and kind."""
    places = {f"{role} {name}": (one, role) for name, one in asked.items() for role in roles}
    options = asked[""].run.options
    bar = console.progress(total=len(places), label="asking models", unit="model")
    for _ in parallel_map(
        lambda place, _: _query(*places[place]),
        list(places),
        workers=options.workers or 1,
        threads=options.threads,
    ):
        bar.update()
    bar.close()
    # from the folders: large arrays go through no pipe
    return {
        name: {role: {kind.what: kind.load() for kind, _ in _outputs(one, role)} for role in roles}
        for name, one in asked.items()
    }


def _signals(outputs: dict[str, np.ndarray], mask: np.ndarray) -> Signals:
    """Of a model's outputs, sensitivities of the records in `mask` (N,) bool alone."""
    sensitivity = None
    if "sensitivity" in outputs:
        sensitivity = np.full(outputs["logits"].shape, np.nan, dtype=np.float32)
        sensitivity[mask] = outputs["sensitivity"]
    return Signals(outputs["logits"], sensitivity)


def _query(queries: Queries, role: str) -> int:
    """Have all outputs of a role's model there; returns how many kinds there are. Weights are read
    where a model must be asked."""
    outputs = _outputs(queries, role)
    for one, query in outputs:
        one.ask(query, fresh=queries.run.options.fresh)
    return len(outputs)


def _outputs(queries: Queries, role: str) -> list[tuple[Outputs, Callable[[], np.ndarray]]]:
    """The kinds of outputs that are needed of a role's model, and how it is asked for each."""
    run, checkpoint, record_ids = queries.run, queries.checkpoints[role], queries.record_ids
    options, model = run.options, _Model(run, role, checkpoint)

    def stored(what: str, inputs: np.ndarray, *, numbered: bool = True, **more) -> Outputs:
        facts = {
            "model": checkpoint.digest,
            "data": checkpoint.data,
            "records": array_digest(inputs),
            "device": run.device.type,
            "threads": options.threads,
            **more,
        }
        models = run.matchup.models(role)
        return Outputs(models, role, what, facts, inputs if numbered else None)

    wanted: list[tuple[Outputs, Callable[[], np.ndarray]]]
    wanted = [(stored("logits", record_ids), partial(model.logits, record_ids))]
    if "sensitivity" in queries.needs:
        role_records = record_ids[queries.calibration_masks[role]]
        outputs = stored(
            "sensitivity",
            role_records,
            draws=SENSITIVITY_DRAWS,
            epsilon=SENSITIVITY_EPSILON,
            train_seed=options.train_seed,
        )
        wanted.append((outputs, partial(model.sensitivity, role_records)))
    generated = queries.generated if role == "victim" else None
    if generated is not None:
        outputs = stored("generated", generated.x.numpy(), numbered=False)
        wanted.append((outputs, partial(model.logits_of, generated)))
    return wanted


@dataclass(frozen=True)
class _Model:
    """A role's model, made when it is first asked."""

    run: Run
    role: str
    checkpoint: Checkpoint

    @cached_property
    def model(self) -> BaseModel:
        run = self.run
        model = new_model(run.options, run.records, self.role, "mia", run.device)
        load_effective(model.network, run.options.quantizer, self.checkpoint.weights())
        return released(model, run, run.matchup.models(self.role), self.role)

    def logits(self, record_ids: np.ndarray) -> np.ndarray:
        return query(self.model, on_device(self.run.records, self.run.device), record_ids)

    def logits_of(self, records: Records) -> np.ndarray:
        return query(self.model, records.to(self.run.device), np.arange(len(records)))

    def sensitivity(self, record_ids: np.ndarray) -> np.ndarray:
        run, model = self.run, self.model
        noise = generator(run.options.train_seed, "mia", self.role, "noise", device=run.device)
        records = on_device(run.records, run.device)
        return query_sensitivity(model, records, record_ids, generator=noise)


def query(model: BaseModel, records: Records, record_ids: np.ndarray) -> np.ndarray:
    """A model's logits (n, C) for the records of these numbers."""
    return model.logits(records, torch.from_numpy(record_ids).to(records.y.device)).cpu().numpy()


def query_sensitivity(
    model: BaseModel, records: Records, record_ids: np.ndarray, *, generator: torch.Generator
) -> np.ndarray:
    """A model's sensitivity (n, C) for the records of these numbers; `generator` draws the
    noise."""
    indices = torch.from_numpy(record_ids).to(records.y.device)
    sensitivity = model.sensitivity(
        records, indices, generator=generator, draws=SENSITIVITY_DRAWS, epsilon=SENSITIVITY_EPSILON
    )
    return sensitivity.cpu().numpy()
