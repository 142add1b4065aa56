"""Every option of every stage, once; read from defaults < JSON config < command line and checked without data."""

import argparse
import math
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

from attackers import ATTACKS
from core.console import UserError
from core.inputs import expand_home, locate, read_object
from core.registry import Registry, nearest
from datasets import DATASETS, SPLITS, check_even
from defenders import DEFENDERS
from models import MODELS
from pruner import PRUNERS

# ---- kinds of value: each takes what stands in the config or on the command line, and returns it or raises ValueError


def whole(low: int, high: int = 2**31 - 1) -> Callable:
    """Whole numbers from `low` to `high`, also written 3.0 or "3"."""

    def read(value) -> int:
        number = float(value) if not isinstance(value, bool) else math.nan
        if not (math.isfinite(number) and number == int(number) and low <= number <= high):
            raise ValueError
        return int(number)

    read.expected = f"a whole number from {low} to {high}"
    return read


def number(expected: str, holds: Callable[[float], bool]) -> Callable:
    """Finite real numbers of which `holds` is true; `expected` says so in words."""

    def read(value) -> float:
        real = float(value) if not isinstance(value, bool) else math.nan
        if not (math.isfinite(real) and holds(real)):
            raise ValueError
        return real

    read.expected = expected
    return read


def one_of(registry: Registry) -> Callable:
    def read(value) -> str:
        return registry.check(value if isinstance(value, str) else repr(value))

    read.expected = f"a {registry.noun}"
    return read


def choice(*words: str) -> Callable:
    def read(value) -> str:
        if value not in words:
            raise ValueError
        return value

    read.expected = " or ".join(map(repr, words))
    return read


def attack_list(value) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not names:
        raise ValueError
    names = [name.strip() for name in names]
    if names == ["all"]:  # which these are depends on the split
        return ("all",)
    if "all" in names:
        raise UserError("'all' stands alone")
    return tuple(dict.fromkeys(ATTACKS.check(name) for name in names))


