"""Trained models on disk: what is known of them, their weights, and whether they fit what is asked
for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.layout import (
    MANIFEST,
    MASKS,
    ORIGINAL_INDEX,
    RESUME,
    SAVED_DIGESTS,
    WEIGHTS,
    ModelSet,
    epoch_file,
)
from bench.options import OPTIONS
from bench.remedies import (
    MUST_MATCH_TO_READ,
    MUST_MATCH_TO_READ_COMPRESSED,
    MUST_MATCH_TO_REUSE,
    command_that_remakes,
    how_to_ask_for,
    maker,
    missing,
    or_fresh,
)
from core.console import UserError
from core.files import (
    array_digest,
    atomic_write,
    check_digest,
    file_digest,
    packed,
    read_sealed,
    sealed_json,
    unpacked,
    user_error_if_damaged,
    write,
)
from datasets import RoleSplit

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What is known of a trained model. Its weights are read when they are asked for.

    Attributes:
        options: those that it was made with, see `Options.record`.
        epoch: the one whose weights these are; 0 = before the first.
        ran: how many epochs were run.
        accuracy: of these weights on train, dev and test, fractions.
        split: digest of its role's records.
        data: digest of all records.
        parent: digest of the checkpoint that it was pruned or quantised from; "" for an original,
            and for one from scratch.
        privacy: what differentially private training guarantees (see `defenders.accounting`); None
            without it.
        size: what it takes, see `CompressionSize`; None of models from before that was counted.
        folder: where it lies; None where it is not stored yet.
        files: digest of each file there, by name.
    """

    options: dict
    epoch: int
    ran: int
    accuracy: dict[str, float]
    split: str
    data: str
    parent: str
    privacy: dict | None = None
    size: dict | None = None
    folder: Path | None = None
    files: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Tells its weights from any others; "" where it is not stored."""
        return self.files.get(WEIGHTS, "")

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights on the CPU as layers work with them, pruned ones zero. Raises UserError where
        the file is damaged, or another command has put other weights in its place."""
        return self._read(WEIGHTS)

    def weights_after(self, epoch: int) -> dict[str, torch.Tensor]:
        """The state dict after an epoch of its training, 0 = before the first. Raises UserError
        where it was not kept or is damaged."""
        name = epoch_file(epoch)
        if name not in self.files:
            why = f": its training ended after {self.ran} epochs" if epoch > self.ran else ""
            raise UserError(
                f"{self._file(name)} was not kept{why}: run pretrain.py with --keep_epochs {epoch} "
                f"--fresh, or rewind to another epoch"
            )
        return self._read(name)

    def masks(self) -> dict[str, torch.Tensor] | None:
        """{parameter name: bool tensor} on the CPU; None where nothing is pruned. Raises UserError
        where they are damaged."""
        return self._read(MASKS) if MASKS in self.files else None

    def check_files(self) -> None:
        """Raise UserError where a file is not what was stored; none is kept in memory."""
        for name, digest in self.files.items():
            check_digest(self._file(name), digest)

    def _read(self, name: str):
        """The content of a file; where it is another, a manifest that is gone or says so tells that
        another command is at work, and not damage."""
        path, manifest = self._file(name), self._file(MANIFEST)
        try:
            return unpacked(path, self.files[name])
        except UserError:
            if not os.path.exists(manifest) or read_sealed(manifest).get("files") != self.files:
                raise UserError(
                    f"{path} has been replaced by another command: give this one again"
                ) from None
            raise

    def _file(self, name: str) -> Path:
        if self.folder is None:
            raise ValueError("this checkpoint is not stored")
        return self.folder / name


def load_checkpoint(models: ModelSet, role: str, split: RoleSplit) -> Checkpoint:
    """A stored model, to be used as it is.

    Raises:
        UserError: it is not there, or was made with other options, data or split than are asked for
            now, or from a model that has since been made again; or what is to be trained of it
            would be so with `augment` and it without, or the other way round.
    """
    checkpoint = read_checkpoint(models, role)
    if checkpoint is None:
        refuse_foreign(models, role)
        missing(models.file(role, WEIGHTS), models)
    names = MUST_MATCH_TO_READ if models.original else MUST_MATCH_TO_READ_COMPRESSED
    names += () if models.options.stage in ("mia", "prune_dp") else ("augment",)
    wanted = made_of(models, [split], names, parents=[parent_digest(models, role)])
    _refuse_other(checkpoint, models, role, wanted)
    return checkpoint


