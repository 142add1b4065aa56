"""Every option of every stage, once: its type, default, help, unit and check."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from attackers import ATTACKS
from bench.values import (
    Kind,
    attack_list,
    below_half,
    between,
    choice,
    epoch_list,
    flag,
    folder_name,
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
from datasets import DATASETS, SPLITS
from defenders import DEFENDERS
from models import MODELS
from pruner import PRUNERS
from quantizer import QUANTIZERS


@dataclass(frozen=True)
class Option:
    """What is known of an option.

    Attributes:
        kind: what values it takes.
        default: None where it follows from other options or from the data.
        help: a line for --help, with the unit.
        stages: on whose command lines it stands; in a config every option may stand.
        result: whether it can change what comes out, so that it is recorded with every result.
        before: its value in results from before there was this option; None: the default.
        later: whether seeds were already made of all options when it came: it is left out of them
            where it is at its default or not of the stage.
    """

    kind: Kind
    default: Any
    help: str
    stages: tuple[str, ...]
    result: bool = True
    before: Any = None
    later: bool = False

    @property
    def when_missing(self):
        """What a result was made with that does not name this option."""
        return self.default if self.before is None else self.before


# ---- groups of stages
_EVERY = "pretrain prune prune_dp quantize mia"
_TRAINING = "pretrain prune quantize"
_ANY_TRAINING = "pretrain prune prune_dp quantize"
_PRUNED = "prune prune_dp quantize mia"
_QUANTIZED = "quantize mia"


def option(kind: Kind, default, help: str, stages: str = _EVERY, **more) -> Any:
    """A field of `Options`; see `Option`."""
    about = Option(kind, default, help, tuple(stages.split()), **more)
    return field(default=default, metadata={"option": about})


_STRENGTHS = ", ".join(
    f"{name} {DEFENDERS[name].options['default']:g}" for name in DEFENDERS if name
)


@dataclass(frozen=True, kw_only=True)
class Options:
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

    # data and network
    dataset_name: str = option(
        folder_name, None, f"data set: {', '.join(DATASETS)}; any name with data_path"
    )
    data_path: str | None = option(
        path, None, "an .npz file of your own, arrays x and y, in place of a named data set"
    )
    data_root: str = option(
        path, None, "folder of the data sets (default: $MIA_DATA, else data/datasets)", result=False
    )
    model_name: str = option(one_of(MODELS), None, f"network: {', '.join(MODELS)}")
    num_cls: int = option(whole(2, 100000), None, "number of classes")
    input_dim: int = option(whole(1), None, "channels of an image, columns of a table")

    # training
    epochs: int = option(whole(1), 100, "most epochs of pretraining", _ANY_TRAINING)
    prune_epochs: int = option(
        whole(0),
        None,
        "most epochs of fine-tuning, of each round (default: epochs // 2 // prune_iterations)",
        "prune prune_dp",
    )
    keep_epochs: tuple[int, ...] = option(
        epoch_list,
        (),
        "epochs whose weights are kept too, 0 = before the first, separated by commas; for --rewind",
        "pretrain",
        result=False,
    )
    batch_size: int = option(whole(2), 128, "records a step", _ANY_TRAINING)
    optimizer: str = option(
        choice("adam", "sgd"), "adam", "adam, or sgd with momentum .9", _TRAINING
    )
    lr: float = option(positive, 1e-3, "learning rate", _TRAINING)
    weight_decay: float = option(not_negative, 5e-4, "weight decay", _ANY_TRAINING)
    early_stop: int = option(
        whole(0),
        5,
        "stop after more than so many epochs without a better accuracy on dev; 0 = never",
        _ANY_TRAINING,
    )
    shadow_num: int = option(whole(1, 10000), 5, "number of shadow models")
    split: str = option(
        choice(*SPLITS),
        "paper",
        "paper: shadow models never see the victim's records; inout: half of them are trained on "
        "each record, for online attacks",
        "pretrain",
    )
    seed: int = option(whole(0), 7, "seed of the split")
    train_seed: int = option(
        whole(0),
        None,
        "seed of all else: weights, order of batches, dropout; not of private noise, see "
        "--dp_noise (default: the seed)",
    )

    # compression and defence
    pruner_name: str = option(one_of(PRUNERS), "l1unstructure", ", ".join(PRUNERS), _PRUNED)
    prune_sparsity: float = option(between, 0.7, "share that is pruned, in (0, 1)", _PRUNED)
    prune_iterations: int = option(
        whole(1, 100),
        1,
        "rounds of pruning and fine-tuning, round k of K leaving (1 - sparsity)^(k/K) of the weights",
        _PRUNED,
        later=True,
    )
    rewind: int | None = option(
        whole(0),
        None,
        "start each round from the weights after this epoch of pretraining, 0 = the initial ones "
        "(lottery ticket, Frankle et al. 2020); needs pretrain.py --keep_epochs",
        _PRUNED,
        later=True,
    )
    quantizer: str | None = option(
        one_of(QUANTIZERS), None, f"quantiser: {', '.join(QUANTIZERS)}", _QUANTIZED, later=True
    )
    pruned: bool = option(
        flag,
        False,
        "what is quantised are the models of these pruning options, not the originals",
        _QUANTIZED,
        later=True,
    )
    quantize_epochs: int | None = option(
        whole(0),
        None,
        "most epochs of fine-tuning through the quantiser; 0 = none, weights are rounded to nearest "
        "(default: epochs // 2)",
        "quantize",
        later=True,
    )
    defend: str = option(
        one_of(DEFENDERS),
        "",
        f"defence: {', '.join(name or repr(name) for name in DEFENDERS)}",
        _PRUNED,
    )
    defend_arg: float | None = option(
        not_negative, None, f"strength of the defence (default: {_STRENGTHS})", _PRUNED
    )
    dp_engine: str = option(
        choice("pyvacy", "opacus"),
        "pyvacy",
        "whose optimiser takes the private step: pyvacy or opacus",
        "prune_dp",
    )
    dp_noise: str = option(
        choice("secret", "seeded"),
        "secret",
        "where noise and draw of batches come from: secret, the operating system; or seeded, "
        "--train_seed and the data, for replication: nothing is guaranteed then",
        "prune_dp",
    )
    dp_lr: float = option(positive, 1.0, "learning rate of the private steps", "prune_dp")
    max_grad_norm: float = option(
        positive, 1.0, "what each record's gradient is clipped to", "prune_dp"
    )
    delta: float | None = option(
        between, None, "of the guarantee (default: the largest power of ten below 1/n)", "prune_dp"
    )
    from_scratch: bool = option(
        flag,
        False,
        "not from the pretrained weights but from random ones: the guarantee then holds for the "
        "network",
        "prune_dp mia",
    )

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
    adaptive: bool = option(
        flag, False, "the attacker's shadow models carry the same defence", "mia"
    )
    per_class: bool = option(
        flag, False, "print accuracy and AUC of each attack for each class too", "mia", result=False
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
        _ANY_TRAINING,
        result=False,
    )
    precision: str | None = option(
        choice("fp32", "bf16"),
        None,
        "of training: fp32, or bf16 for operations that bfloat16 is safe for (default: bf16 for "
        "convolutions on a GPU that has it, else fp32)",
        _TRAINING,
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
    image_size: Any = option(ignored, None, "", "", result=False)
    hidden_size: Any = option(ignored, None, "", "", result=False)

    @property
    def undefended(self) -> Options:
        """The same without a defence."""
        return dataclasses.replace(self, defend="", defend_arg=None, from_scratch=False)

    @property
    def unquantized(self) -> Options:
        """The same without a quantiser."""
        return dataclasses.replace(self, quantizer=None, pruned=False, quantize_epochs=None)

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