def text(value) -> str:
    """One that can be printed in a line."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError
    return value


def path(value) -> str:
    """Of a file or folder; `~` is the home folder, as in a shell."""
    return expand_home(text(value))


def folder_name(value) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise ValueError
    return value


def flag(value) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def truth(value) -> bool:
    """In a config also as a word, as on the command line."""
    return flag(
        {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
    )


def or_word(kind: Callable, *words: str) -> Callable:
    """Values of this kind, or one of a few words."""

    def read(value):
        return value if value in words else kind(value)

    read.expected = f"{kind.expected}, or {' or '.join(map(repr, words))}"
    return read


attack_list.expected = "attack names, separated by commas"
path.expected = "a path"
folder_name.expected = "a name of letters, digits, '.', '_' and '-'"
flag.expected = truth.expected = "true or false"
anything = lambda value: value
anything.expected = "anything"


@dataclass(frozen=True)
class Option:
    """An option. `stages` are those on whose command line it stands; in a config every option may stand.

    `result`: whether it can change what comes out, so that it is recorded with every result. `before`: its value in
    results from before there was this option; None: the default.
    """

    kind: Callable
    default: object
    help: str
    stages: str = "pretrain prune prune_dp mia"
    result: bool = True
    before: object = None

    @property
    def when_missing(self):
        """What a result was made with that does not name this option."""
        return self.default if self.before is None else self.before


_TRAINING = "pretrain prune"
_ANY_TRAINING = "pretrain prune prune_dp"
_PRUNED = "prune prune_dp mia"
positive = number("a number above 0", lambda real: real > 0)
not_negative = number("a number of 0 or more", lambda real: real >= 0)
share = number("a number from 0 to 1", lambda real: 0 <= real <= 1)
below_half = number("a number from 0 to below 0.5", lambda real: 0 <= real < 0.5)
between = number("a number between 0 and 1, neither included", lambda real: 0 < real < 1)

OPTIONS: dict[str, Option] = {
    # data and network
    "dataset_name": Option(
        folder_name, None, f"data set: {', '.join(DATASETS)}; any name with data_path"
    ),
    "data_path": Option(
        path, None, "an .npz file of your own, arrays x and y, in place of a named data set"
    ),
    "data_root": Option(
        path, None, "folder of the data sets (default: $MIA_DATA, else data/datasets)", result=False
    ),
    "model_name": Option(one_of(MODELS), None, f"network: {', '.join(MODELS)}"),
    "num_cls": Option(whole(2, 100000), None, "number of classes"),
    "input_dim": Option(whole(1), None, "channels of an image, columns of a table"),
    # training
    "epochs": Option(whole(1), 100, "most epochs of pretraining", _ANY_TRAINING),
    "prune_epochs": Option(
        whole(0), None, "most epochs of fine-tuning (default: epochs // 2)", "prune prune_dp"
    ),
    "batch_size": Option(whole(2), 128, "records a step", _ANY_TRAINING),
    "optimizer": Option(choice("adam", "sgd"), "adam", "adam, or sgd with momentum .9", _TRAINING),
    "lr": Option(positive, 1e-3, "learning rate", _TRAINING),
    "weight_decay": Option(not_negative, 5e-4, "weight decay", _ANY_TRAINING),
    "early_stop": Option(
        whole(0),
        5,
        "stop after more than so many epochs without a better accuracy on dev; 0 = never",
        _ANY_TRAINING,
    ),
    "shadow_num": Option(whole(1, 10000), 5, "number of shadow models"),
    "split": Option(
        choice(*SPLITS),
        "paper",
        "paper: shadow models never see the victim's records; inout: half of "
        "them are trained on each record, for online attacks",
        "pretrain",
    ),
    "seed": Option(whole(0), 7, "seed of the split"),
    "train_seed": Option(
        whole(0),
        None,
        "seed of all else: weights, order of batches, dropout; not of private "
        "noise, see --dp_noise (default: the seed)",
    ),
    # pruning and defence
    "pruner_name": Option(one_of(PRUNERS), "l1unstructure", f"{', '.join(PRUNERS)}", _PRUNED),
    "prune_sparsity": Option(between, 0.7, "share that is pruned, in (0, 1)", _PRUNED),
    "defend": Option(
        one_of(DEFENDERS),
        "",
        f"defence: {', '.join(name or repr(name) for name in DEFENDERS)}",
        _PRUNED,
    ),
    "defend_arg": Option(
        not_negative,
        None,
        "strength of the defence (default: "
        + ", ".join(f"{name} {DEFENDERS[name].options['default']:g}" for name in DEFENDERS if name)
        + ")",
        _PRUNED,
    ),
    "dp_engine": Option(
        choice("pyvacy", "opacus"),
        "pyvacy",
        "whose optimiser takes the private step: pyvacy or opacus",
        "prune_dp",
    ),
    "dp_noise": Option(
        choice("secret", "seeded"),
        "secret",
        "where noise and draw of batches come from: secret, the "
        "operating system; or seeded, --train_seed and the data, for replication: nothing is guaranteed "
        "then",
        "prune_dp",
    ),
    "dp_lr": Option(positive, 1.0, "learning rate of the private steps", "prune_dp"),
    "max_grad_norm": Option(positive, 1.0, "what each record's gradient is clipped to", "prune_dp"),
    "delta": Option(
        between, None, "of the guarantee (default: the largest power of ten below 1/n)", "prune_dp"
    ),
    "from_scratch": Option(
        flag,
        False,
        "not from the pretrained weights but from random ones: the guarantee then "
        "holds for the network",
        "prune_dp mia",
    ),
    # attacks
    "attacks": Option(
        attack_list,
        ("samia",),
        f"one or more of {', '.join(ATTACKS)}, separated by commas; or all that apply",
        "mia",
        result=False,
    ),
    "fix_variance": Option(
        truth,
        None,
        "lira: one variance for all records, true or false (default: true with fewer "
        "than 64 shadow models)",
        "mia",
    ),
    "rmia_gamma": Option(
        or_word(positive, "choose"),
        "choose",
        "rmia: by how much a record's ratio must exceed a "
        "population record's, 2 in the paper; or choose: on the shadow models, as below",
        "mia",
    ),
    "rmia_a": Option(
        or_word(share, "choose", "paper"),
        "choose",
        "rmia: 0 to 1, how far a record's posterior without "
        "it is corrected; or paper: 0.2 for tables, 0.3 for images",
        "mia",
    ),
    "rmia_temperature": Option(
        or_word(positive, "choose"),
        "choose",
        "rmia: what logits are divided by, 2 in the paper",
        "mia",
        before=2.0,
    ),
    "rmia_trim": Option(
        or_word(below_half, "choose"),
        "choose",
        "rmia: share of the shadow models, at either end, "
        "that means leave out; 0.2 in the paper's code",
        "mia",
        before=0.0,
    ),
    "adaptive": Option(flag, False, "the attacker's shadow models carry the same defence", "mia"),
    "per_class": Option(
        flag, False, "print accuracy and AUC of each attack for each class too", "mia", result=False
    ),
    "original": Option(flag, False, "attack the model before pruning", "mia"),
    # where
    "results": Option(path, "results", "folder of all that is written", result=False),
    # how it runs
    "fresh": Option(flag, False, "start over: make anew what is there already", result=False),
    "save_every": Option(
        not_negative,
        10.0,
        "seconds between two savings of a training's state, from which the same "
        "command goes on after an interruption",
        result=False,
    ),
    "wait": Option(
        not_negative,
        0.0,
        "seconds to wait for a model that another process is making, before giving up",
        result=False,
    ),
    "tensorboard": Option(
        flag,
        False,
        "write loss and accuracy on dev of each epoch to tensorboard/ in each "
        "model's folder; needs `pip install tensorboard`",
        _ANY_TRAINING,
        result=False,
    ),
    "precision": Option(
        choice("fp32", "bf16"),
        None,
        "of training: fp32, or bf16 for operations that bfloat16 is safe for (default: bf16 for "
        "convolutions on a GPU that has it, else fp32)",
        _TRAINING,
    ),
    "workers": Option(
        whole(1, 1024),
        None,
        "models (or attacks) worked on at once, each in a process of its own; "
        "changes no result (default: the number of cores on a CPU, 1 on a GPU)",
        result=False,
    ),
    "threads": Option(
        whole(1, 1024),
        1,
        "threads of each model's training and queries; the last digits depend on it",
    ),
    # in configs and on command lines of the original project; nothing reads them
    "image_size": Option(anything, None, "", "", result=False),
    "hidden_size": Option(anything, None, "", "", result=False),
}
_UNUSED = ("image_size", "hidden_size")
_REQUIRED = ("dataset_name", "model_name", "num_cls", "input_dim")


class _Once(argparse.Action):
    """Takes a value, and refuses another one for the same option: the last would count without a word."""

    def __call__(self, parser, namespace, values, option_string=None):
        before = vars(namespace).setdefault("_before", {}).setdefault(self.dest, values)
        if before != values:
            raise UserError(
                f"{option_string} is given twice, with {before!r} and {values!r}: give it once"
            )
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """Raises UserError where a command line is wrong."""

    def __init__(self, **how):
        super().__init__(**how)
        self.register("action", None, _Once)  # where an argument names no other

    def error(self, message):  # argparse would print the usage too, and exit
        raise UserError(f"{message} (see {self.prog} --help)")


def parse(
    stage: str,
    argv: list[str] | None = None,
    *,
    about: str = "",
    study: dict | None = None,
    where: str = "",
) -> SimpleNamespace:
    """The options of a stage: an attribute for each name of OPTIONS, and `device`, `config_path`, `stage`.

    Those of a cell of a `study` count more than the config's; `where` names its file in errors.

    Raises:
        UserError: an unknown option or config key, a value that does not fit, or values that contradict.
    """
    parser = Parser(
        prog=f"{stage}.py",
        description=about,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "device",
        help="a GPU's number (0: the first, or the CPU where there is none), cuda:N or cpu",
    )
    parser.add_argument("config_path", help="JSON file of options, see config/")
    names = [name for name, option in OPTIONS.items() if stage in option.stages.split()]
    for name in names:
        option = OPTIONS[name]
        default = (
            "" if option.default in (None, False, "") else f" (default: {shown(option.default)})"
        )
        how = {"action": "store_true"} if option.kind is flag else {"metavar": "X"}
        parser.add_argument(
            f"--{name}", default=None, help=(option.help + default).replace("%", "%%"), **how
        )
    for name in _UNUSED:
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        raise UserError(_unknown(unknown[0].split("=")[0], stage, names))
    if not re.fullmatch(r"cpu|(cuda:)?\d{1,4}|cuda", given.device):
        raise UserError(f"device must be a GPU's number, cuda:N or cpu, not {given.device!r}")

    values = {name: option.default for name, option in OPTIONS.items()}
    given.config_path = locate(given.config_path, "config")
    config = read_config(given.config_path)
    values |= {
        name: read_value(f"{given.config_path}: {name}", name, value)
        for name, value in config.items()
    }
    values |= {
        name: read_value(f"{where}: {name}", name, value) for name, value in (study or {}).items()
    }
    for name in names:
        if getattr(given, name) is not None:
            values[name] = read_value(f"--{name}", name, getattr(given, name))
    if values["original"] and stage == "mia":
        for name in (
            "defend",
            "adaptive",
            "from_scratch",
        ):  # what a config says of other runs does not count here
            if not getattr(given, name):
                values[name] = OPTIONS[name].default
    options = SimpleNamespace(
        stage=stage, device=given.device, config_path=given.config_path, **values
    )
    _complete(options)
    _check_together(options)
    if getattr(given, "defend_arg", None) is not None and not options.defend:
        raise UserError("--defend_arg is the strength of a defence: name it with --defend")
    return options


def _unknown(word: str, stage: str, names: list[str]) -> str:
    """What is wrong with a word of a stage's command line that none of its options is."""
    name = word.lstrip("-").replace("-", "_")
    if word.startswith("-") and name in OPTIONS and name not in names:
        of = ", ".join(f"{other}.py" for other in OPTIONS[name].stages.split())
        return f"--{name} is an option of {of}, not of {stage}.py"
    return f"unknown argument {word!r}{nearest(word.lstrip('-'), names, dashes='--')} (see {stage}.py --help)"


