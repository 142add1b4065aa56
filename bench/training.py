"""Training of all roles, the victim and every shadow model alike."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from types import SimpleNamespace

import torch

import datasets
import models
from core import console
from base_model import BaseModel, Diverged, Objective, Progress, Stack, TrainConfig, TrainSet
from bench.store import Checkpoint, Store, digest
from core.console import UserError, percent, say
from core.devices import choose_device, choose_precision, generator
from core.parallel import WorkerDied, available_cores, parallel_map, tune_malloc
from datasets import Records, RoleSplit
from defenders import DEFENDERS
from models import MODELS, stack
from pruner import mask

AT_CHANCE = " (!)"


def load_device_and_data(options: SimpleNamespace) -> tuple[torch.device, Records]:
    """The device and all records, in the main memory; sets threads and, where not given, `options.workers`.

    Raises:
        UserError: device, data and network do not fit together.
    """
    tune_malloc()
    device = choose_device(options.device)
    if options.workers is None:
        options.workers = available_cores() if device.type == "cpu" else 1
    torch.set_num_threads(
        options.threads if options.workers == 1 else 1
    )  # see `parallel_map` on forks
    records = datasets.load(
        options.dataset_name,
        data_path=options.data_path,
        data_root=options.data_root,
        num_cls=options.num_cls,
        input_dim=options.input_dim,
    )
    models.check_fit(options.model_name, records.shape)
    fits = models.input_dim(options.model_name, records.shape)
    if options.input_dim != fits:
        raise UserError(
            f"input_dim must be {fits} for {options.model_name} on records of shape {records.shape}, "
            f"not {options.input_dim}"
        )
    shape = "x".join(map(str, records.shape))
    say(
        f"{options.dataset_name}: {len(records)} records of {shape}, {records.num_cls} classes; "
        f"{options.model_name} on {device}"
    )
    return device, records.to("cpu")


@lru_cache(maxsize=1)
def on_device(records: Records, device: torch.device) -> Records:
    """The records on a device, copied once in each process that asks: a GPU must not be touched before a fork."""
    return records.to(device)


def new_model(
    options: SimpleNamespace, records: Records, role: str, stage: str, device: torch.device
) -> BaseModel:
    """A fresh model for a role; all of its randomness is its own."""
    draw = generator(options.train_seed, stage, role)
    network = models.build(
        options.model_name, shape=records.shape, num_cls=records.num_cls, generator=draw
    )
    return BaseModel(network, device=device, generator=draw, precision=precision(options, device))


def precision(options: SimpleNamespace, device: torch.device) -> str:
    """What models of this network train in on this device; private gradients are float32 always."""
    if options.defend == "dp":
        return "fp32"
    convolves = "Conv2d" in MODELS[options.model_name].options["layers"]
    return choose_precision(options.precision, device, convolves=convolves)


def stored_model(
    options: SimpleNamespace,
    records: Records,
    role: str,
    stage: str,
    device: torch.device,
    *,
    weights: dict[str, torch.Tensor],
) -> BaseModel:
    """A model with these weights, and for this stage's randomness a new start."""
    model = new_model(options, records, role, stage, device)
    model.network.load_state_dict(weights)
    return model


class TrainingFailed(UserError):
    """A model cannot be trained, which says nothing of the others."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """How a stage trains all of its roles.

    Attributes:
        store, version: where the models go.
        records: in the main memory; they are trained on `device`.
        splits: each role's record numbers.
        start: the model, with its masks if it is pruned, from which a role's training starts.
        epochs: the most.
        defend: name of the defence.
        parents: digests of the originals that models are pruned from.
        title: of the closing table.
    """

    store: Store
    version: str
    device: torch.device
    records: Records
    splits: Mapping[str, RoleSplit]
    start: Callable[[str], BaseModel]
    epochs: int
    title: str
    defend: str = ""
    parents: Mapping[str, str] = field(default_factory=dict)

    @property
    def options(self) -> SimpleNamespace:
        return self.store.options

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
                sorted(self.store.record.items(), key=str),
            )
            named["key"] = hashlib.sha256(repr(purpose).encode()).digest()
        return DEFENDERS.load(self.defend)(options.defend_arg, **named)

    def privacy(self, role: str) -> dict | None:
        """What differential privacy guarantees of a role's training (see `store.Checkpoint`); None without it."""
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

    Returns what differential privacy guarantees of each. Roles are trained side by side in processes; on a GPU, those
    of equal size together as one `Stack` where the network and the defence allow it.
    """
    for role in plan.splits:  # that there is a guarantee is known before any work
        plan.privacy(role)
    options = plan.options
    most = 1 if plan.device.type == "cpu" or options.workers > 1 else _stack_size(plan)
    groups = stacks(plan.splits, most=most)
    rows, privacy = {}, {}

    def train(label: str, progress) -> list[tuple]:
        return _train_and_store(plan, groups[label], label, progress)

    failed = {}
    for group, stored in parallel_map(
        train,
        groups,
        workers=options.workers,
        threads=options.threads,
        goes_on=(TrainingFailed, MemoryError, WorkerDied),
    ):
        if isinstance(stored, Exception):
            failed[group] = stored
            continue
        for role, line, rows[role], privacy[role] in stored:
            say(f"{role}: {line}")
    made = [rows[role] for role in plan.splits if role in rows]
    if made:
        header = ["model", "epoch", "train %", "dev %", "test %", "pruned %"]
        console.table(plan.title, header[: len(made[0])], made)
    if any(row[0].endswith(AT_CHANCE) for row in rows.values()):
        say(
            f"{AT_CHANCE.strip()} no better than always naming the most frequent class: attacks on it mean nothing"
        )
    if failed:
        raise _of_failures(failed, groups)
    return privacy


def _of_failures(failed: dict[str, Exception], groups: dict[str, list[str]]) -> UserError:
    """The error of a stage in which some groups of models could not be trained: the first one's, and who they are."""
    group, error = next(iter(failed.items()))
    reason = {TrainingFailed: str(error), WorkerDied: f"{group}: {error}"}.get(
        type(error), f"{group}: the memory is too small: try fewer --workers"
    )
    others = [role for name in failed if name != group for role in groups[name]]
    done = sum(map(len, groups.values())) - sum(len(groups[name]) for name in failed)
    return UserError(
        reason
        + (f"; failed too: {', '.join(others)}" if others else "")
        + (f"; {done} model{'s are' if done > 1 else ' is'} finished and kept" if done else "")
    )