def reusable_checkpoint(
    models: ModelSet, role: str, split: RoleSplit, *, precision: str, parent: str
) -> Checkpoint | None:
    """A stored model that need not be made again; None where there is none, or the options say
    `fresh`.

    Raises UserError where there is one that was made otherwise than is now asked for, is damaged,
    or is another program's.
    """
    if models.options.fresh:
        return None
    refuse_foreign(models, role)
    checkpoint = read_checkpoint(models, role)
    if checkpoint is not None:
        names = MUST_MATCH_TO_REUSE[maker(models)]
        wanted = made_of(models, [split], names, precision=precision, parents=[parent])
        _refuse_other(checkpoint, models, role, wanted)
        checkpoint.check_files()
    return checkpoint


def read_checkpoint(models: ModelSet, role: str) -> Checkpoint | None:
    """Whatever model lies there finished; None where there is none, or one of its files is gone, as
    the error of a damaged file asks for."""
    checkpoint = read_manifest(models, role)
    if checkpoint is None:
        return None
    folder = models.folder(role)
    return checkpoint if all(os.path.exists(folder / name) for name in checkpoint.files) else None


def read_manifest(models: ModelSet, role: str) -> Checkpoint | None:
    """What the manifest says, whether or not the model's files are there; None where there is
    none. Raises UserError where it is damaged."""
    path = models.file(role, MANIFEST)
    if not os.path.exists(path):
        return None
    manifest = read_sealed(path)
    with user_error_if_damaged(path):
        del manifest["made"]
        if manifest.get("privacy") is not None:  # before there was secret noise, the seed made it
            manifest["options"] = {"dp_noise": "seeded"} | manifest["options"]
        checkpoint = Checkpoint(folder=path.parent, **manifest)
        checkpoint.files[WEIGHTS]  # without which it is no model
    return checkpoint


def check_kept_epochs(
    models: ModelSet, role: str, checkpoint: Checkpoint, epochs: Iterable[int]
) -> None:
    """Raise UserError where the weights after one of these epochs, if there was one, were not
    kept."""
    for epoch in epochs:
        if epoch <= checkpoint.ran and epoch_file(epoch) not in checkpoint.files:
            raise UserError(
                f"{models.file(role, epoch_file(epoch))} was not kept: to make it run "
                f"`{command_that_remakes(models, role, ['keep_epochs'])}`"
            )


def save_checkpoint(
    models: ModelSet,
    role: str,
    checkpoint: Checkpoint,
    state: dict,
    *,
    made: dict,
    beside: Sequence[str] = (),
) -> Checkpoint:
    """Store a model, all files or none; with its manifest it counts as finished.

    Args:
        state: its `weights`, and its `masks` or None.
        made: how and when it was made, see `provenance.made_now`.
        beside: names of more files of the model, which lie there already.
    """
    folder = models.folder(role)
    contents = {WEIGHTS: packed(state["weights"])}
    if state["masks"]:
        contents[MASKS] = packed(state["masks"])
    files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    files |= {name: file_digest(folder / name) for name in beside}
    facts = {
        name: value for name, value in vars(checkpoint).items() if name not in ("folder", "files")
    }
    manifest = sealed_json(facts | {"files": files, "made": made})
    ours = list(files.values())
    if foreign_file(models, role) is None:
        # those that are replaced too, should a kill leave them beside new ones
        ours += [file_digest(folder / name) for name in (WEIGHTS, MASKS)]
    write(
        folder / SAVED_DIGESTS,
        "".join(f"{line}\n" for line in dict.fromkeys(ours) if line).encode(),
    )
    with ExitStack() as places:  # all is on disk before anything is replaced; the manifest is last
        for name, content in ({MANIFEST: manifest} | contents).items():
            file = places.enter_context(atomic_write(folder / name))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        (folder / MANIFEST).unlink(missing_ok=True)
    (folder / RESUME).unlink(missing_ok=True)
    return Checkpoint(**facts, folder=folder, files=files)


