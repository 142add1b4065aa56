"""What a training keeps on disk: its state, until it is finished, and the numbers of each epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from base_model import BaseModel, Callback
from bench.layout import epoch_file
from bench.options import Options
from core.console import UserError, say
from core.files import digested, packed, read_digested, write
from models import stack


class Resume(Callback):
    """The state of one training on disk, until it is finished.

    Args:
        facts: what was trained and how; another's state is refused by `refuse(path, have, wanted)`.
        form: on which kind of device, and in which stack; a state of another form is of no use and
            left aside.
    """

    def __init__(
        self, path: Path, facts: dict, form: list[str], options: Options, refuse: Callable
    ):
        self.path, self.facts, self.form = path, facts, form
        self.every, self.refuse = options.save_every, refuse
        self.saved = time.monotonic()
        if options.fresh:
            path.unlink(missing_ok=True)

    def on_start(self, run):
        """Put the run where the state last saved was."""
        if (state := self.load()) is not None:
            run.set_state(state)

    def on_epoch(self, run):
        self.save(run.state)

    def load(self) -> dict | None:
        """The state last saved, tensors on the CPU; None where there is none."""
        if not self.path.exists():
            return None
        have = read_digested(self.path)
        if have["form"] != self.form:
            return None
        self.refuse(self.path, have["facts"], self.facts)
        say(f"{self.path}: going on after epoch {have['state']['epoch']}")
        return have["state"]

    def save(self, state: Callable[[], dict]) -> None:
        """Save `state()` if the last time is `save_every` seconds ago."""
        if time.monotonic() - self.saved >= self.every:
            write(self.path, digested({"facts": self.facts, "form": self.form, "state": state()}))
            self.saved = time.monotonic()


class KeptEpochs(Callback):
    """The weights after some epochs, 0 = before the first, in files of their own.

    Args:
        folders: of the models trained, as many as `models`.
        models: those that are trained alone, or as a stack.
    """

    def __init__(self, folders: list[Path], epochs: tuple[int, ...], models: list[BaseModel]):
        self.folders, self.epochs, self.models = folders, epochs, models

    def on_start(self, run):
        self._keep(0)

    def on_epoch(self, run):
        if run.epoch in self.epochs and len(self.models) > 1:
            stack.unstack(run.model.network, [model.network for model in self.models])
        self._keep(run.epoch)

    def _keep(self, epoch: int) -> None:
        if epoch in self.epochs:
            for folder, model in zip(self.folders, self.models):
                state = model.network.state_dict()
                weights = {name: tensor.cpu() for name, tensor in state.items()}
                write(folder / epoch_file(epoch), packed(weights))


class Scalars(Callback):
    """Numbers of each epoch for TensorBoard, where the options ask for it: a folder for each of the
    models trained.

    What a training from the first epoch finds there is another's and goes, asked for or not; one
    that goes on hides the epochs that it runs again.
    """

    def __init__(self, folders: list[Path], options: Options):
        self.folders, self.asked = folders, options.tensorboard
        self.writers: list[Any] = []
        if options.fresh:
            self._remove()

    def close(self) -> None:
        for writer in self.writers:
            with suppress(OSError):  # all is written but where `on_epoch` has said so
                writer.close()

    def on_epoch(self, run):
        """Write down an epoch's loss and selection metric of each model that took part in it."""
        if run.epoch == 1:
            self._remove()
        if not self.asked:
            return
        values = {"loss": run.losses} | ({} if run.dev is None else {"dev accuracy": run.dev})
        try:
            if not self.writers:
                from torch.utils.tensorboard import SummaryWriter

                self.writers = [
                    SummaryWriter(folder, purge_step=run.epoch) for folder in self.folders
                ]
            for number, writer in enumerate(self.writers):
                if run.running[number]:
                    for name, of_models in values.items():
                        writer.add_scalar(name, of_models[number], run.epoch)
                    writer.flush()  # before the state is saved from which a killed training goes on
        except OSError as error:
            raise UserError(
                f"cannot write in {self.folders[0]}: {error.strerror or error}"
            ) from error

    def _remove(self) -> None:
        for folder in self.folders:
            for old in folder.glob("events.*"):
                old.unlink(missing_ok=True)
