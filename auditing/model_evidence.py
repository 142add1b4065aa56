"""What the released model answers, and the file of all answers that attacks are made on."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from auditing.queries import answers, are_posteriors, as_posteriors, changes_its_answers
from auditing.records import TaskRecords, read_records
from auditing.released import fit, of_network, released_model
from auditing.shadows import seed_everything
from auditing.task import Task, load_task
from auditing.training import Shadows
from auditing.weaknesses import Weakness
from core.console import UserError

_ALIKE = 0.9  # of the released model's number of records, a shadow model's


@dataclass(frozen=True, eq=False)
class ReleasedAnswers:
    """What the released model answers to N records.

    Attributes:
        outputs: (N, C), logits or posteriors; `original`, of the model before compression, None
            where its weights were not released.
        steady: whether it answers the same to a record each time.
    """

    outputs: np.ndarray
    original: np.ndarray | None
    steady: bool


def load(path: str, seed: int) -> tuple[Task, TaskRecords]:
    """A task and its records."""
    seed_everything(seed)
    task = load_task(path)
    return task, read_records(task)


def ask_released(
    task: Task, records: TaskRecords, *, seed: int, device: torch.device
) -> ReleasedAnswers:
    """What the released model answers to all records. Raises UserError where it cannot be asked, or
    a label is none of its classes."""
    seed_everything(seed)
    networks = [("build()", task.build)]
    if task.compresses:
        compressed = partial(_compressed, task, records, device)
        networks.insert(0, ("compress(build())", compressed))
    model = released_model(task.released, networks, device)
    outputs = answers(model, records.x)
    classes, largest = outputs.shape[1], int(records.labels.max())
    if largest >= classes:
        raise UserError(
            f"{task.path.name}: data(): y has label {largest}, and {model.name} answers for "
            f"{classes} classes: labels run from 0 to {classes - 1}"
        )
    original = None
    if task.original is not None:
        network = fit([("build()", task.build)], task.original).to(device)
        original = answers(of_network(task.original.name, network), records.x)
    return ReleasedAnswers(outputs, original, not changes_its_answers(model, records.x))


def _compressed(task: Task, records: TaskRecords, device: torch.device) -> nn.Module:
    """A network of the form that compression gives: weights are put into it afterwards."""
    x, y = records.part(np.flatnonzero(records.member), device)
    return task.compress(task.build().to(device), x, y)


def evidence_arrays(
    records: TaskRecords,
    target: np.ndarray,
    trained_on: np.ndarray,
    released: ReleasedAnswers,
    shadows: Shadows,
) -> dict[str, np.ndarray]:
    """The arrays of an audit (see docs/audit.md). Raises UserError where the shadow models answer
    for other classes than the released model."""
    arrays = {
        "labels": records.labels,
        "member": records.member & target,
        "target": target,
        "record_ids": np.arange(len(target)),
        "shadow_member": trained_on,
    }
    arrays |= _named("victim", released.outputs, "shadows", shadows.outputs)
    if released.original is not None and shadows.original_outputs is not None:
        pair = _named("original", released.original, "original_shadows", shadows.original_outputs)
        arrays |= pair
    return arrays


def _named(
    victim: str, of_victim: np.ndarray, shadows: str, of_shadows: np.ndarray
) -> dict[str, np.ndarray]:
    """Both as logits, or both as posteriors where one of them is: they are compared."""
    if of_victim.shape[1] != of_shadows.shape[2]:
        raise UserError(
            f"the released model answers for {of_victim.shape[1]} classes, build()'s network for "
            f"{of_shadows.shape[2]}: they must be of one kind"
        )
    if are_posteriors(of_victim) or any(map(are_posteriors, of_shadows)):
        return {
            victim: as_posteriors(of_victim),
            shadows: np.stack([as_posteriors(one) for one in of_shadows]),
        }
    return {f"{victim}_logits": of_victim, f"{shadows}_logits": of_shadows}


def packed(arrays: dict[str, np.ndarray]) -> bytes:
    """An .npz file's bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


# ---- what is weak


def weaknesses(
    records: TaskRecords,
    target: np.ndarray,
    trained_on: np.ndarray,
    released: ReleasedAnswers,
    shadows: Shadows,
) -> list[Weakness]:
    """What makes the audit say less than it seems to, beside what all audits are asked (see
    `auditing.weaknesses`)."""
    odd = [Weakness(text, add, False) for text, add in _about_records(records, target, trained_on)]

    def weak(says: str, add: str) -> None:
        odd.append(Weakness(says, add, True))

    if not released.steady:
        weak(
            "the released model answers otherwise to the same records in another order: was it "
            "exported in evaluation mode, network.eval()?",
            "an export in evaluation mode",
        )
    if shadows.untrained:
        weak(
            f"train() left {shadows.untrained} of {len(trained_on)} shadow models as build() made "
            f"them: it must train the network in place, or return it",
            "a train() that trains",
        )
    return odd


def _about_records(
    records: TaskRecords, target: np.ndarray, trained_on: np.ndarray
) -> list[tuple[str, str]]:
    odd: list[tuple[str, str]] = []
    members = int(records.member.sum())
    others, each = len(records.member) - members, int(trained_on[0].sum())
    if each < _ALIKE * members:
        few = (
            f"there are fewer non-members ({others}) than members ({members}): shadow models have "
            f"{each} records each, and fit them more closely than the released model its {members}; "
            f"more non-members would mend that"
        )
        odd.append((few, f"{members - others} more non-members"))
    twice = records.twice()
    if twice:
        copies = (
            f"{twice} of {others} non-members are copies of members, so that they look like "
            f"members: the leak is then larger than what is found"
        )
        odd.append((copies, "non-members that are no copies"))
    count = int(records.labels.max()) + 1
    for label in np.unique(records.labels[target]):
        without = sum(label not in records.labels[rows] for rows in trained_on)
        if without:
            number = int((records.labels[target] == label).sum())
            rare = (
                f"class {label} has {number} record{'s' * (number > 1)} among {count} classes' "
                f"targets: {without} of {len(trained_on)} shadow models are trained without it"
            )
            odd.append((rare, f"records of class {label}"))
    return odd
