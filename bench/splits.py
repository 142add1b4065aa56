"""The split of a results folder: made once, and followed by every later stage."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from bench.checkpoints import refuse_foreign
from bench.configs import format_value
from bench.layout import ModelSet
from bench.remedies import command_that_remakes, made_with, missing, or_fresh
from bench.split_file import PARTS, as_arrays, as_splits, read_split, write_split
from core.console import UserError
from core.files import locked, user_error_if_damaged
from core.inputs import check_folder
from datasets import RoleSplit, check_even, dealt


def save_split(models: ModelSet, splits: Mapping[str, RoleSplit]) -> Path:
    """Store the split. One that lies there stays if it says the same of more shadows.

    Raises UserError where it says otherwise or cannot be read, unless the options say `fresh`.
    """
    path, originals = models.split_file, models.originals
    with ExitStack() as locks:
        locks.enter_context(locked(models.root, "split", wait=60, makes=[path.name]))
        if os.path.exists(path):
            if models.options.fresh:
                for role in splits:  # those at work on models of the split that goes keep theirs
                    locks.enter_context(originals.lock(role))
            elif _is_stored(models, splits):
                return path
        write_split(models, splits)
    return path


def _is_stored(models: ModelSet, splits: Mapping[str, RoleSplit]) -> bool:
    """Whether all of a split lies there. Raises UserError where another one does."""
    path, options, arrays = models.split_file, models.options, as_arrays(splits)
    with or_fresh():
        made_by, stored = read_split(models)
    for name, value in made_by.items():
        asked = getattr(options, name)
        if value != asked:
            raise UserError(
                f"{path} is of --{name} {format_value(value)}, not {format_value(asked)}: use "
                f"another --results folder, or start over with --fresh"
            )
    if any(not np.array_equal(stored[key], arrays[key]) for key in arrays if key in stored):
        seed = made_with(models.originals).get("seed", options.seed)
        again = "give that seed again" if seed == options.seed else f"give --seed {seed} again"
        raise UserError(
            f"{path} splits other records or was made with another seed: {again}, use another "
            f"--results folder, or start over with --fresh"
        )
    return all(key in stored for key in arrays)


def load_split(models: ModelSet, n: int) -> tuple[dict, dict[str, RoleSplit]]:
    """The options of the split that pretrain.py stored (see `read_split`), and the records of the
    victim and the first `shadow_num` shadows.

    Raises UserError where there is none, one of fewer shadows, or one of another number of records
    than `n`; and where nothing can be written beside it, before any work is done in vain.
    """
    path, roles, originals = models.split_file, models.roles, models.originals
    if not os.path.exists(path):  # unlike Path.exists, False also for a name that is too long
        for role in roles:
            refuse_foreign(originals, role)
        check_folder("results", models.options.results)
        missing(path, originals)
    made_by, arrays = read_split(models)
    if f"{roles[-1]}_{PARTS[-1]}" not in arrays:
        there = sum(key.startswith("shadow_") and key.endswith("_train") for key in arrays)
        missing(
            originals.folder(roles[-1]),
            originals,
            f"use the {there} there are by --shadow_num {there}",
        )
    if made_by["split"] == "inout":
        check_even(models.options.shadow_num)
    if not os.access(models.root, os.W_OK):
        raise UserError(f"cannot write in {models.root}: permission denied")
    with user_error_if_damaged(path):
        splits = as_splits(arrays, roles)
    both = [array for role in roles[:2] for array in vars(splits[role]).values()]
    count = len(np.unique(np.concatenate(both)))  # of the victim and of all others
    if count != dealt(n, made_by["attacker_records"]):
        raise UserError(
            f"{path} splits {count} records, the data set has {n}: run "
            f"`{command_that_remakes(originals)}`, or use another --results folder"
        )
    return made_by, splits
