"""What the stages do with each role (the victim and every shadow model alike)."""
from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace

import torch

from core import console
import datasets
import models
from base_model import BaseModel, Diverged, Recipe, Stack, choose_device, choose_precision, generator
from core.console import UserError, percent, say
from datasets import Part, Records
from defenders import DEFENDERS
from defenders.basic import Basic
from models import MODELS, stack
from pruner import mask
from store import Checkpoint, Store, digest
from core.parallel import WorkerDied, cores, keep_freed_memory, side_by_side


def prepare(options: SimpleNamespace) -> tuple[torch.device, Records]:
    """The device and all records, in the main memory; sets threads and, where not given, `options.workers`.

    Raises UserError where device, data and network don't fit together.
    """
    keep_freed_memory()
    device = choose_device(options.device)
    if options.workers is None:
        options.workers = cores() if device.type == "cpu" else 1
    torch.set_num_threads(options.threads if options.workers == 1 else 1)  # see `side_by_side` on forks
    records = datasets.load(options.dataset_name, data_path=options.data_path, data_root=options.data_root,
                            num_cls=options.num_cls, input_dim=options.input_dim)
    models.check_fit(options.model_name, records.shape)
    fits = models.input_dim(options.model_name, records.shape)
    if options.input_dim != fits:
        raise UserError(f"input_dim must be {fits} for {options.model_name} on records of shape {records.shape}, "
                        f"not {options.input_dim}")
    shape = "x".join(map(str, records.shape))
    say(f"{options.dataset_name}: {len(records)} records of {shape}, {records.num_cls} classes; "
        f"{options.model_name} on {device}")
    return device, records.to("cpu")


AT_CHANCE = " (!)"


@lru_cache(maxsize=1)
def on_device(records: Records, device: torch.device) -> Records:
    """The records on a device, copied once in each process that asks: a GPU must not be touched before a fork."""
    return records.to(device)


def new_model(options: SimpleNamespace, records: Records, role: str, stage: str, device: torch.device) -> BaseModel:
    """A fresh model for a role; all of its randomness is its own."""
    draw = generator(options.train_seed, stage, role)
    network = models.build(options.model_name, shape=records.shape, num_cls=records.num_cls, generator=draw)
    return BaseModel(network, device=device, generator=draw, precision=precision(options, device))


def precision(options: SimpleNamespace, device: torch.device) -> str:
    """What models of this network train in on this device; private gradients are float32 always."""
    if options.defend == "dp":
        return "fp32"
    convolves = "Conv2d" in MODELS[options.model_name].options["layers"]
    return choose_precision(options.precision, device, convolves=convolves)


def stored_model(options: SimpleNamespace, records: Records, role: str, stage: str, device: torch.device,
                 checkpoint: Checkpoint) -> BaseModel:
    """A model with the weights of a checkpoint, and for this stage's randomness a new start."""
    model = new_model(options, records, role, stage, device)
    model.network.load_state_dict(checkpoint.weights)
    return model


class TrainingFailed(UserError):
    """A model cannot be trained, which says nothing of the others."""


@dataclass(frozen=True)
class Start:
    """What a role's training starts from: a model, and of a pruned one its masks."""

    model: BaseModel
    masks: dict[str, torch.Tensor] | None = None


def train_all(start: Callable[[str], Start], device: torch.device, records: Records, parts: dict[str, Part], *,
              store: Store, version: str, epochs: int, title: str, defend: str = "",
              parents: dict[str, str] | None = None) -> dict[str, dict | None]:
    """Train every role from its start, store its best weights, and print a table of all models.

    Returns what differential privacy guarantees of each (see `store.Checkpoint`). `parents` are the digests of the
    originals that models are pruned from.

    Roles are trained side by side in processes; on a GPU, those of equal size together as one `Stack` where the
    network and the defence allow it.
    """
    options = store.options

    def train(group: str, watch) -> list[tuple]:
        return _train_and_store(groups[group], start, on_device(records, device), parts, store=store, version=version,
                                epochs=epochs, defend=defend, watch=watch, label=group, parents=parents or {})

    for part in parts.values():  # that there is a guarantee is known before any work
        _privacy(options, part, _defender(options, defend), epochs)
    most = 1 if device.type == "cpu" or options.workers > 1 else _stackable(start, defend, device)
    groups = stacks(parts, most=most)
    rows, privacy = {}, {}
    failed = {}
    for group, stored in side_by_side(train, groups, workers=options.workers, threads=options.threads,
                                      goes_on=(TrainingFailed, MemoryError, WorkerDied)):
        if isinstance(stored, Exception):
            failed[group] = stored
            continue
        for role, said, rows[role], privacy[role] in stored:
            say(f"{role}: {said}")
    made = [rows[role] for role in parts if role in rows]
    if made:
        header = ["model", "epoch", "train %", "dev %", "test %", "pruned %"]
        console.table(title, header[:len(made[0])], made)
    if any(row[0].endswith(AT_CHANCE) for row in rows.values()):
        say(f"{AT_CHANCE.strip()} no better than always naming the most frequent class: attacks on it mean nothing")
    if failed:
        raise _of_failures(failed, groups)
    return privacy


