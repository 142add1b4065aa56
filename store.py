"""Every path and every file format under the results folder. No other file builds a path.

    results/{dataset}_{model}/
        split.npz                                      each role's train, dev and test records
        victim_model/  shadow_model_{i}/               original models
        {version}_model/  shadow_{version}_model_{i}/  pruned ones; version = {pruner}_{sparsity}[_{defend}_{arg}]
            best.pth                                   a Checkpoint
            best_mask.pth                              masks {parameter name: bool}, pruned models only
            attacks.jsonl                              what attacks on this model found, an object a line
"""
from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from console import UserError
from datasets import Part
from options import OPTIONS, command, record

if TYPE_CHECKING:
    import torch

_CHECKPOINT = "best.pth"
_PARTS = ("train", "dev", "test")
ORIGINAL = ""  # the version of a model that is not pruned
_SAME = ("seed", "train_seed", "dataset_name", "data_path", "model_name", "num_cls", "input_dim")
_SAME_PRUNED = (*_SAME, "pruner_name", "prune_sparsity", "defend", "defend_arg")
_PRUNING = (*_SAME_PRUNED[len(_SAME):], "prune_epochs")


@dataclass(frozen=True)
class Checkpoint:
    """A trained model as it lies on disk.

    Attributes:
        weights: state dict, pruned weights zero.
        options: those that it was made with, see `options.record`.
        epoch: the one whose weights these are; 0 = before the first.
        accuracy: of these weights on train, dev and test, fractions.
        split: digest of its role's part of the split.
        parent: digest of the checkpoint that it was pruned from; "" for an original.
    """

    weights: dict[str, torch.Tensor]
    options: dict
    epoch: int
    accuracy: dict[str, float]
    split: str
    parent: str = ""