def stored_digest(models: ModelSet, role: str) -> str:
    """Tells a stored checkpoint from any other; "" where there is none."""
    checkpoint = read_manifest(models, role)
    return "" if checkpoint is None else checkpoint.digest


def parent_digest(models: ModelSet, role: str) -> str:
    """The digest of the checkpoint that a model is made of; "" where it is of none, or of one that
    is itself of another than lies there now."""
    if models.parent is None:
        return ""
    parent = read_manifest(models.parent, role)
    if parent is None or parent.parent != parent_digest(models.parent, role):
        return ""
    return parent.digest


def split_digest(split: RoleSplit) -> str:
    """Tells a role's records from any other's."""
    return array_digest(*vars(split).values())


def made_of(
    models: ModelSet,
    splits: Sequence[RoleSplit],
    names: Iterable[str],
    *,
    parents: Sequence[str],
    precision: str | None = None,
) -> dict:
    """What must be the same for models to be what is asked for; of several, of all of them."""
    asked = models.record | {"precision": precision}
    return {name: asked[name] for name in names} | {
        "split": " ".join(map(split_digest, splits)),
        "data": models.data,
        "parent": " ".join(parents),
    }


def _refuse_other(checkpoint: Checkpoint, models: ModelSet, role: str, wanted: dict) -> None:
    have = checkpoint.options | vars(checkpoint)
    refuse_differences(models.file(role, WEIGHTS), have, wanted, models=models, role=role)


def refuse_differences(
    path: Path, have: dict, wanted: dict, *, models: ModelSet, role: str
) -> None:
    """Raise UserError where a file was made otherwise than is asked for."""
    older = {name: OPTIONS[name].when_missing for name in wanted if name in OPTIONS}
    have = older | have  # from before there was an option, it does not name it
    names = [name for name, value in wanted.items() if have.get(name) != value]
    if not names:
        return
    source = models.parent or models.originals
    noun = "original" if source.original else "pruned model"
    in_words = {
        "split": "another split",
        "data": "another data set",
        "parent": f"another {noun} than now lies in {source.folder(role)}",
    }
    differ = ", ".join(
        in_words.get(name) or f"{name} {have.get(name)!r} (now {wanted[name]!r})" for name in names
    )
    raise UserError(
        f"{path} was made with {differ}: {how_to_ask_for(models, names, have)}to make it anew run "
        f"`{command_that_remakes(models, role, wanted)}`, or use another --results folder"
    )


# ---- files of other programs


def check_place(models: ModelSet) -> None:
    """Raise UserError where making this version would replace a file of another program, or one
    that cannot be read, unless the options say `fresh`. To be called before any work."""
    if models.options.fresh:
        return
    for role in models.roles:
        refuse_foreign(models, role)
        with or_fresh():
            stored_digest(models, role)
    index = models.root / ORIGINAL_INDEX
    if models.original and os.path.exists(index) and not os.path.exists(models.split_file):
        raise UserError(
            f"{index} lies there without a split.npz: {models.root} is of the original project; use "
            f"another --results folder, or --fresh to write beside it"
        )


def refuse_foreign(models: ModelSet, role: str) -> None:
    """Raise UserError where a file of another program lies in place of a role's model."""
    path = foreign_file(models, role)
    if path is not None:
        raise UserError(
            f"{MANIFEST} is missing beside {path}, which another program or another version has "
            f"made: to replace it run `{command_that_remakes(models, role)}`, or use another "
            f"--results folder"
        )


def foreign_file(models: ModelSet, role: str) -> Path | None:
    """A checkpoint or mask that has no manifest, and that no `save_checkpoint` has put there; None
    where there is none."""
    folder = models.folder(role)
    if os.path.exists(folder / MANIFEST):
        return None
    saved = _saved_digests(folder)
    paths = (folder / name for name in (WEIGHTS, MASKS) if os.path.lexists(folder / name))
    return next((path for path in paths if file_digest(path) not in saved), None)


def _saved_digests(folder: Path) -> set[str]:
    """Digests of the files that `save_checkpoint` has put into a folder."""
    path = folder / SAVED_DIGESTS
    if not os.path.exists(path):
        return set()
    with user_error_if_damaged(path):
        return set(path.read_text(encoding="ascii").split())
