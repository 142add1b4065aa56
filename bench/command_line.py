"""From command line, config and study to `Options`, and back to a command line."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from bench import values
from bench.options import OPTIONS, REQUIRED, UNUSED, Options
from core.console import UserError
from core.inputs import expand_home, locate, read_object
from core.registry import nearest
from datasets import DATASETS, check_even
from defenders import DEFENDERS
from models import MODELS
from pruner import PRUNERS, check_sparsity

# which options are of pruning, and mean nothing of an original
PRUNING_OPTIONS = ("pruner_name", "prune_sparsity", "prune_iterations", "rewind", "prune_epochs")
_DP_ONLY = [
    name for name, about in OPTIONS.items() if about.stages in (("prune_dp",), ("prune_dp", "mia"))
]


class _Once(argparse.Action):
    """Takes a value, and refuses another one for the same option: the last would count without a
    word."""

    def __call__(self, parser, namespace, values, option_string=None):
        before = vars(namespace).setdefault("_before", {}).setdefault(self.dest, values)
        if before != values:
            raise UserError(
                f"{option_string} is given twice, with {before!r} and {values!r}: give it once"
            )
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """Raises UserError where a command line is wrong."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.register("action", None, _Once)  # where an argument names no other

    def error(self, message):  # argparse would print the usage too, and exit
        raise UserError(f"{message} (see {self.prog} --help)")


@dataclass(frozen=True)
class Study:
    """What a study says of one of its cells.

    Attributes:
        values: of options, by name.
        where: the study, as errors begin.
    """

    values: Mapping
    where: str


def parse(
    stage: str, argv: list[str] | None = None, *, about: str = "", study: Study | None = None
) -> Options:
    """The options of a stage: of defaults, config, study and command line, the last that says.

    Raises:
        UserError: an unknown option or config key, a value that does not fit, or values that
            contradict.
    """
    names = [name for name, about_it in OPTIONS.items() if stage in about_it.stages]
    given, unknown = _parser(stage, names, about).parse_known_args(argv)
    if unknown:
        raise UserError(_about_unknown(unknown[0].split("=")[0], stage, names))
    if not re.fullmatch(r"cpu|(cuda:)?\d{1,4}|cuda", given.device):
        raise UserError(f"device must be a GPU's number, cuda:N or cpu, not {given.device!r}")

    config_path = locate(given.config_path, "config")
    config = {
        name: read_value(f"{config_path}: {name}", name, value)
        for name, value in read_config(config_path).items()
    }
    from_study = _values_of(study) if study else {}
    typed = {
        name: read_value(f"--{name}", name, getattr(given, name))
        for name in names
        if getattr(given, name) is not None
    }
    chosen = _defaults() | config | from_study | typed
    # a contradiction that somebody typed is an error; a study's cells combine what they may not
    # need
    asked = set() if study else typed.keys() | config.keys() - _of_other_runs(stage, chosen)
    options = Options(
        stage=stage,
        device=given.device,
        config_path=config_path,
        **normalise(chosen, stage, asked=asked, config_path=config_path),
    )
    _check_together(options)
    if "defend_arg" in typed and not options.defend:
        raise UserError("--defend_arg is the strength of a defence: name it with --defend")
    return options


def _values_of(study: Study) -> dict:
    return {
        name: read_value(f"{study.where}: {name}", name, value)
        for name, value in study.values.items()
    }


def _parser(stage: str, names: Iterable[str], about: str) -> Parser:
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
    for name in names:
        option = OPTIONS[name]
        default = option.default
        text = "" if default in (None, False, "", ()) else f" (default: {format_value(default)})"
        takes: dict = {"action": "store_true"} if option.kind is values.flag else {"metavar": "X"}
        help_text = (option.help + text).replace("%", "%%")
        parser.add_argument(f"--{name}", default=None, help=help_text, **takes)
    for name in UNUSED:
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    return parser


def _about_unknown(word: str, stage: str, names: list[str]) -> str:
    """What is wrong with a word of a stage's command line that none of its options is."""
    name = word.lstrip("-").replace("-", "_")
    if word.startswith("-") and name in OPTIONS and name not in names:
        stages = ", ".join(f"{other}.py" for other in OPTIONS[name].stages)
        return f"--{name} is an option of {stages}, not of {stage}.py"
    near = nearest(word.lstrip("-"), names, dashes="--")
    return f"unknown argument {word!r}{near} (see {stage}.py --help)"


