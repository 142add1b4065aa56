"""Asks the models what attacks need, and puts together what an attacker has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, partial

import numpy as np
import torch

from core import console
from attackers import ATTACKS, blindmi
from attackers.signals import SENSITIVITY_DRAWS, SENSITIVITY_EPSILON, Evidence, Signals
from base_model import BaseModel
from bench.store import Checkpoint, Store, array_digest
from bench.training import on_device, stored_model
from core.devices import generator
from core.parallel import parallel_map
from datasets import Records, RoleSplit


def gather(
    records: Records,
    parts: dict[str, RoleSplit],
    checkpoints: dict[str, Checkpoint],
    device: torch.device,
    *,
    places: dict[str, tuple[Store, str]],
    attacks: Iterable[str],
) -> Evidence:
    """Evidence for these attacks. Answers are kept in the models' folders, and taken from there the next time.

    The targets are the victim's train and test records in the order of their numbers, which says nothing of who is a
    member; the population is what else the shadow models have.

    Args:
        places: each role's store and version.
    """
    options = places["victim"][0].options
    targets = np.union1d(parts["victim"].train, parts["victim"].test)
    record_ids = np.union1d(targets, np.concatenate(list(vars(parts["shadow_0"]).values())))
    calibration_mask = {
        role: np.isin(record_ids, np.concatenate([part.train, part.test]))
        for role, part in parts.items()
    }
    needs = {
        what
        for what in ("sensitivity", "generated")
        if any(ATTACKS[name].options.get(what) for name in attacks)
    }
    made = (
        blindmi.generate(records, targets, seed=options.train_seed)
        if "generated" in needs
        else None
    )

    def answers(role: str, *, ask: bool) -> dict[str, np.ndarray]:
        return _answers(
            role,
            *places[role],
            checkpoints[role],
            records,
            device,
            record_ids=record_ids,
            sensitive=record_ids[calibration_mask[role]] if "sensitivity" in needs else None,
            made=made if role == "victim" else None,
            ask=ask,
        )

    bar = console.progress(total=len(parts), label="asking models", unit="model")
    for _ in parallel_map(
        lambda role, _: len(answers(role, ask=True)),
        parts,
        workers=options.workers,
        threads=options.threads,
    ):
        bar.update()
    bar.close()
    found = {
        role: answers(role, ask=False) for role in parts
    }  # from the folders: large arrays through no pipe

    def signals(role: str) -> Signals:
        sensitivity = None
        if "sensitivity" in needs:
            sensitivity = np.full(found[role]["logits"].shape, np.nan, dtype=np.float32)
            sensitivity[calibration_mask[role]] = found[role]["sensitivity"]
        return Signals(found[role]["logits"], sensitivity)

    shadows = [role for role in parts if role != "victim"]
    return Evidence(
        labels=records.y[torch.from_numpy(record_ids)].numpy(),
        victim=signals("victim"),
        shadows=[signals(role) for role in shadows],
        member=np.stack([np.isin(record_ids, parts[role].train) for role in shadows]),
        calibration_mask=np.stack([calibration_mask[role] for role in shadows]),
        target=calibration_mask["victim"],
        online=options.split == "inout",
        records=records,
        record_ids=record_ids,
        generated=None if made is None else (Signals(found["victim"]["generated"]), made.y.numpy()),
    )


def _answers(
    role: str,
    store: Store,
    version: str,
    checkpoint: Checkpoint,
    records: Records,
    device: torch.device,
    *,
    record_ids: np.ndarray,
    sensitive: np.ndarray | None,
    made: Records | None,
    ask: bool,
) -> dict[str, np.ndarray]:
    """Of one model, by what it was asked: logits of the records of these numbers and of those that were made up,
    sensitivities of others. Kept with all that they depend on; without `ask`, only read."""
    options = store.options
    model = lru_cache(
        lambda: stored_model(options, records, role, "mia", device, weights=checkpoint.weights)
    )
    place = partial(on_device, records, device)

    def kept(
        what: str,
        asked: np.ndarray,
        query: Callable[[], np.ndarray],
        *,
        numbered: bool = True,
        **more,
    ) -> np.ndarray:
        facts = {
            "model": checkpoint.digest,
            "data": checkpoint.data,
            "records": array_digest(asked),
            "device": device.type,
            "threads": options.threads,
            **more,
        }
        return store.answers(
            role,
            version,
            what,
            facts,
            query if ask else None,
            records=asked if numbered else None,
            fresh=ask and options.fresh,
        )

    def sensitivity() -> np.ndarray:
        noise = generator(options.train_seed, "mia", role, "noise", device=device)
        return query_sensitivity(model(), place(), sensitive, generator=noise)

    found = {"logits": kept("logits", record_ids, lambda: query(model(), place(), record_ids))}
    if sensitive is not None:
        found["sensitivity"] = kept(
            "sensitivity",
            sensitive,
            sensitivity,
            draws=SENSITIVITY_DRAWS,
            epsilon=SENSITIVITY_EPSILON,
            train_seed=options.train_seed,
        )
    if made is not None:
        found["generated"] = kept(
            "generated",
            made.x.numpy(),
            lambda: query(model(), made.to(device), np.arange(len(made))),
            numbered=False,
        )
    return found


def query(model: BaseModel, records: Records, record_ids: np.ndarray) -> np.ndarray:
    """A model's logits (n, C) for the records of these numbers."""
    return model.logits(records, torch.from_numpy(record_ids).to(records.y.device)).cpu().numpy()


def query_sensitivity(
    model: BaseModel, records: Records, record_ids: np.ndarray, *, generator: torch.Generator
) -> np.ndarray:
    """A model's sensitivity (n, C) for the records of these numbers; `generator` draws the noise."""
    indices = torch.from_numpy(record_ids).to(records.y.device)
    return (
        model.sensitivity(
            records,
            indices,
            generator=generator,
            draws=SENSITIVITY_DRAWS,
            epsilon=SENSITIVITY_EPSILON,
        )
        .cpu()
        .numpy()
    )