def for_stage(stage: str, options: SimpleNamespace, **instead) -> SimpleNamespace:
    """Another stage's options: these, with some in place of others. Raises UserError as `parse` does."""
    own = SimpleNamespace(**{**vars(options), **instead, "stage": stage})
    _complete(own)
    _check_together(own)
    return own


def record(options: SimpleNamespace) -> dict:
    """The options that can change a result, by name, as they are stored with it."""
    return {name: getattr(options, name) for name, option in OPTIONS.items() if option.result}


def as_config(options: SimpleNamespace) -> dict:
    """All options as a config that says just them; `parse` makes the same of it, in the same stage."""
    return {
        name: list(value) if isinstance(value := getattr(options, name), tuple) else value
        for name in OPTIONS
    }


def command(stage: str, options: SimpleNamespace) -> str:
    """The command line that runs another stage with the options that differ from config and defaults."""
    before = config_values(options.config_path)
    derived = {
        (name, value)
        for name, value in _derived(options)
        if name not in read_config(options.config_path)
    }
    words = ["python", f"{stage}.py", options.device, options.config_path]
    for name, option in OPTIONS.items():
        value = getattr(options, name)
        if (
            stage in option.stages.split()
            and value is not None
            and value != before[name]
            and (name, value) not in derived
        ):
            words += [f"--{name}"] * value if option.kind is flag else [f"--{name}", shown(value)]
    return shlex.join(words)