class Store:
    """The files of one data set and network.

    Args:
        options: as `options.parse` returns them.
    """

    def __init__(self, options: SimpleNamespace):
        self.options = options
        self.root = Path(options.results) / f"{options.dataset_name}_{options.model_name}"

    @property
    def pruned(self) -> str:
        """The version of a pruned model. Numbers are written one way: 4, 4.0 and "4" all give 4."""
        options = self.options
        name = f"{options.pruner_name}_{options.prune_sparsity:g}"
        return f"{name}_{options.defend}_{options.defend_arg:g}" if options.defend else name

    def undefended(self) -> Store:
        """The same without a defence."""
        return Store(SimpleNamespace(**{**vars(self.options), "defend": "", "defend_arg": None}))

    def folder(self, role: str, version: str) -> Path:
        """Where a role's model lies; `role` is "victim" or "shadow_{i}"."""
        who, _, index = role.partition("_")
        if who == "victim":
            return self.root / f"{version or 'victim'}_model"
        return self.root / "_".join(["shadow", *([version] if version else []), "model", index])

    @property
    def record(self) -> dict:
        """The options as they are stored with a result."""
        return record(self.options)

    def digest(self, role: str, version: str) -> str:
        """Tells a stored checkpoint from any other."""
        return _file_digest(self.folder(role, version))

    def save_split(self, parts: dict[str, Part]) -> Path:
        arrays = {f"{role}_{name}": indices for role, part in parts.items() for name, indices in vars(part).items()}
        with _replacing(self.root / "split.npz") as file:
            np.savez(file, **arrays)
        return self.root / "split.npz"

    def load_split(self, n: int) -> dict[str, Part]:
        """The split as pretrain.py stored it, of the victim and the first `shadow_num` shadows.

        Raises UserError where there is none, one of fewer shadows, or one of another number of records than `n`;
        and where nothing can be written beside it, before any work is done in vain.
        """
        path = self.root / "split.npz"
        roles = ["victim", *(f"shadow_{i}" for i in range(self.options.shadow_num))]
        if not os.path.exists(path):  # unlike Path.exists, False also for a name that is too long
            self._not_yet(path, "pretrain")
        with _reading(path), np.load(path, allow_pickle=False) as arrays:
            have = {key: arrays[key] for key in arrays.files}
            victim_and_others = [have[f"{role}_{name}"] for role in roles[:2] for name in _PARTS]
        if f"{roles[-1]}_{_PARTS[-1]}" not in have:
            self._not_yet(self.folder(roles[-1], ORIGINAL), "pretrain")
        if not os.access(self.root, os.W_OK):
            raise UserError(f"cannot write in {self.root}: permission denied")
        count = sum(map(len, victim_and_others))
        if count != n:
            raise UserError(f"{path} splits {count} records, the data set has {n}: run "
                            f"`{command('pretrain', self.options)}` again, or use another --results folder")
        return {role: Part(*(have[f"{role}_{name}"] for name in _PARTS)) for role in roles}

    def save(self, role: str, version: str, checkpoint: Checkpoint, masks: dict | None = None) -> Path:
        """Store a model; the checkpoint goes last, since it is what readers look for."""
        import torch

        folder = self.folder(role, version)
        if masks is not None:
            with _replacing(folder / "best_mask.pth") as file:
                torch.save(masks, file)
        with _replacing(folder / _CHECKPOINT) as file:
            torch.save(vars(checkpoint), file)
        return folder / _CHECKPOINT

    def load(self, role: str, version: str, part: Part) -> Checkpoint:
        """A model, on the CPU.

        Raises:
            UserError: it is not there; it can't be read; or it was made with other options or another split than
                are asked for now, or from an original that has since been trained again.
        """
        import torch

        path = self.folder(role, version) / _CHECKPOINT
        if not path.exists():
            self._not_yet(path, "prune" if version else "pretrain")
        with _reading(path):
            checkpoint = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
        asked = self.record
        differ = [f"{name} {checkpoint.options.get(name)!r} (now {asked[name]!r})"
                  for name in (_SAME_PRUNED if version else _SAME) if checkpoint.options.get(name) != asked[name]]
        if checkpoint.split != digest(part):
            differ.append("another split")
        if version:
            original = self.folder(role, ORIGINAL)
            if not (original / _CHECKPOINT).exists() or self.digest(role, ORIGINAL) != checkpoint.parent:
                differ.append(f"another original than now lies in {original}")
        if differ:
            raise UserError(f"{path} was made with {', '.join(differ)}: run "
                            f"`{command('prune' if version else 'pretrain', self.options)}` again, "
                            f"or use another --results folder")
        return checkpoint

    def models_digest(self, version: str, shadows: Store, shadow_version: str) -> str | None:
        """Tells a victim, its shadow models and their originals from any others; None where one is gone."""
        folders = [self.folder("victim", which) for which in dict.fromkeys([ORIGINAL, version])]
        folders += [shadows.folder(f"shadow_{i}", which) for i in range(self.options.shadow_num)
                    for which in dict.fromkeys([ORIGINAL, shadow_version])]
        if not all((folder / _CHECKPOINT).exists() for folder in folders):
            return None
        return hashlib.sha256("".join(_file_digest(folder) for folder in folders).encode()).hexdigest()[:16]

    def add_attacks(self, version: str, victim: Checkpoint, models: str, device: str,
                    accuracy: dict[str, float]) -> Path:
        """Write what attacks on a victim found: a line for each attack, in place of that of the same options.

        A line is a flat object: `attack`, `accuracy` (a fraction), the victim's `train_accuracy` and
        `test_accuracy`, the `models_digest` of victim and shadows, the device, and all options, those of training
        as they were then.
        """
        own = {name: value for name, value in self.record.items() if "mia" in OPTIONS[name].stages.split()}
        if version == ORIGINAL:
            own |= dict.fromkeys(_PRUNING)
        own["device"] = device
        where = {name: getattr(self.options, name) for name in ("attacks", "data_root", "results")}
        told = victim.options | own | where
        lines = [{"attack": name, "accuracy": value, "train_accuracy": victim.accuracy["train"],
                  "test_accuracy": victim.accuracy["test"], "models": models, **told}
                 for name, value in accuracy.items()]

        def key(line):
            return json.dumps([line["attack"], *(line.get(name) for name in own)])

        new = {key(line) for line in lines}
        kept = [line for line in self.attacks(version) if key(line) not in new]
        path = self.folder("victim", version) / "attacks.jsonl"
        with _replacing(path) as file:
            file.write("".join(json.dumps(line) + "\n" for line in kept + lines).encode())
        return path

    def attacks(self, version: str) -> list[dict]:
        """What attacks on a victim have found so far, as `add_attacks` wrote it."""
        path = self.folder("victim", version) / "attacks.jsonl"
        if not path.exists():
            return []
        with _reading(path):
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def _not_yet(self, path: Path, stage: str):
        raise UserError(f"{path} is not there: first run `{command(stage, self.options)}`")


def digest(part: Part) -> str:
    """Tells a role's part of the split from any other."""
    return hashlib.sha256(b"|".join(indices.tobytes() for indices in vars(part).values())).hexdigest()


def _file_digest(folder: Path) -> str:
    with (folder / _CHECKPOINT).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _replacing(path: Path):
    """A binary file that takes the place of `path` when all of it is on disk, and never in part."""
    absent = [folder for folder in (path.parent, *path.parent.parents) if not os.path.exists(folder)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        for folder in absent:  # those that could be made on the way
            with suppress(OSError):
                folder.rmdir()
        raise UserError(f"cannot write in {path.parent}: {error.strerror or error}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException as error:
        Path(beside).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        raise


@contextmanager
def _reading(path: Path):
    """Turn what a damaged file makes its reader raise into a UserError."""
    try:
        yield
    except Exception as error:  # pickle, zip and json raise nearly anything on damaged bytes
        raise UserError(f"cannot read {path} ({type(error).__name__}): remove it and run the stage that makes it again")