def _defaults() -> dict:
    return {name: option.default for name, option in OPTIONS.items()}


def _of_other_runs(stage: str, chosen: Mapping) -> set[str]:
    """What a config may say for the sake of other runs than this one."""
    return (
        {"defend", "adaptive", "from_scratch"} if stage == "mia" and chosen["original"] else set()
    )


def normalise(
    chosen: Mapping, stage: str, *, asked: Iterable[str] = (), config_path: str = ""
) -> dict:
    """The values of all options in a stage: what means nothing there is at its default, and what
    follows from others is filled in.

    Args:
        chosen: a value for each option.
        asked: names of options that stay as they are, for `parse` to refuse what contradicts.
        config_path: for errors.
    Raises:
        UserError: an option is missing that every config must have, or there is no such data set.
    """
    meaning = dict(chosen)
    for name in REQUIRED:
        if meaning[name] is None:
            raise UserError(f"config {config_path}: {name} is missing ({OPTIONS[name].help})")
    if meaning["data_path"] is None:
        meaning["dataset_name"] = DATASETS.check(meaning["dataset_name"])

    def reset(*names: str) -> None:
        meaning.update((name, OPTIONS[name].default) for name in names if name not in asked)

    if stage == "mia" and meaning["original"]:
        reset(*PRUNING_OPTIONS, "defend")
    if stage == "prune_dp":
        meaning["defend"] = meaning["defend"] or "dp"
    if not meaning["defend"]:
        reset("adaptive")
        meaning["defend_arg"] = None
    elif meaning["defend_arg"] is None:
        meaning["defend_arg"] = DEFENDERS[meaning["defend"]].options["default"]
    if meaning["defend"] != "dp":
        reset(*_DP_ONLY)
    if stage in ("pretrain", "prune"):
        meaning["from_scratch"] = False
    if meaning["data_root"] is None:
        meaning["data_root"] = default_data_root()
    return meaning | {
        name: value for name, value in derived(meaning).items() if meaning[name] is None
    }


def derived(meaning: Mapping) -> dict:
    """The options that follow from others where nobody says them."""
    return {
        "train_seed": meaning["seed"],
        "prune_epochs": _fine_tuning_epochs(meaning["epochs"], meaning["prune_iterations"]),
    }


def _fine_tuning_epochs(epochs: int, rounds: int) -> int:
    return epochs // 2 if rounds == 1 else max(1, epochs // 2 // rounds)


def for_stage(stage: str, options: Options, **changes) -> Options:
    """Another stage's options: these, with some changed; what means nothing there stays as it is.

    Raises UserError as `parse` does.
    """
    chosen = {name: getattr(options, name) for name in OPTIONS} | changes
    made = dataclasses.replace(options, stage=stage, **normalise(chosen, stage, asked=OPTIONS))
    _check_together(made)
    return made


def as_config(options: Options) -> dict:
    """All options as a config that says just them; `parse` makes the same of it, in the same
    stage."""
    config = {name: getattr(options, name) for name in OPTIONS}
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in config.items()
    }


def command(stage: str, options: Options) -> str:
    """The command line that runs another stage with the options that differ from config and
    defaults."""
    before = config_values(options.config_path)
    follows = derived(vars(options)) | {
        "defend_arg": DEFENDERS[options.defend].options["default"],
        "fresh": True,
    }
    with suppress(UserError):  # of a data_root that is none, which these options do not need
        follows["data_root"] = default_data_root()
    follows = {
        name: value
        for name, value in follows.items()
        if name not in read_config(options.config_path)
    }
    of_no_matter = ("attacks", "workers", "save_every", "wait", "per_class")
    words = ["python", f"{stage}.py", options.device, options.config_path]
    for name, option in OPTIONS.items():
        value = getattr(options, name)
        if (
            stage in option.stages
            and name not in of_no_matter
            and value not in (None, before[name])
            and not (name in follows and follows[name] == value)
        ):
            flag = option.kind is values.flag
            words += [f"--{name}"] * value if flag else [f"--{name}", format_value(value)]
    return shlex.join(words)


def config_values(config_path: str) -> dict:
    """The options as a config and the defaults say them, before a command line."""
    config = read_config(config_path)
    return _defaults() | {name: read_value(name, name, value) for name, value in config.items()}


