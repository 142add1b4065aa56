"""Training of all roles, the victim and every shadow model alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from core import console
from bench.checkpoints import Checkpoint, check_kept_epochs, reusable_checkpoint
from bench.group_training import Group, TrainingFailed
from bench.plan import TrainingPlan
from bench.role_models import precision
from bench.rounds import Round
from bench.sizes import size_in_words
from core.console import UserError, percent, say
from core.parallel import WorkerDied, parallel_map
from datasets import RoleSplit
from defenders import DEFENDERS
from models import stack
from pruner import mask

AT_CHANCE = " (!)"


def train_roles(plan: TrainingPlan) -> dict[str, dict | None]:
    """Train every role from its start, store its best weights, and print a table of all models.

    Returns what differential privacy guarantees of each. Roles are trained side by side in
    processes; on a GPU, those of equal size together as one `Stack` where the network and the
    defence allow it.
    """
    for role in plan.splits:  # that there is a guarantee is known before any work
        plan.privacy(role)
    options, workers = plan.options, plan.options.workers or 1
    most = 1 if plan.device.type == "cpu" or workers > 1 else _stack_size(plan)
    groups = stacks(plan.splits, most=most)
    outcomes: dict[str, Outcome] = {}
    failed: dict[str, Exception] = {}

    def train(label: str, progress) -> list[Outcome]:
        return _train_and_store(plan, groups[label], label, progress)

    result: list[Outcome] | Exception
    for group, result in parallel_map(  # type: ignore[assignment]
        train,
        groups,
        workers=workers,
        threads=options.threads,
        goes_on=(TrainingFailed, MemoryError, WorkerDied),
    ):
        if isinstance(result, Exception):
            failed[group] = result
            continue
        for outcome in result:
            say(f"{outcome.role}: {outcome.line}")
            outcomes[outcome.role] = outcome
    rows = [outcomes[role].row for role in plan.splits if role in outcomes]
    if rows:
        header = ["model", "epoch", "train %", "dev %", "test %", "pruned %"]
        console.table(plan.title, header[: len(rows[0])], rows)
        if "victim" in outcomes and (size := outcomes["victim"].size):
            say(f"victim: {size_in_words(size)}")
    if any(row[0].endswith(AT_CHANCE) for row in rows):
        say(
            f"{AT_CHANCE.strip()} no better than always naming the most frequent class: attacks on "
            f"it mean nothing"
        )
    if failed:
        raise _of_failures(failed, groups)
    return {role: outcome.privacy for role, outcome in outcomes.items()}


def _of_failures(failed: dict[str, Exception], groups: dict[str, list[str]]) -> UserError:
    """The error of a stage in which some groups of models could not be trained: the first one's,
    and who they are."""
    group, error = next(iter(failed.items()))
    if isinstance(error, TrainingFailed):
        reason = str(error)
    elif isinstance(error, WorkerDied):
        reason = f"{group}: {error}"
    else:
        reason = f"{group}: the memory is too small: try fewer --workers"
    others = [role for name in failed if name != group for role in groups[name]]
    done = sum(map(len, groups.values())) - sum(len(groups[name]) for name in failed)
    return UserError(
        reason
        + (f"; failed too: {', '.join(others)}" if others else "")
        + (f"; {done} model{'s are' if done > 1 else ' is'} finished and kept" if done else "")
    )


def _stack_size(plan: TrainingPlan) -> int:
    """How many models can be trained on a GPU as one: as many as take a quarter of its memory; 1 =
    only alone."""
    if plan.models.quantizer:  # of which no stack is made, and whose start may take its time
        return 1
    network = plan.start("victim", Round()).network
    if not stack.fits(network) or not DEFENDERS.load(plan.defend).is_stackable():
        return 1
    parameters = sum(parameter.numel() for parameter in network.parameters())
    each = (
        4 * 6 * parameters
    )  # float32: weights, gradients, two moments, the best so far, and one to spare
    return max(1, torch.cuda.get_device_properties(plan.device).total_memory // 4 // each)


def stacks(splits: Mapping[str, RoleSplit], *, most: int) -> dict[str, list[str]]:
    """Roles whose splits have the same sizes, at most so many together, under a label for each
    group."""
    groups: dict[tuple, list[str]] = {}
    for role, split in splits.items():
        groups.setdefault(tuple(map(len, vars(split).values())), []).append(role)
    chunks = [
        roles[first : first + most]
        for roles in groups.values()
        for first in range(0, len(roles), most)
    ]
    return {
        roles[0] + (f" and {len(roles) - 1} more" if len(roles) > 1 else ""): roles
        for roles in chunks
    }


@dataclass(frozen=True)
class Outcome:
    """What came of a role.

    Attributes:
        line: what was done.
        row: of the closing table.
        privacy: what is guaranteed of it; None where nothing is.
        size: what it takes, see `Checkpoint`.
    """

    role: str
    line: str
    row: list[str]
    privacy: dict | None
    size: dict | None


def _train_and_store(
    plan: TrainingPlan, roles: list[str], label: str, progress: Callable
) -> list[Outcome]:
    """Train those models of some roles that are not there yet, and store their best weights."""
    with ExitStack() as locks:
        for role in roles:
            locks.enter_context(plan.models.lock(role))
        chosen = precision(plan.options, plan.device)
        checkpoints = {}
        for role in roles:
            stored = reusable_checkpoint(
                plan.models, role, plan.splits[role], precision=chosen, parent=plan.parent(role)
            )
            if stored is not None:
                check_kept_epochs(plan.models, role, stored, plan.keep_epochs)
                checkpoints[role] = stored
        missing = [role for role in roles if role not in checkpoints]
        if missing:
            checkpoints |= Group(plan, missing, label, progress).train()
        return [
            _outcome(plan, role, checkpoints[role], "saved" if role in missing else "kept")
            for role in roles
        ]


def _outcome(plan: TrainingPlan, role: str, checkpoint: Checkpoint, done: str) -> Outcome:
    labels = plan.records.y[torch.from_numpy(plan.splits[role].test)]
    chance = (labels.bincount().max() / len(labels)).item()
    warning = AT_CHANCE if checkpoint.accuracy["test"] <= chance else ""
    row = [
        role + warning,
        f"{checkpoint.epoch} of {checkpoint.ran}",
        *map(percent, checkpoint.accuracy.values()),
    ]
    masks = checkpoint.masks()
    if masks is not None:
        row.append(percent(mask.sparsity(masks)))
    line = f"{done} {plan.models.folder(role)}"
    return Outcome(role, line, row, checkpoint.privacy, checkpoint.size)
