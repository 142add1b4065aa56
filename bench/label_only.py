"""Asks the models for predicted classes, for attacks that see nothing else.

Logits are reduced to classes where a model is asked; neither what is kept in the models' folders
nor an attack has more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from attackers import ATTACKS, LabelOnlyEvidence
from attackers.copies import COPIES, UnitCube
from attackers.hop_skip_jump import boundary_distances
from attackers.label_only_evidence import ClassSignals
from base_model import BaseModel
from bench.checkpoints import Checkpoint
from bench.outputs import Outputs
from bench.role_context import attacked_model
from bench.role_models import on_device
from bench.run import Run
from bench.signals import Queries, answers, stored_outputs
from core.devices import generator

BOUNDARY_BUDGET = 2500  # queries a record, see `boundary_distances`
AT_ONCE = 2**23  # numbers that the copies of records hold which are made together


@dataclass(frozen=True)
class ClassQueries(Queries):
    """What the models are asked for one attack.

    `needs`: of "copies" and "distances", the one that it asks for.
    """

    @property
    def what(self) -> str:
        (what,) = self.needs
        return what

    def queried(self, role: str) -> np.ndarray:
        """(N,) bool, the records that a role's model is asked for: its members and non-members,
        for distances a sample of them that knows nothing of who is one."""
        mask, options = self.calibration_masks[role], self.run.options
        if self.what == "copies":
            return mask
        known = np.flatnonzero(mask)
        draw = generator(options.train_seed, "mia", role, "boundary records")
        sample = torch.randperm(len(known), generator=draw)[: options.boundary_records].numpy()
        chosen = np.zeros_like(mask)
        chosen[known[sample]] = True
        return chosen


def collect_classes(
    run: Run, checkpoints: Mapping[str, Checkpoint], attack: str
) -> LabelOnlyEvidence:
    """Evidence for an attack that sees classes alone. Where a sample of the records is asked for,
    it is all that the attack has: its targets, and what each shadow knows of."""
    what = ATTACKS[attack].options["label_only"]
    queries, roles = ClassQueries(run, checkpoints, frozenset([what])), list(run.splits)
    masks = {role: queries.queried(role) for role in roles}  # before processes are forked
    outputs = answers({"": queries}, roles, _outputs)[""]
    signals = {role: class_signals(what, outputs[role][what], masks[role]) for role in roles}
    shadows = roles[1:]
    return LabelOnlyEvidence(
        **queries.known(masks),
        victim=signals["victim"],
        shadows=[signals[role] for role in shadows],
        strengths=tuple(UnitCube(run.records).strengths) if what == "copies" else (),
    )


def class_signals(what: str, output: np.ndarray, mask: np.ndarray) -> ClassSignals:
    """Of a model's output for the records in `mask` (N,) bool."""

    def of_all(values: np.ndarray, unknown: float) -> np.ndarray:
        array = np.full((*values.shape[:-1], len(mask)), unknown, dtype=values.dtype)
        array[..., mask] = values
        return array

    classes = of_all(output[0].astype(np.int64), -1)
    if what == "distances":
        return ClassSignals(classes, distances=of_all(output[1], np.nan))
    return ClassSignals(classes, copies=of_all(output[1:].reshape(-1, COPIES, mask.sum()), -1))


def _outputs(queries: Queries, role: str) -> list[tuple[Outputs, Callable[[], np.ndarray]]]:
    """What is needed of a role's model, and how it is asked for it."""
    assert isinstance(queries, ClassQueries)
    run, seed = queries.run, queries.run.options.train_seed
    record_ids = queries.record_ids[queries.queried(role)]
    settings: dict = {"budget": BOUNDARY_BUDGET}
    if queries.what == "copies":
        settings = {"copies": COPIES, "strengths": UnitCube(run.records).strengths}
    outputs = stored_outputs(queries, role, queries.what, record_ids, train_seed=seed, **settings)

    def ask() -> np.ndarray:
        model = attacked_model(run, role, queries.checkpoints[role])
        cube = UnitCube(on_device(run.records, run.device))
        if queries.what == "copies":
            return query_copies(model, cube, record_ids, seed=seed)
        draw = generator(seed, "mia", role, "boundary", device=run.device)
        return query_distances(model, cube, record_ids, generator=draw, budget=BOUNDARY_BUDGET)

    return [(outputs, ask)]


def _predict(model: BaseModel, cube: UnitCube, points: torch.Tensor) -> torch.Tensor:
    """The classes (n,) of points (n, d): all that is ever seen of the model."""
    return model.classes(cube.inputs(points), cube.records)


def query_copies(
    model: BaseModel, cube: UnitCube, record_ids: np.ndarray, *, seed: int
) -> np.ndarray:
    """The classes of records (n,) and of their copies, (1 + L COPIES, n) integers: first the
    record itself, then its copies at each strength; -1 where the record's own class is wrong, whose
    copies are not asked for."""
    indices = torch.from_numpy(record_ids).to(cube.records.y.device)
    outputs = np.full(
        (1 + len(cube.strengths) * COPIES, len(indices)),
        -1,
        dtype=np.min_scalar_type(-cube.records.num_cls),
    )
    size = max(1, AT_ONCE // (COPIES * int(np.prod(cube.records.shape))))
    for start in range(0, len(indices), size):
        batch = indices[start : start + size]
        points = cube.points(batch)
        classes = _predict(model, cube, points)
        outputs[0, start : start + size] = classes.cpu().numpy()
        right = (classes == cube.records.y[batch]).nonzero()[:, 0]
        if not len(right):
            continue
        columns = start + right.cpu().numpy()
        noise = cube.noise(record_ids[columns], seed=seed)
        for level, strength in enumerate(cube.strengths):
            copies = cube.perturbed(points[right], noise, strength)
            of_copies = _predict(model, cube, copies.flatten(0, 1)).view(len(right), COPIES)
            first = 1 + level * COPIES
            outputs[first : first + COPIES, columns] = of_copies.T.cpu().numpy()
    return outputs


def query_distances(
    model: BaseModel,
    cube: UnitCube,
    record_ids: np.ndarray,
    *,
    generator: torch.Generator,
    budget: int,
) -> np.ndarray:
    """The classes of records (n,), and their distances to the nearest other class, (2, n); see
    `boundary_distances`, whose `starts` are these records."""
    indices = torch.from_numpy(record_ids).to(cube.records.y.device)
    points, predict = cube.points(indices), partial(_predict, model, cube)
    distances = boundary_distances(
        predict, points, cube.records.y[indices], starts=points, generator=generator, budget=budget
    )
    return np.stack([predict(points).cpu().numpy(), distances.cpu().numpy()]).astype(np.float64)
