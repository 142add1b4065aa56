"""What the stages do with each role (the victim and every shadow model alike)."""
from __future__ import annotations

from types import SimpleNamespace

import torch

import console
import datasets
import models
from base_model import BaseModel, Recipe, choose_device, generator
from console import UserError, percent, say
from datasets import Part, Records
from pruner import mask
from store import Checkpoint, Store, digest
from workers import cores, keep_freed_memory, side_by_side


def prepare(options: SimpleNamespace) -> tuple[torch.device, Records]:
    """The device and all records on it; sets threads and, where not given, `options.workers`.

    Raises UserError where device, data and network don't fit together.
    """
    keep_freed_memory()
    device = choose_device(options.device)
    if options.workers is None:
        options.workers = cores() if device.type == "cpu" else 1
    if options.workers > 1 and device.type != "cpu":
        raise UserError("a GPU is used by one process: leave out --workers, or run on the cpu")
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
    return device, records.to(device)


def new_model(options: SimpleNamespace, records: Records, role: str, stage: str, device: torch.device) -> BaseModel:
    """A fresh model for a role; all of its randomness is its own."""
    draw = generator(options.train_seed, stage, role)
    network = models.build(options.model_name, shape=records.shape, num_cls=records.num_cls, generator=draw)
    return BaseModel(network, device=device, generator=draw)


def stored_model(options: SimpleNamespace, records: Records, role: str, stage: str, device: torch.device,
                 checkpoint: Checkpoint) -> BaseModel:
    """A model with the weights of a checkpoint, and for this stage's randomness a new start."""
    model = new_model(options, records, role, stage, device)
    model.network.load_state_dict(checkpoint.weights)
    return model


def train_and_store(model: BaseModel, records: Records, role: str, part: Part, *, store: Store, version: str,
                    epochs: int, watch, defender=None, masks=None, parent: str = "") -> tuple[str, list[str]]:
    """Train a role's model and store its best weights; returns their path and their row of the closing table."""
    options = store.options
    recipe = Recipe(epochs=epochs, batch_size=options.batch_size, optimizer=options.optimizer, lr=options.lr,
                    weight_decay=options.weight_decay, early_stop=options.early_stop)
    indices = {name: torch.from_numpy(numbers).to(records.y.device) for name, numbers in vars(part).items()}
    draw = generator(options.train_seed, options.stage, role, "order", device=records.y.device)
    if defender is not None:
        defender.start(records, train=indices["train"], dev=indices["dev"], batch_size=options.batch_size,
                       generator=draw)
    on_epoch, close = watch(epochs, role)
    training = model.train(records, indices["train"], dev=indices["dev"], recipe=recipe, generator=draw,
                           defender=defender, on_epoch=on_epoch)
    close()
    accuracy = {name: model.test(records, numbers) for name, numbers in indices.items()}
    weights = {name: tensor.cpu() for name, tensor in model.network.state_dict().items()}
    path = store.save(role, version, Checkpoint(weights, store.record, training.best_epoch, accuracy,
                                                digest(part), parent), masks)
    row = [role, f"{training.best_epoch} of {len(training.dev_accuracy)}", *map(percent, accuracy.values())]
    return str(path), row if masks is None else [*row, percent(mask.sparsity(masks))]


def train_all(task, parts: dict[str, Part], options: SimpleNamespace, title: str) -> None:
    """Run `task(role, watch)`, which ends in `train_and_store`, for every role; close with a table of all models."""
    rows = {}
    for role, (path, row) in side_by_side(task, parts, workers=options.workers, threads=options.threads):
        say(f"{role}: saved {path}")
        rows[role] = row
    header = ["model", "epoch", "train %", "dev %", "test %", "pruned %"]
    console.table(title, header[:len(rows["victim"])], [rows[role] for role in parts])