def config_values(config_path: str) -> dict:
    """The options as a config and the defaults say them, before a command line."""
    return {name: option.default for name, option in OPTIONS.items()} | {
        name: read_value(name, name, value) for name, value in read_config(config_path).items()
    }


def _derived(options) -> set:
    default = DEFENDERS[options.defend].options["default"]
    of_no_matter = [
        (name, getattr(options, name))
        for name in ("attacks", "workers", "save_every", "wait", "per_class")
    ]
    return {
        ("train_seed", options.seed),
        ("prune_epochs", options.epochs // 2),
        ("defend_arg", default),
        ("data_root", default_data_root()),
        ("fresh", True),
        *of_no_matter,
    }


def shown(value) -> str:
    """A value as a command line takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, float):
        return (
            f"{value:g}" if float(f"{value:g}") == value else repr(value)
        )  # all digits, so that it can be pasted
    return str(value)


def default_data_root() -> str:
    """The folder of the data sets where no option names one. Raises UserError where MIA_DATA names none."""
    try:
        return expand_home(os.environ.get("MIA_DATA") or "data/datasets")
    except UserError as error:
        raise UserError(f"MIA_DATA: {error}") from error


def read_config(path: str) -> dict:
    """What a config says, as it stands there. Raises UserError where it is none or has an unknown key."""
    config = read_object(path, "config")
    for key in config:
        if key not in OPTIONS:
            raise UserError(
                f"config {path}: unknown key {key!r}"
                f"{nearest(key, OPTIONS) or ' (keys: ' + ', '.join(OPTIONS) + ')'}"
            )
    return config


def read_value(where: str, name: str, value):
    """An option's value from a config, a study or a command line. Raises UserError, which begins with `where`."""
    option = OPTIONS[name]
    if value is None and option.default is None:
        return None
    try:
        return option.kind(value)
    except UserError as error:
        raise UserError(f"{where}: {error}")
    except (ValueError, TypeError, OverflowError, AttributeError):
        written = {"None": "null", "True": "true", "False": "false"}.get(
            repr(value), repr(value)
        )  # as JSON has it
        raise UserError(f"{where} must be {option.kind.expected}, not {written}")


def _complete(options: SimpleNamespace) -> None:
    """Fill in what follows from other options."""
    for name in _REQUIRED:
        if getattr(options, name) is None:
            raise UserError(
                f"config {options.config_path}: {name} is missing ({OPTIONS[name].help})"
            )
    if options.data_path is None:
        options.dataset_name = DATASETS.check(options.dataset_name)
    if options.data_root is None:
        options.data_root = default_data_root()
    if options.train_seed is None:
        options.train_seed = options.seed
    if options.prune_epochs is None:
        options.prune_epochs = options.epochs // 2
    if options.stage == "prune_dp":
        options.defend = options.defend or "dp"
    if options.stage in (
        "pretrain",
        "prune",
    ):  # what a config says of other runs does not count here
        options.from_scratch = False
    if not options.defend:
        options.defend_arg = None
    elif options.defend_arg is None:
        options.defend_arg = DEFENDERS[options.defend].options["default"]


def _check_together(options: SimpleNamespace) -> None:
    if options.stage in ("prune", "prune_dp") or options.stage == "mia" and not options.original:
        needs = PRUNERS[options.pruner_name].options["layer"]
        if needs not in MODELS[options.model_name].options["layers"]:
            fits = [
                name
                for name in PRUNERS
                if PRUNERS[name].options["layer"] in MODELS[options.model_name].options["layers"]
            ]
            raise UserError(
                f"{options.pruner_name} prunes {needs} layers, of which {options.model_name} has none: "
                f"use --pruner_name {' or '.join(fits)}"
            )
    maker = DEFENDERS[options.defend].options.get("stage", "prune")
    if options.stage in ("prune", "prune_dp") and options.stage != maker:
        raise UserError(
            f"{options.stage}.py does not fine-tune with the defence {options.defend!r}: run "
            f"`{command(maker, options)}`"
        )
    if options.defend == "dp" and not options.defend_arg > 0:
        raise UserError(
            f"--defend_arg, the noise multiplier of dp, must be above 0, not {options.defend_arg:g}"
        )
    if options.from_scratch and options.stage == "prune_dp" and options.pruner_name == "slim":
        raise UserError(
            "slim prunes by BatchNorm's weights, which are all 1 in a network that is not trained: "
            "use another --pruner_name with --from_scratch"
        )
    if options.from_scratch and options.stage == "mia" and options.defend != "dp":
        raise UserError(
            "--from_scratch attacks what `prune_dp.py --from_scratch` made: name it with --defend dp"
        )
    if options.stage == "pretrain" and options.split == "inout":
        check_even(options.shadow_num)
    if options.stage == "mia":
        if options.original and (options.adaptive or options.defend):
            raise UserError(
                "--original attacks the model before pruning, which carries no defence: "
                "leave out --defend and --adaptive"
            )
        if options.adaptive and not options.defend:
            raise UserError(
                "--adaptive means that the attacker knows the defence: name it with --defend"
            )
    elif options.tensorboard:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except Exception as error:  # one that is there and broken raises anything
            raise UserError(
                f"--tensorboard needs a package that cannot be imported here ({error}): "
                f"`pip install tensorboard`"
            ) from error
