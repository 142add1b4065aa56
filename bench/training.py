"""Training of all roles, the victim and every shadow model alike."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import torch

from core import console
from base_model import BaseModel, Diverged, Objective, Progress, Stack, TrainConfig, TrainSet
from bench.callbacks import Resume, Scalars
from bench.checkpoints import (
    Checkpoint,
    made_now,
    made_of,
    refuse_differences,
    reusable_checkpoint,
    save_checkpoint,
    split_digest,
)
from bench.layout import RESUME, SCALARS, ModelSet
from bench.options import Options
from bench.remedies import MUST_MATCH_TO_REUSE, maker
from bench.role_models import on_device, precision
from bench.run import Run
from core.console import UserError, percent, say
from core.devices import generator
from core.parallel import WorkerDied, parallel_map
from datasets import Records, RoleSplit
from defenders import DEFENDERS
from models import stack
from pruner import mask

AT_CHANCE = " (!)"


class TrainingFailed(UserError):
    """A model cannot be trained, which says nothing of the others."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """How a stage trains all of its roles.

    Attributes:
        run: options, device, records and split.
        models: the version that is made.
        start: the model, with its masks if it is pruned, from which a role's training starts.
        epochs: the most.
        defend: name of the defence.
        parents: digests of the originals that models are pruned from.
        title: of the closing table.
    """

    run: Run
    models: ModelSet
    start: Callable[[str], BaseModel]
    epochs: int
    title: str
    defend: str = ""
    parents: Mapping[str, str] = field(default_factory=dict)

    @property
    def options(self) -> Options:
        return self.run.options

    @property
    def device(self) -> torch.device:
        return self.run.device

    @property
    def records(self) -> Records:
        return self.run.records

    @property
    def splits(self) -> Mapping[str, RoleSplit]:
        return self.run.splits

    @property
    def config(self) -> TrainConfig:
        options = self.options
        return TrainConfig(
            epochs=self.epochs,
            batch_size=options.batch_size,
            optimizer=options.optimizer,
            lr=options.lr,
            weight_decay=options.weight_decay,
            early_stop=options.early_stop,
        )

    def objective(self, roles: Sequence[str] = ()) -> Objective:
        """The defence, for the training of these roles."""
        entry, options = DEFENDERS[self.defend].options, self.options
        named = {name: getattr(options, name) for name in entry.get("option_names", ())}
        if entry.get("keyed"):
            # no two trainings may share the noise that is to hide something, not even of one seed
            purpose = (
                options.train_seed,
                options.stage,
                list(roles),
                sorted(options.record.items(), key=str),
            )
            named["key"] = hashlib.sha256(repr(purpose).encode()).digest()
        return DEFENDERS.load(self.defend)(options.defend_arg, **named)

    def privacy(self, role: str) -> dict | None:
        """What differential privacy guarantees of a role's training (see `Checkpoint`); None
        without it."""
        return self.objective().privacy(
            n=len(self.splits[role].train),
            batch_size=self.options.batch_size,
            epochs=self.epochs,
            delta=self.options.delta,
        )

    def parent(self, role: str) -> str:
        return self.parents.get(role, "")

    def order_generator(self, role: str) -> torch.Generator:
        """Of the order of a role's batches, and of what its objective draws."""
        return generator(
            self.options.train_seed, self.options.stage, role, "order", device=self.device
        )


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
    network = plan.start("victim").network
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
    """

    role: str
    line: str
    row: list[str]
    privacy: dict | None


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
                checkpoints[role] = stored
        missing = [role for role in roles if role not in checkpoints]
        if missing:
            checkpoints |= _train(plan, missing, label, progress)
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
    return Outcome(role, f"{done} {plan.models.folder(role)}", row, checkpoint.privacy)


def _train(
    plan: TrainingPlan, roles: list[str], label: str, progress: Callable
) -> dict[str, Checkpoint]:
    """Train these roles, together if they are several, and store their checkpoints."""
    records, began = on_device(plan.records, plan.device), time.time()
    indices = _indices(plan, roles)
    models = [plan.start(role) for role in roles]
    scalars = Scalars([plan.models.file(role, SCALARS) for role in roles], plan.options)
    on_epoch, close = progress(plan.epochs, label)
    callbacks = [Progress(on_epoch), scalars, _resume(plan, roles, models[0].precision)]
    data = TrainSet(records, indices["train"], indices["dev"])
    try:
        trained, histories = _fit(plan, roles, models, data, callbacks)
    except Diverged as error:
        smaller = "--dp_lr or --max_grad_norm" if plan.defend == "dp" else "--lr"
        raise TrainingFailed(f"{label}: {error}: try a smaller {smaller}") from error
    except torch.cuda.OutOfMemoryError as error:
        size = plan.options.batch_size
        raise TrainingFailed(
            f"{label}: the GPU's memory is too small for --batch_size {size}: "
            f"try --batch_size {max(2, size // 2)}"
        ) from error
    finally:
        scalars.close()
    close()
    accuracies = zip(*(trained.accuracies(records, numbers) for numbers in indices.values()))
    made = {}
    for role, model, history, values in zip(roles, models, histories, accuracies):
        checkpoint = Checkpoint(
            options=plan.options.record | {"precision": model.precision},
            epoch=history.best_epoch,
            ran=len(history.dev_accuracy),
            accuracy=dict(zip(indices, values)),
            split=split_digest(plan.splits[role]),
            data=plan.models.data,
            parent=plan.parent(role),
            privacy=plan.privacy(role),
        )
        weights = {name: tensor.cpu() for name, tensor in model.network.state_dict().items()}
        how = made_now(device=str(plan.device), start=began, workers=plan.options.workers)
        state = {"weights": weights, "masks": model.masks}
        made[role] = save_checkpoint(plan.models, role, checkpoint, state, made=how)
    return made


def _indices(plan: TrainingPlan, roles: list[str]) -> dict[str, torch.Tensor]:
    """The train, dev and test records (n,) of a role, or (K, n) of K roles, on the device."""
    indices = {
        part: torch.stack([torch.from_numpy(vars(plan.splits[role])[part]) for role in roles])
        for part in vars(plan.splits[roles[0]])
    }
    return {
        part: (numbers if len(roles) > 1 else numbers[0]).to(plan.device)
        for part, numbers in indices.items()
    }


def _resume(plan: TrainingPlan, roles: list[str], precision: str) -> Resume:
    """Where the training of one role's model, or of a stack of several, keeps its state."""
    models, role = plan.models, roles[0]
    facts = made_of(
        models,
        [plan.splits[one] for one in roles],
        MUST_MATCH_TO_REUSE[maker(models)],
        precision=precision,
        parents=[plan.parent(one) for one in roles],
    )
    return Resume(
        models.file(role, RESUME),
        facts,
        [plan.device.type, *roles],
        plan.options,
        partial(refuse_differences, models=models, role=role),
    )


def _fit(
    plan: TrainingPlan, roles: list[str], models: list[BaseModel], data: TrainSet, callbacks: list
) -> tuple:
    """Train one model, or several as a stack; returns what was trained, and a history of each."""
    draws = [plan.order_generator(role) for role in roles]
    objective = plan.objective(roles)
    if len(models) > 1:
        together = Stack(models)
        return together, together.train_each(
            data, plan.config, generators=draws, objective=objective, callbacks=callbacks
        )
    (model,) = models
    objective.setup(data, batch_size=plan.config.batch_size, generator=draws[0])
    return model, [
        model.train(data, plan.config, generator=draws[0], objective=objective, callbacks=callbacks)
    ]
