"""What a stage works with: options with nothing left open, a device, records and their split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

import datasets
import models
from attackers import ATTACKS
from bench.layout import ModelSet
from bench.matchup import Matchup
from bench.options import Options
from bench.releases import release_options
from bench.splits import load_split
from bench.views import check_images
from core.console import UserError, say
from core.devices import choose_device
from core.imports import import_own
from core.parallel import available_cores, tune_malloc
from datasets import Records, RoleSplit


@dataclass(frozen=True)
class Run:
    """A stage at work.

    Attributes:
        options: with nothing left open that follows from the device, the records or the split.
        records: in the main memory.
        data: their digest.
        splits: each role's record numbers.
    """

    options: Options
    device: torch.device
    records: Records
    data: str
    splits: Mapping[str, RoleSplit]

    def models(self, *, original: bool = False) -> ModelSet:
        """The originals, or those of the options' compression and defence."""
        return ModelSet(self.options, original=original, data=self.data)

    @property
    def matchup(self) -> Matchup:
        """Who is attacked with whose shadow models."""
        return Matchup.of(self.options, self.data, self.records.shape)

    def of_release(self, name: str) -> Run:
        """The run that attacks another version that the attacker holds."""
        return replace(self, options=release_options(self.options, name))

    def class_counts(self, role: str) -> tuple[np.ndarray, np.ndarray]:
        """How many members and non-members (num_cls,) a role has of each class."""
        split, labels = self.splits[role], self.records.y.numpy()
        members, others = (
            np.bincount(labels[part], minlength=self.records.num_cls)
            for part in (split.train, split.test)
        )
        return members, others


def begin_pretraining(options: Options) -> Run:
    """The run of a stage that makes the split. Raises UserError where options and data do not fit
    together."""
    device, records = load_device_and_data(options)
    splits = datasets.split(
        len(records),
        seed=options.seed,
        shadow_num=options.shadow_num,
        kind=options.split,
        attacker_records=options.attacker_records,
    )
    return Run(_settled(options, device), device, records, records.digest(), splits)


def begin(options: Options) -> Run:
    """The run of a stage that follows the split that pretrain.py has stored. Raises UserError where
    there is none, or options, data and split do not fit together."""
    device, records = load_device_and_data(options)
    options, data = _settled(options, device), records.digest()
    made_by, splits = load_split(ModelSet(options, data=data), len(records))
    options = replace(options, **made_by)
    if options.stage == "mia":
        options = replace(options, **_attack_defaults(options, records))
    return Run(options, device, records, data, splits)


def load_device_and_data(options: Options) -> tuple[torch.device, Records]:
    """The device and all records, in the main memory; sets torch's number of threads.

    Raises UserError where device, data and network do not fit together.
    """
    tune_malloc()
    device = choose_device(options.device)
    alone = _settled(options, device).workers == 1
    torch.set_num_threads(options.threads if alone else 1)  # see `parallel_map` on forks
    records = datasets.load(
        options.dataset_name,
        data_path=options.data_path,
        data_root=options.data_root,
        num_cls=options.num_cls,
        input_dim=options.input_dim,
    )
    for name in filter(None, (options.model_name, options.shadow_model_name)):
        models.check_fit(name, records.shape)
    fits = models.input_dim(options.model_name, records.shape)
    if options.input_dim != fits:
        raise UserError(
            f"input_dim must be {fits} for {options.model_name} on records of shape "
            f"{records.shape}, not {options.input_dim}"
        )
    check_images(options, records.shape)
    shape = "x".join(map(str, records.shape))
    say(
        f"{options.dataset_name}: {len(records)} records of {shape}, {records.num_cls} classes; "
        f"{options.model_name} on {device}"
    )
    return device, records.to("cpu")


def _settled(options: Options, device: torch.device) -> Options:
    """The options with the number of workers that fits the device where none is asked for."""
    usual = available_cores() if device.type == "cpu" else 1
    return replace(options, workers=options.workers or usual)


def _attack_defaults(options: Options, records: Records) -> dict:
    """The options of attacks whose defaults depend on the data, so that results say what was used;
    each attack's entry names who knows them."""
    settled: dict = {}
    for name in ATTACKS:
        target = ATTACKS[name].options.get("defaults")
        if target:
            module, function = target.split(":")
            given = {own: getattr(options, own) for own in ATTACKS[name].options["option_names"]}
            defaults = getattr(import_own(module), function)
            settled |= defaults(given, records=records, shadow_num=options.shadow_num)
    return settled
