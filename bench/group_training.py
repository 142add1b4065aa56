"""The training of one role, or of several as one stack: all rounds, and the checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch

from base_model import BaseModel, Diverged, Progress, Stack, TrainingHistory, TrainSet
from bench.callbacks import KeptEpochs, Resume, Scalars
from bench.checkpoints import Checkpoint, made_of, refuse_differences, save_checkpoint, split_digest
from bench.layout import CANARIES, RESUME, ROUNDS, SCALARS, epoch_file
from bench.plan import TrainingPlan
from bench.provenance import made_now
from bench.remedies import MUST_MATCH_TO_REUSE, maker
from bench.role_context import RoleContext
from bench.role_models import on_device, precision
from bench.rounds import Round, RoundFile
from core.console import UserError
from core.files import array_digest
from quantizer.attach import effective_state
from quantizer.size import measure_size


class TrainingFailed(UserError):
    """A model cannot be trained, which says nothing of the others."""


@dataclass(frozen=True)
class Group:
    """Roles whose models are trained together.

    Attributes:
        label: of progress bars and errors.
        progress: opens a progress bar, see `console.epoch_bar`.
    """

    plan: TrainingPlan
    roles: list[str]
    label: str
    progress: Callable

    def train(self) -> dict[str, Checkpoint]:
        """Train all rounds that are not finished, and store the checkpoints."""
        plan, began = self.plan, time.time()
        file, indices = self._round_file(), self._indices()
        rounds = file.load(self.roles)
        while True:
            models, trained, histories = self._train_round(rounds, indices)
            number = rounds[self.roles[0]].number
            if number == plan.rounds:
                break
            rounds = {role: rounds[role].after(model) for role, model in zip(self.roles, models)}
            file.save(rounds)
        records = on_device(plan.records, plan.device)
        accuracies = zip(*(trained.accuracies(records, numbers) for numbers in indices.values()))
        checkpoints = {}
        for role, model, history, values in zip(self.roles, models, histories, accuracies):
            accuracy = dict(zip(indices, values))
            checkpoints[role] = self._store(role, model, history, accuracy, began)
        file.path.unlink(missing_ok=True)
        return checkpoints

    def _train_round(
        self, rounds: Mapping[str, Round], indices: Mapping[str, torch.Tensor]
    ) -> tuple[list[BaseModel], BaseModel, list[TrainingHistory]]:
        """Train one round; returns each role's model, what was trained (a stack, if several), and a
        history of each."""
        plan, number = self.plan, rounds[self.roles[0]].number
        label = self.label + (f", round {number}" if plan.rounds > 1 else "")
        models = self._start(rounds)
        masks = [model.masks for model in models if model.masks]
        scalars = self._scalars(number)
        on_epoch, close = self.progress(plan.epochs, label)
        callbacks: list = [Progress(on_epoch), scalars, self._resume(number, masks)]
        if plan.keep_epochs:
            folders = [plan.models.folder(role) for role in self.roles]
            callbacks.insert(2, KeptEpochs(folders, plan.keep_epochs, models))
        data = TrainSet(
            on_device(plan.records, plan.device),
            self._train_rows(indices["train"]),
            indices["dev"],
            plan.options.augment,
        )
        try:
            trained, histories = self._fit(models, data, callbacks, number)
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
        return models, trained, histories

    def _start(self, rounds: Mapping[str, Round]) -> list[BaseModel]:
        try:
            return [self.plan.start(role, rounds[role]) for role in self.roles]
        except UserError as error:  # what a model is made of has been replaced, say
            raise TrainingFailed(f"{self.label}: {error}") from error

    def _fit(
        self, models: list[BaseModel], data: TrainSet, callbacks: list, number: int
    ) -> tuple[BaseModel, list[TrainingHistory]]:
        """Train one model, or several as a stack; returns what was trained, and a history of
        each."""
        plan = self.plan
        draws = [plan.order_generator(role, number) for role in self.roles]
        objective = plan.objective(self.roles, number)
        if len(models) > 1:
            together = Stack(models)
            return together, together.train_each(
                data, plan.config, generators=draws, objective=objective, callbacks=callbacks
            )
        (model,) = models
        role_context = RoleContext(plan.run, plan.models, self.roles[0])
        before = plan.epochs * (number - 1)
        context = role_context.context(draws[0], epochs_before=before)
        size = plan.nominal_size(self.roles[0])
        objective.setup(replace(context, data=data, nominal_size=size))
        history = model.train(
            data, plan.config, generator=draws[0], objective=objective, callbacks=callbacks
        )
        return model, [history]

    def _indices(self) -> dict[str, torch.Tensor]:
        """The train, dev and test records (n,) of a role, or (K, n) of K roles, on the device."""
        splits = [self.plan.splits[role] for role in self.roles]
        indices = {
            part: torch.stack([torch.from_numpy(vars(split)[part]) for split in splits])
            for part in vars(splits[0])
        }
        return {
            part: (numbers if len(splits) > 1 else numbers[0]).to(self.plan.device)
            for part, numbers in indices.items()
        }

    def _train_rows(self, train: torch.Tensor) -> torch.Tensor:
        """The train records and, of the victim, the canaries that are in."""
        canaries = self.plan.canaries_of(self.roles[0])
        if canaries is None:
            return train
        return torch.cat([train, torch.from_numpy(canaries.rows).to(train.device)])

    def _store(
        self,
        role: str,
        model: BaseModel,
        history: TrainingHistory,
        accuracy: dict[str, float],
        began: float,
    ) -> Checkpoint:
        plan, network = self.plan, model.network
        coding = plan.models.quantizer or None
        size = measure_size(network, quantizer=coding, shape=plan.records.shape)
        checkpoint = Checkpoint(
            options=plan.models.record | {"precision": model.precision},
            epoch=history.best_epoch,
            ran=len(history.dev_accuracy),
            accuracy=accuracy,
            split=split_digest(plan.splits[role]),
            data=plan.models.data,
            parent=plan.parent(role),
            privacy=plan.privacy(role),
            size=asdict(size),
        )
        weights = {name: tensor.cpu() for name, tensor in effective_state(network).items()}
        how = made_now(device=str(plan.device), start=began, workers=plan.options.workers)
        state = {"weights": weights, "masks": model.masks}
        kept = [epoch_file(epoch) for epoch in plan.keep_epochs if epoch <= checkpoint.ran]
        canaries = plan.canaries_of(role)
        if canaries is not None:
            canaries.store(plan.models.folder(role))
            kept.append(CANARIES)
        return save_checkpoint(plan.models, role, checkpoint, state, made=how, beside=kept)

    def _scalars(self, number: int) -> Scalars:
        """What TensorBoard shows; of several rounds each in a folder of its own."""
        folders = [self.plan.models.file(role, SCALARS) for role in self.roles]
        if self.plan.rounds > 1:
            folders = [folder / f"round_{number}" for folder in folders]
        return Scalars(folders, self.plan.options)

    def _facts(self) -> dict:
        """What must be the same for a training to go on."""
        plan = self.plan
        facts = made_of(
            plan.models,
            [plan.splits[role] for role in self.roles],
            MUST_MATCH_TO_REUSE[maker(plan.models)],
            precision=precision(plan.options, plan.device),
            parents=[plan.parent(role) for role in self.roles],
        )
        return facts | ({"keep_epochs": list(plan.keep_epochs)} if plan.keep_epochs else {})

    def _form(self) -> list[str]:
        return [self.plan.device.type, *self.roles]

    def _refuse(self) -> Callable:
        return partial(refuse_differences, models=self.plan.models, role=self.roles[0])

    def _resume(self, number: int, masks: list[dict[str, torch.Tensor]]) -> Resume:
        """Where a round keeps its state. One of other masks, as of scores that are not made of the
        seed alone, is left aside."""
        path = self.plan.models.file(self.roles[0], RESUME)
        form = self._form() + ([f"round {number}"] if self.plan.rounds > 1 else [])
        if masks:
            form.append(array_digest(*(one.numpy() for of in masks for one in of.values())))
        return Resume(path, self._facts(), form, self.plan.options, self._refuse())

    def _round_file(self) -> RoundFile:
        """Where finished rounds are kept."""
        path = self.plan.models.file(self.roles[0], ROUNDS)
        fresh = self.plan.options.fresh
        return RoundFile(path, self._facts(), self._form(), self._refuse(), fresh)
