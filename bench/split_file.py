"""split.npz: the train, dev and test records of each role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.layout import ModelSet
from core.files import atomic_write, user_error_if_damaged
from datasets import SPLITS, RoleSplit

PARTS = ("train", "dev", "test")


def as_arrays(splits: Mapping[str, RoleSplit]) -> dict[str, np.ndarray]:
    """The record numbers by `{role}_{part}`."""
    return {
        f"{role}_{part}": indices
        for role, split in splits.items()
        for part, indices in vars(split).items()
    }


def as_splits(arrays: Mapping[str, np.ndarray], roles: list[str]) -> dict[str, RoleSplit]:
    """What `as_arrays` made arrays of."""
    return {role: RoleSplit(*(arrays[f"{role}_{part}"] for part in PARTS)) for role in roles}


def read_split(models: ModelSet) -> tuple[dict, dict[str, np.ndarray]]:
    """The options that the stored split was made by, `split` and `attacker_records`, and its arrays.
    Raises UserError where it cannot be read."""
    path = models.split_file
    with user_error_if_damaged(path), np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
        kind = str(arrays.pop("kind", "paper"))
        share = float(arrays.pop("attacker_records", 1.0))
        numbers = all(indices.dtype == np.int64 for indices in arrays.values())
        if not (kind in SPLITS and "victim_train" in arrays and numbers):
            raise ValueError("it holds something else")
        return {"split": kind, "attacker_records": share}, arrays


def write_split(models: ModelSet, splits: Mapping[str, RoleSplit]) -> None:
    """Store the split, in place of any that is there."""
    arrays: dict[str, Any] = {"kind": np.array(models.options.split)} | as_arrays(splits)
    if models.options.attacker_records < 1:
        arrays["attacker_records"] = np.array(models.options.attacker_records)
    with atomic_write(models.split_file) as file:
        np.savez(file, **arrays)