def _stack_size(plan: TrainingPlan) -> int:
    """How many models can be trained on a GPU as one: as many as take a quarter of its memory; 1 = only alone."""
    network = plan.start("victim").network
    if not stack.fits(network) or not DEFENDERS.load(plan.defend).is_stackable():
        return 1
    parameters = sum(parameter.numel() for parameter in network.parameters())
    each = (
        4 * 6 * parameters
    )  # float32: weights, gradients, two moments, the best so far, and one to spare
    return max(1, torch.cuda.get_device_properties(plan.device).total_memory // 4 // each)


def stacks(splits: Mapping[str, RoleSplit], *, most: int) -> dict[str, list[str]]:
    """Roles whose splits have the same sizes, at most so many together, under a label for each group."""
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


def _train_and_store(
    plan: TrainingPlan, roles: list[str], label: str, progress: Callable
) -> list[tuple[str, str, list[str], dict | None]]:
    """Train those models of some roles that are not there yet, and store their best weights.

    Returns role, what was done, the row of the closing table and the privacy of each.
    """
    store, records = plan.store, on_device(plan.records, plan.device)
    with ExitStack() as locks:
        for role in roles:
            locks.enter_context(store.making(role, plan.version))
        chosen = precision(plan.options, records.y.device)
        reused = {
            role: store.finished(
                role, plan.version, plan.splits[role], precision=chosen, parent=plan.parent(role)
            )
            for role in roles
        }
        missing = [role for role, checkpoint in reused.items() if checkpoint is None]
        trained = _train(plan, missing, label, progress) if missing else {}
    lines = []
    for role in roles:
        checkpoint = trained.get(role) or reused[role]
        labels = records.y[torch.from_numpy(plan.splits[role].test).to(records.y.device)]
        chance = (labels.bincount().max() / len(labels)).item()
        warning = AT_CHANCE if checkpoint.accuracy["test"] <= chance else ""
        row = [
            role + warning,
            f"{checkpoint.epoch} of {checkpoint.ran}",
            *map(percent, checkpoint.accuracy.values()),
        ]
        if checkpoint.masks is not None:
            row.append(percent(mask.sparsity(checkpoint.masks)))
        done = "saved" if role in trained else "kept"
        lines.append((role, f"{done} {store.folder(role, plan.version)}", row, checkpoint.privacy))
    return lines


def _train(
    plan: TrainingPlan, roles: list[str], label: str, progress: Callable
) -> dict[str, Checkpoint]:
    """Train these roles, together if they are several, and store their checkpoints."""
    store, records, began = plan.store, on_device(plan.records, plan.device), time.time()
    indices = {
        name: torch.stack([torch.from_numpy(vars(plan.splits[role])[name]) for role in roles]).to(
            plan.device
        )
        for name in vars(plan.splits[roles[0]])
    }
    if len(roles) == 1:
        indices = {name: numbers[0] for name, numbers in indices.items()}
    models = [plan.start(role) for role in roles]
    resume = store.resume(
        roles,
        plan.version,
        plan.splits,
        precision=models[0].precision,
        device=plan.device.type,
        parents=[plan.parent(role) for role in roles],
    )
    scalars = store.scalars(roles, plan.version)
    on_epoch, close = progress(plan.epochs, label)
    try:
        trained, histories = _fit(
            plan,
            roles,
            models,
            TrainSet(records, indices["train"], indices["dev"]),
            [Progress(on_epoch), scalars, resume],
        )
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
        made[role] = Checkpoint(
            weights={name: tensor.cpu() for name, tensor in model.network.state_dict().items()},
            options=store.record | {"precision": model.precision},
            epoch=history.best_epoch,
            ran=len(history.dev_accuracy),
            accuracy=dict(zip(indices, values)),
            split=digest(plan.splits[role]),
            data=store.data,
            parent=plan.parent(role),
            masks=model.masks,
            privacy=plan.privacy(role),
        )
        store.save(role, plan.version, made[role], device=str(plan.device), start=began)
    return made


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
