"""The user's records: tensors or arrays of any shape, their labels, and who is a member."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from auditing.task import Task
from core.console import UserError

_FEWEST = 10  # members, and non-members: with fewer nothing can be told


@dataclass(frozen=True, eq=False)
class TaskRecords:
    """All records of a task.

    Attributes:
        x, y: as the user gives them, tensors or arrays, (N, ...) and (N,).
        labels: (N,) int64.
        member: (N,) bool, of the released model.
    """

    x: Any
    y: Any
    labels: np.ndarray
    member: np.ndarray

    def part(self, rows: np.ndarray, device: torch.device) -> tuple:
        """x and y of these rows; tensors on the device, arrays as they are."""
        return tuple(
            value[torch.from_numpy(rows).to(value.device)].to(device)
            if isinstance(value, torch.Tensor)
            else value[rows]
            for value in (self.x, self.y)
        )

    @cached_property
    def digest(self) -> str:
        """Tells these records and members from any others."""
        digest = hashlib.sha256()
        for value in (self.x, self.y, self.member):
            digest.update(f"{type(value).__name__} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(_bytes(value).data)
        return digest.hexdigest()

    def twice(self) -> int:
        """How many non-members are, to the bit, also members."""
        rows = _bytes(self.x).reshape(len(self.labels), -1)
        keys = [hashlib.sha256(row.data).digest() for row in rows]
        members = {key for key, member in zip(keys, self.member) if member}
        return sum(key in members for key, member in zip(keys, self.member) if not member)


def _bytes(value) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8)


def read_records(task: Task) -> TaskRecords:
    """What the task's `data()` gives. Raises UserError where it is not what it should be."""
    x, y, member = task.data()
    where = f"{task.path.name}: data()"
    for name, value in (("x", x), ("y", y)):
        if not isinstance(value, torch.Tensor | np.ndarray):
            raise UserError(
                f"{where}: {name} must be a torch tensor or a numpy array, not a "
                f"{type(value).__name__}"
            )
        if isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
            raise UserError(f"{where}: {name} must hold numbers, not {value.dtype}")
    if x.ndim < 2:
        raise UserError(f"{where}: x must be (N, ...), a record a row, not {tuple(x.shape)}")
    n = len(x)
    labels, members = _labels(y, n, where), _members(member, n, where)
    bad = np.flatnonzero(~_finite_rows(x))
    if len(bad):
        raise UserError(f"{where}: row {bad[0]} of x holds NaN or infinity")
    return TaskRecords(x, y, labels, members)


def _finite_rows(x) -> np.ndarray:
    if isinstance(x, torch.Tensor):
        return torch.isfinite(x.reshape(len(x), -1)).all(dim=1).cpu().numpy()
    return np.isfinite(x.reshape(len(x), -1)).all(axis=1)


def _labels(y, n: int, where: str) -> np.ndarray:
    found = y.detach().cpu().numpy() if isinstance(y, torch.Tensor) else y
    if found.shape != (n,):
        raise UserError(
            f"{where}: y must be (N,), the number of each record's class; x has N = {n} records, "
            f"and y is {tuple(found.shape)}"
        )
    wrong = np.flatnonzero(~np.isfinite(found) | (found < 0) | (found != np.floor(found)))
    if len(wrong):
        raise UserError(
            f"{where}: y must hold classes 0, 1, 2, ...; y[{wrong[0]}] is {found[wrong[0]]:g}"
        )
    return found.astype(np.int64)


def _members(member, n: int, where: str) -> np.ndarray:
    found = member.detach().cpu().numpy() if isinstance(member, torch.Tensor) else member
    found = np.asarray(found)
    if found.shape != (n,) or (found.dtype != bool and not np.isin(found, (0, 1)).all()):
        raise UserError(
            f"{where}: the third, member, must hold True or False for each of the {n} records; it "
            f"is {found.dtype} of shape {found.shape}"
        )
    found = found.astype(bool)
    for count, what, other in (
        (found.sum(), "members", "records that the released model was trained on"),
        ((~found).sum(), "non-members", "records like them that it was not trained on"),
    ):
        if count < _FEWEST:
            raise UserError(
                f"{where}: {count} of {n} records are {what}, and at least {_FEWEST} are needed: "
                f"{other}"
            )
    return found