def _of_failures(failed: dict[str, Exception], groups: dict[str, list[str]]) -> UserError:
    """The error of a stage in which some groups of models could not be trained: the first one's, and who they are."""
    group, error = next(iter(failed.items()))
    said = {TrainingFailed: str(error), WorkerDied: f"{group}: {error}"}.get(
        type(error), f"{group}: the memory is too small: try fewer --workers")
    others = [role for name in failed if name != group for role in groups[name]]
    done = sum(map(len, groups.values())) - sum(len(groups[name]) for name in failed)
    return UserError(said + (f"; failed too: {', '.join(others)}" if others else "")
                     + (f"; {done} model{'s are' if done > 1 else ' is'} finished and kept" if done else ""))


def _defender(options: SimpleNamespace, defend: str, key: bytes = b"") -> Basic:
    """A defence with its options; `key` is of what follows from the seed and not from a generator."""
    own = {name: getattr(options, name) for name in DEFENDERS[defend].options.get("own", ())}
    if DEFENDERS[defend].options.get("keyed"):
        own["key"] = key
    return DEFENDERS.load(defend)(options.defend_arg, **own)


def _privacy(options: SimpleNamespace, part: Part, defender: Basic, epochs: int) -> dict | None:
    return defender.privacy(n=len(part.train), batch_size=options.batch_size, epochs=epochs, delta=options.delta)


