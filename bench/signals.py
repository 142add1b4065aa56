"""Asks the models what attacks need, and puts together what an attacker has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from core import console
from attackers import ATTACKS, blindmi
from attackers.distillation import FEWEST, METRICS, fewest_distillable
from attackers.evidence import Evidence
from attackers.signals import SENSITIVITY_DRAWS, SENSITIVITY_EPSILON, Release, Signals
from base_model import BaseModel
from bench import distilling
from bench.checkpoints import Checkpoint
from bench.options import Options
from bench.outputs import Outputs
from bench.role_context import attacked_model
from bench.role_models import new_model, on_device
from bench.run import Run
from bench.views import query_views, takes_views
from core.devices import generator
from core.files import array_digest
from core.parallel import parallel_map
from datasets import Records

BESIDE_LOGITS = (
    "sensitivity",
    "generated",
    "distillation",
)  # what attacks may need, by their flags


@dataclass(frozen=True)
class Queries:
    """What the models of a run are asked.

    Attributes:
        checkpoints: by role.
        needs: of `BESIDE_LOGITS` and "views", what is asked for.
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

    def known(self, masks: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """What evidence of either kind says of the records, and of whom each shadow model was
        trained on; `masks` (N,) bool of each role are those that the attacker has of it."""
        splits = self.run.splits
        shadows = [role for role in splits if role != "victim"]
        return {
            "labels": self.run.records.y[torch.from_numpy(self.record_ids)].numpy(),
            "member": np.stack([np.isin(self.record_ids, splits[role].train) for role in shadows]),
            "calibration_mask": np.stack([masks[role] for role in shadows]),
            "target": masks["victim"],
            "record_ids": self.record_ids,
        }

    @cached_property
    def generated(self) -> Records | None:
        """Records that are made up; None where they are not needed."""
        if "generated" not in self.needs:
            return None
        options = self.run.options
        return blindmi.generate(self.run.records, self.targets, seed=options.train_seed)

    @cached_property
    def distilled_on(self) -> dict[str, np.ndarray]:
        """(P,) of each role, numbers of the records that its model is distilled on: of those that
        are neither its members nor its non-members, as many for each role. {} where they are too
        few, or none are needed."""
        count = fewest_distillable(self.calibration_masks.values())
        if "distillation" not in self.needs or count < FEWEST:
            return {}
        chosen = {}
        for role, mask in self.calibration_masks.items():
            draw = generator(self.run.options.train_seed, "distil", role, "records")
            others = self.record_ids[~mask]
            chosen[role] = np.sort(others[torch.randperm(len(others), generator=draw)[:count]])
        return chosen


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
    queries = Queries(run, checkpoints, _needs(options, attacks))
    masks, generated = queries.calibration_masks, queries.generated  # before processes are forked
    use = any(ATTACKS[name].options.get("releases") for name in attacks)
    held = releases if use else {}
    others = {name: Queries(run.of_release(name), of, frozenset()) for name, of in held.items()}
    asked = {"": queries} | others  # by the name of a release; "" = what is under attack
    outputs = answers(asked, roles, _outputs)
    of_releases = {
        name: {role: _signals(of[role], masks[role]) for role in roles}
        for name, of in outputs.items()
    }
    signals, shadows = of_releases.pop(""), roles[1:]
    return Evidence(
        **queries.known(masks),
        victim=signals["victim"],
        shadows=[signals[role] for role in shadows],
        online=options.split == "inout",
        records=run.records,
        generated=_generated(outputs[""]["victim"], generated),
        also={
            name: Release(of["victim"], [of[role] for role in shadows])
            for name, of in of_releases.items()
        },
    )


def _needs(options: Options, attacks: Iterable[str]) -> frozenset[str]:
    """What these attacks need beside logits, see `Queries`."""
    needs = {
        what for what in BESIDE_LOGITS if any(ATTACKS[name].options.get(what) for name in attacks)
    }
    if options.queries > 1 and any(map(takes_views, attacks)):
        needs.add("views")
    return frozenset(needs)


def _generated(
    outputs: dict[str, np.ndarray], records: Records | None
) -> tuple[Signals, np.ndarray] | None:
    """The victim's signals on records that were made up, and the labels of these."""
    return None if records is None else (Signals(outputs["generated"]), records.y.numpy())


# the kinds of outputs that are needed of a role's model, and how it is asked for each
Asking = Callable[[Queries, str], list[tuple[Outputs, Callable[[], np.ndarray]]]]


def answers(
    asked: Mapping[str, Queries], roles: list[str], outputs_of: Asking
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """All outputs of all models, by release, role and kind."""
    places = {f"{role} {name}": (one, role) for name, one in asked.items() for role in roles}
    options = asked[""].run.options
    bar = console.progress(total=len(places), label="asking models", unit="model")
    for _ in parallel_map(
        lambda place, _: _query(*places[place], outputs_of),
        list(places),
        workers=options.workers or 1,
        threads=options.threads,
    ):
        bar.update()
    bar.close()
    # from the folders: large arrays go through no pipe
    return {
        name: {
            role: {kind.what: kind.load() for kind, _ in outputs_of(one, role)} for role in roles
        }
        for name, one in asked.items()
    }


def _signals(outputs: dict[str, np.ndarray], mask: np.ndarray) -> Signals:
    """A model's outputs; sensitivities and distillations of the records in `mask` (N,) bool
    alone."""

    def of_all(what: str) -> np.ndarray | None:
        if what not in outputs:
            return None
        values = np.full((len(mask), *outputs[what].shape[1:]), np.nan, dtype=np.float32)
        values[mask] = outputs[what]
        return values

    return Signals(
        outputs["logits"],
        of_all("sensitivity"),
        distillation=of_all("distillation"),
        views=tuple(map(Signals, outputs.get("views", ()))),
    )


def _query(queries: Queries, role: str, outputs_of: Asking) -> int:
    """Have all outputs of a role's model there; returns how many kinds there are. Weights are read
    where a model must be asked."""
    outputs = outputs_of(queries, role)
    for one, query in outputs:
        one.ask(query, fresh=queries.run.options.fresh)
    return len(outputs)


def stored_outputs(
    queries: Queries, role: str, what: str, inputs: np.ndarray, /, *, numbered: bool = True, **more
) -> Outputs:
    """The place of a model's outputs for these inputs: numbers of records where they are
    `numbered`; `more` are further facts that the outputs depend on."""
    run, checkpoint = queries.run, queries.checkpoints[role]
    facts = {
        "model": checkpoint.digest,
        "data": checkpoint.data,
        "records": array_digest(inputs),
        "device": run.device.type,
        "threads": run.options.threads,
        **more,
    }
    models = run.matchup.models(role)
    return Outputs(models, role, what, facts, inputs if numbered else None)


def _outputs(queries: Queries, role: str) -> list[tuple[Outputs, Callable[[], np.ndarray]]]:
    """The kinds of outputs that are needed of a role's model, and how it is asked for each."""
    run, record_ids = queries.run, queries.record_ids
    options, model = run.options, _Model(run, role, queries.checkpoints[role])
    stored = partial(stored_outputs, queries, role)

    wanted: list[tuple[Outputs, Callable[[], np.ndarray]]]
    wanted = [(stored("logits", record_ids), partial(model.logits, record_ids))]
    role_records = record_ids[queries.calibration_masks[role]]
    if "sensitivity" in queries.needs:
        outputs = stored(
            "sensitivity",
            role_records,
            draws=SENSITIVITY_DRAWS,
            epsilon=SENSITIVITY_EPSILON,
            train_seed=options.train_seed,
        )
        wanted.append((outputs, partial(model.sensitivity, role_records)))
    known = queries.distilled_on.get(role)
    if known is not None:
        outputs = stored(
            "distillation",
            role_records,
            distilled_on=array_digest(known),
            student=run.matchup.shadows.options.model_name,
            config=repr(distilling.CONFIG),
            metrics=list(METRICS),
            train_seed=options.train_seed,
        )
        logits = wanted[0][0]
        wanted.append((outputs, partial(model.distillation, role_records, known, logits)))
    if "views" in queries.needs:
        outputs = stored("views", record_ids, queries=options.queries)
        wanted.append((outputs, partial(model.views, record_ids)))
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
        return attacked_model(self.run, self.role, self.checkpoint)

    def logits(self, record_ids: np.ndarray) -> np.ndarray:
        return query(self.model, on_device(self.run.records, self.run.device), record_ids)

    def logits_of(self, records: Records) -> np.ndarray:
        return query(self.model, records.to(self.run.device), np.arange(len(records)))

    def views(self, record_ids: np.ndarray) -> np.ndarray:
        records = on_device(self.run.records, self.run.device)
        return query_views(self.model, records, record_ids, count=self.run.options.queries)

    def sensitivity(self, record_ids: np.ndarray) -> np.ndarray:
        run, model = self.run, self.model
        noise = generator(run.options.train_seed, "mia", self.role, "noise", device=run.device)
        records = on_device(run.records, run.device)
        return query_sensitivity(model, records, record_ids, generator=noise)

    def distillation(
        self, record_ids: np.ndarray, known: np.ndarray, logits: Outputs
    ) -> np.ndarray:
        """The metrics (n, E, 5) of a student that is distilled from the model's logits for the
        records `known`, which are among those stored. It is of the network that the attacker takes
        the victim for."""
        run, options = self.run, self.run.matchup.shadows.options
        assert logits.record_ids is not None  # as those of all records are numbered
        return distilling.distil(
            new_model(options, run.records, self.role, "distil", run.device),
            on_device(run.records, run.device),
            known=known,
            teacher=logits.load()[np.searchsorted(logits.record_ids, known)],
            record_ids=record_ids,
            generator=generator(
                options.train_seed, "distil", self.role, "order", device=run.device
            ),
        )


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