def format_value(value) -> str:
    """A value as a command line takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, float):  # all digits, so that it can be pasted
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def default_data_root() -> str:
    """The folder of the data sets where no option names one. Raises UserError where MIA_DATA names
    none."""
    try:
        return expand_home(os.environ.get("MIA_DATA") or "data/datasets")
    except UserError as error:
        raise UserError(f"MIA_DATA: {error}") from error


def read_config(path: str) -> dict:
    """What a config says, as it stands there. Raises UserError where it is none or has an unknown
    key."""
    config = read_object(path, "config")
    for key in config:
        if key not in OPTIONS:
            hint = nearest(key, OPTIONS) or f" (keys: {', '.join(OPTIONS)})"
            raise UserError(f"config {path}: unknown key {key!r}{hint}")
    return config


def read_value(where: str, name: str, value):
    """An option's value from a config, a study or a command line. Raises UserError, which begins
    with `where`."""
    option = OPTIONS[name]
    if value is None and option.default is None:
        return None
    try:
        return option.kind.read(value)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        words = {"None": "null", "True": "true", "False": "false"}  # as JSON has it
        written = words.get(repr(value), repr(value))
        raise UserError(f"{where} must be {option.kind.expected}, not {written}") from error


def _check_together(options: Options) -> None:
    """Raise UserError where options contradict each other."""
    if options.stage in ("prune", "prune_dp") or options.stage == "mia" and not options.original:
        _check_pruner(options)
    maker = stage_of(options.defend)
    if options.stage in ("prune", "prune_dp") and options.stage != maker:
        raise UserError(
            f"{options.stage}.py does not fine-tune with the defence {options.defend!r}: run "
            f"`{command(maker, options)}`"
        )
    if options.defend == "dp" and not (options.defend_arg or 0) > 0:
        raise UserError(
            f"--defend_arg, the noise multiplier of dp, must be above 0, not {options.defend_arg:g}"
        )
    if options.from_scratch:
        _check_from_scratch(options)
    if options.stage == "pretrain" and options.split == "inout":
        check_even(options.shadow_num)
    if options.stage == "mia":
        _check_attacker(options)
    elif options.tensorboard:
        _check_tensorboard()


def stage_of(defence: str) -> str:
    """The stage that fine-tunes with a defence."""
    return DEFENDERS[defence].options.get("stage", "prune")


def _check_pruner(options: Options) -> None:
    needs, has = PRUNERS[options.pruner_name].options["layer"], MODELS[options.model_name].options
    if needs not in has["layers"]:
        fits = [name for name in PRUNERS if PRUNERS[name].options["layer"] in has["layers"]]
        raise UserError(
            f"{options.pruner_name} prunes {needs} layers, of which {options.model_name} has none: "
            f"use --pruner_name {' or '.join(fits)}"
        )

    check_sparsity(options.pruner_name, options.prune_sparsity)
    uses_data = "data" in PRUNERS[options.pruner_name].options.get("needs", ())
    if uses_data and options.defend == "dp":
        raise UserError(
            f"{options.pruner_name} looks at train records, which no differential privacy protects "
            f"then: use another --pruner_name with --defend dp"
        )


def _check_from_scratch(options: Options) -> None:
    if options.rewind is not None:
        raise UserError(
            "--rewind goes back to weights of pretraining, of which --from_scratch uses none"
        )
    if options.stage == "prune_dp" and options.pruner_name == "slim":
        raise UserError(
            "slim prunes by BatchNorm's weights, which are all 1 in a network that is not trained: "
            "use another --pruner_name with --from_scratch"
        )
    if options.stage == "mia" and options.defend != "dp":
        raise UserError(
            "--from_scratch attacks what `prune_dp.py --from_scratch` made: name it with --defend dp"
        )


def _check_attacker(options: Options) -> None:
    if options.original and (options.adaptive or options.defend):
        raise UserError(
            "--original attacks the model before pruning, which carries no defence: "
            "leave out --defend and --adaptive"
        )
    if options.adaptive and not options.defend:
        raise UserError(
            "--adaptive means that the attacker knows the defence: name it with --defend"
        )


def _check_tensorboard() -> None:
    try:
        import torch.utils.tensorboard  # noqa: F401
    except Exception as error:  # one that is there and broken raises anything
        raise UserError(
            f"--tensorboard needs a package that cannot be imported here ({error}): "
            f"`pip install tensorboard`"
        ) from error