def _stackable(start: Callable[[str], Start], defend: str, device: torch.device) -> int:
    """How many models can be trained on a GPU as one: as many as take a quarter of its memory; 1 = only alone."""
    network = start("victim").model.network
    if not stack.fits(network) or not _of_logits(DEFENDERS.load(defend)):
        return 1
    parameters = sum(parameter.numel() for parameter in network.parameters())
    each = 4 * 6 * parameters  # float32: weights, gradients, two moments, the best so far, and one to spare
    return max(1, torch.cuda.get_device_properties(device).total_memory // 4 // each)


def _of_logits(defender: type[Basic]) -> bool:
    """Whether all that a defence changes follows from each model's logits."""
    return defender.loss is Basic.loss and defender.step is Basic.step


def stacks(parts: dict[str, Part], *, most: int) -> dict[str, list[str]]:
    """Roles whose parts have the same sizes, at most so many together, under a label for each group."""
    groups: dict[tuple, list[str]] = {}
    for role, part in parts.items():
        groups.setdefault(tuple(map(len, vars(part).values())), []).append(role)
    chunks = [roles[first: first + most] for roles in groups.values() for first in range(0, len(roles), most)]
    return {roles[0] + (f" and {len(roles) - 1} more" if len(roles) > 1 else ""): roles for roles in chunks}


def _train_and_store(roles: list[str], start, records: Records, parts: dict[str, Part], *, store: Store, version: str,
                     epochs: int, defend: str, watch, label: str,
                     parents: dict[str, str]) -> list[tuple[str, str, list[str], dict | None]]:
    """Train those models of some roles that are not there yet, and store their best weights.

    Returns role, what was done, the row of the closing table and the privacy of each.
    """
    with ExitStack() as locks:
        for role in roles:
            locks.enter_context(store.making(role, version))
        chosen = precision(store.options, records.y.device)
        models = {role: store.finished(role, version, parts[role], precision=chosen, parent=parents.get(role, ""))
                  for role in roles}
        missing = [role for role, found in models.items() if found is None]
        did = {role: "saved" if role in missing else "kept" for role in roles}
        if missing:
            models |= _train(missing, start, records, parts, store=store, version=version, epochs=epochs,
                             defend=defend, watch=watch, label=label, parents=parents)
    told = []
    for role, found in models.items():
        labels = records.y[torch.from_numpy(parts[role].test).to(records.y.device)]
        chance = (labels.bincount().max() / len(labels)).item()
        warning = AT_CHANCE if found.accuracy["test"] <= chance else ""
        row = [role + warning, f"{found.epoch} of {found.ran}", *map(percent, found.accuracy.values())]
        if version:
            row.append(percent(mask.sparsity(found.masks)))
        told.append((role, f"{did[role]} {store.folder(role, version)}", row, found.privacy))
    return told


def _train(roles: list[str], start, records: Records, parts: dict[str, Part], *, store: Store, version: str,
           epochs: int, defend: str, watch, label: str, parents: dict[str, str]) -> dict[str, Checkpoint]:
    options, began, place = store.options, time.time(), records.y.device
    recipe = Recipe(epochs=epochs, batch_size=options.batch_size, optimizer=options.optimizer, lr=options.lr,
                    weight_decay=options.weight_decay, early_stop=options.early_stop)
    starts = [start(role) for role in roles]
    resume = store.resume(roles, version, parts, precision=starts[0].model.precision, device=place.type,
                          parents=[parents.get(role, "") for role in roles])
    draws = [generator(options.train_seed, options.stage, role, "order", device=place) for role in roles]
    indices = {name: torch.stack([torch.from_numpy(vars(parts[role])[name]) for role in roles]).to(place)
               for name in vars(parts[roles[0]])}
    # no two trainings may share the noise that is to hide something, not even of one seed
    purpose = (options.train_seed, options.stage, roles, sorted(store.record.items(), key=str))
    defender = _defender(options, defend, key=hashlib.sha256(repr(purpose).encode()).digest())
    on_epoch, close = watch(epochs, label)
    scalars = store.scalars(roles, version)
    try:
        if len(roles) == 1:
            model = starts[0].model
            indices = {name: numbers[0] for name, numbers in indices.items()}
            defender.start(records, train=indices["train"], dev=indices["dev"], batch_size=options.batch_size,
                           generator=draws[0])
            trainings = [model.train(records, indices["train"], dev=indices["dev"], recipe=recipe, generator=draws[0],
                                     defender=defender, resume=resume, on_epoch=on_epoch, scalars=scalars)]
        else:
            model = Stack([one.model for one in starts])
            if starts[0].masks is not None:
                mask.apply(model.network, {name: torch.stack([one.masks[name] for one in starts])
                                           for name in starts[0].masks})
            trainings = model.train(records, indices["train"], dev=indices["dev"], recipe=recipe, generators=draws,
                                    defender=defender, resume=resume, on_epoch=on_epoch, scalars=scalars)
    except Diverged as error:
        smaller = "--dp_lr or --max_grad_norm" if defend == "dp" else "--lr"
        raise TrainingFailed(f"{label}: {error}: try a smaller {smaller}") from error
    except torch.cuda.OutOfMemoryError as error:
        raise TrainingFailed(f"{label}: the GPU's memory is too small for --batch_size {options.batch_size}: "
                        f"try --batch_size {max(2, options.batch_size // 2)}") from error
    finally:
        scalars.close()
    close()
    accuracies = [dict(zip(indices, values))
                  for values in zip(*(model.accuracies(records, numbers) for numbers in indices.values()))]
    made = {}
    for role, one, training, accuracy in zip(roles, starts, trainings, accuracies):
        made[role] = Checkpoint(
            weights={name: tensor.cpu() for name, tensor in one.model.network.state_dict().items()},
            options=store.record | {"precision": one.model.precision}, epoch=training.best_epoch,
            ran=len(training.dev_accuracy), accuracy=accuracy, split=digest(parts[role]), data=store.data,
            parent=parents.get(role, ""), masks=one.masks,
            privacy=_privacy(options, parts[role], defender, epochs))
        store.save(role, version, made[role], device=str(place), start=began)
    return made
