"""Every option of every stage, once: its type, default, help, unit and check."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from attackers import ATTACKS, COMBINED
from bench.guesses import GUESSES
from bench.model_options import ModelOptions
from bench.option import ANY_TRAINING, TRAINING, Option, option
from bench.values import (
    attack_list,
    below_half,
    between,
    choice,
    combined_attacks,
    count_of,
    flag,
    ignored,
    not_negative,
    one_of,
    or_word,
    path,
    positive,
    share,
    true_or_false,
    version_list,
    whole,
)
from models import MODELS
from models.views import VIEW_COUNTS
from pruner import PRUNERS


@dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """The options of a run, made by `bench.command_line.parse` or from others by
    `dataclasses.replace`.

    Attributes:
        stage: whose options these are: pretrain, prune, prune_dp, quantize or mia.
        device: a GPU's number, cuda:N or cpu.
        config_path: the JSON file that they were read from.
    """

    stage: str
    device: str = "cpu"
    config_path: str = ""

    # attacks
    attacks: tuple[str, ...] = option(
        attack_list,
        ("samia",),
        f"one or more of {', '.join(ATTACKS)}, separated by commas; or all that apply",
        "mia",
        result=False,
    )
    also: tuple[str, ...] = option(
        version_list,
        (),
        "versions of the same models that the attacker holds too, named as their folders are, "
        "separated by commas: original, l1unstructure_0.9, int8; for attacks on several releases",
        "mia",
        later=True,
    )
    shadow_pruner_name: str | None = option(
        one_of(PRUNERS),
        None,
        "the attacker guesses this pruner, by which the shadow models are pruned (default: the "
        "victim's)",
        "mia",
        later=True,
    )
    shadow_sparsity: float | None = option(
        between,
        None,
        "the attacker guesses this sparsity, which the shadow models have (default: the victim's)",
        "mia",
        later=True,
    )
    shadow_model_name: str | None = option(
        one_of(MODELS),
        None,
        "the attacker guesses this network, which the shadow models are (default: the victim's)",
        "mia",
        later=True,
    )
    queries: int = option(
        count_of(VIEW_COUNTS),
        1,
        f"of each record: {', '.join(map(str, VIEW_COUNTS))}; 1, as it is; images also mirrored, from "
        "18 on shifted too; attacks that take one only are as with 1",
        "mia",
        later=True,
    )
    fix_variance: bool | None = option(
        true_or_false,
        None,
        "lira: one variance for all records, true or false (default: true with fewer than 64 "
        "shadow models)",
        "mia",
    )
    rmia_gamma: float | str = option(
        or_word(positive, "choose"),
        "choose",
        "rmia: by how much a record's ratio must exceed a population record's, 2 in the paper; or "
        "choose: on the shadow models, as below",
        "mia",
    )
    rmia_a: float | str = option(
        or_word(share, "choose", "paper"),
        "choose",
        "rmia: 0 to 1, how far a record's posterior without it is corrected; or paper: 0.2 for "
        "tables, 0.3 for images",
        "mia",
    )
    rmia_temperature: float | str = option(
        or_word(positive, "choose"),
        "choose",
        "rmia: what logits are divided by, 2 in the paper",
        "mia",
        before=2.0,
    )
    rmia_trim: float | str = option(
        or_word(below_half, "choose"),
        "choose",
        "rmia: share of the shadow models, at either end, that means leave out; 0.2 in the "
        "paper's code",
        "mia",
        before=0.0,
    )
    ensemble_of: tuple[str, ...] = option(
        combined_attacks,
        COMBINED,
        "ensemble: the attacks that it combines, separated by commas; those that cannot be made are "
        "left out",
        "mia",
        later=True,
    )
    boundary_records: int = option(
        whole(20),
        200,
        "boundary: how many targets, and records of each shadow model, are measured; drawn at "
        "random by --train_seed",
        "mia",
        later=True,
    )
    adaptive: bool = option(
        flag, False, "the attacker's shadow models carry the same defence", "mia"
    )
    per_class: bool = option(
        flag, False, "print accuracy and AUC of each attack for each class too", "mia", result=False
    )
    records: bool = option(
        flag,
        False,
        "write records.csv: what these attacks say of each target record, and how far that can be "
        "relied on",
        "mia",
        result=False,
    )
    original: bool = option(flag, False, "attack the model before compression", "mia")

    # where
    results: str = option(path, "results", "folder of all that is written", result=False)

    # how it runs
    fresh: bool = option(flag, False, "start over: make anew what is there already", result=False)
    save_every: float = option(
        not_negative,
        10.0,
        "seconds between two savings of a training's state, from which the same command goes on "
        "after an interruption",
        result=False,
    )
    wait: float = option(
        not_negative,
        0.0,
        "seconds to wait for a model that another process is making, before giving up",
        result=False,
    )
    tensorboard: bool = option(
        flag,
        False,
        "write loss and accuracy on dev of each epoch to tensorboard/ in each model's folder; "
        "needs `pip install tensorboard`",
        ANY_TRAINING,
        result=False,
    )
    precision: str | None = option(
        choice("fp32", "bf16"),
        None,
        "of training: fp32, or bf16 for operations that bfloat16 is safe for (default: bf16 for "
        "convolutions on a GPU that has it, else fp32)",
        TRAINING,
    )
    workers: int | None = option(
        whole(1, 1024),
        None,
        "models (or attacks) worked on at once, each in a process of its own; changes no result "
        "(default: the number of cores on a CPU, 1 on a GPU)",
        result=False,
    )
    threads: int = option(
        whole(1, 1024),
        1,
        "threads of each model's training and queries; the last digits depend on it",
    )

    # in configs and on command lines of the original project; nothing reads them
    image_size: int | None = option(ignored, None, "", "", result=False)
    hidden_size: int | None = option(ignored, None, "", "", result=False)

    @property
    def undefended(self) -> Options:
        """The same without a defence."""
        return dataclasses.replace(self, defend="", defend_arg=None, from_scratch=False)

    @property
    def guess(self) -> dict:
        """What the attacker has wrong: the values by the names of the victim's options."""
        values = {of: getattr(self, name) for name, of in GUESSES.items()}
        return {of: value for of, value in values.items() if value is not None}

    @property
    def guessed(self) -> Options:
        """The victim's as the attacker guesses them."""
        return dataclasses.replace(self.without_guess, **self.guess)

    @property
    def without_guess(self) -> Options:
        """The same of an attacker who has nothing wrong."""
        return dataclasses.replace(
            self, shadow_pruner_name=None, shadow_sparsity=None, shadow_model_name=None
        )

    @property
    def unquantized(self) -> Options:
        """The same without a quantiser."""
        return dataclasses.replace(self, quantizer="", pruned=False, quantize_epochs=None)

    @property
    def record(self) -> dict:
        """The options that can change a result, by name, as JSON stores them with it."""
        values = {name: getattr(self, name) for name, about in OPTIONS.items() if about.result}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    @property
    def seed_record(self) -> dict:
        """What seeds are made of that no two trainings may share."""
        return {
            name: value
            for name, value in self.record.items()
            if not OPTIONS[name].later
            or (self.stage in OPTIONS[name].stages and value != OPTIONS[name].default)
        }


OPTIONS: dict[str, Option] = {
    one.name: one.metadata["option"] for one in dataclasses.fields(Options) if one.metadata
}
UNUSED = ("image_size", "hidden_size")
REQUIRED = ("dataset_name", "model_name", "num_cls", "input_dim")
