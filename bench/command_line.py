"""From command line, config and study to `Options`, and back to a command line."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from attackers import ATTACKS
from bench import values
from bench.configs import (
    default_data_root,
    default_values,
    derived,
    format_value,
    read_config,
    read_value,
)
from bench.guesses import GUESSES
from bench.layout import PRUNED_AFTER, PRUNING, QUANTIZING, ModelSet
from bench.option_checks import check_together
from bench.options import OPTIONS, REQUIRED, UNUSED, Options
from bench.releases import in_order
from core.console import UserError
from core.inputs import locate
from core.registry import nearest
from datasets import DATASETS
from defenders import DEFENDERS

_DP_ONLY = [
    name for name, about in OPTIONS.items() if about.stages in (("prune_dp",), ("prune_dp", "mia"))
]
_OF_CANARIES = ("canary_kind", "canary_seed")


DEVICES = "a GPU's number (0: the first, or the CPU where there is none), cuda:N or cpu"


def check_device(option: str, value: str) -> None:
    """Raise UserError where a value is not what `DEVICES` says."""
    if not re.fullmatch(r"cpu|(cuda:)?\d{1,4}|cuda", value):
        raise UserError(f"{option} must be a GPU's number, cuda:N or cpu, not {value!r}")


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
    """Raises UserError where a command line is wrong. Options have whole names, and a description
    is printed as it stands."""

    def __init__(self, **settings):
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(**{"allow_abbrev": False, "formatter_class": raw} | settings)
        self.register("action", None, _Once)  # where an argument names no other

    def parse_args(self, args=None, namespace=None):
        given, unknown = self.parse_known_args(args, namespace)
        if unknown:
            names = [name.lstrip("-") for name in self._option_string_actions]
            word = unknown[0].split("=")[0]
            near = nearest(word.lstrip("-"), names, dashes="--")
            raise UserError(f"unknown argument {word!r}{near} (see {self.prog} --help)")
        return given

    def error(self, message):  # argparse would print the usage too, and exit
        required = [action.dest for action in self._positionals._group_actions]
        if message.endswith("required: config_path"):
            message += f", after {required[0]}: `{self.prog} 0 config/digits_columnfc.json`"
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
    check_device("device", given.device)

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
    chosen = default_values() | config | from_study | typed
    # a contradiction that somebody typed is an error; a study's cells combine what they may not
    # need
    asked = set() if study else typed.keys() | config.keys() - _of_other_runs(stage, chosen)
    options = Options(
        stage=stage,
        device=given.device,
        config_path=config_path,
        **normalise(chosen, stage, asked=asked, config_path=config_path),
    )
    check_together(options)
    if "defend_arg" in typed and not options.defend:
        raise UserError("--defend_arg is the strength of a defence: name it with --defend")
    stray = [name for name in _OF_CANARIES if name in typed]
    if stray and not options.canaries:
        raise UserError(f"--{stray[0]} is of canaries: ask for some with --canaries 500")
    _check_typed_compression(typed, options)
    return options


def _check_typed_compression(typed: Iterable[str], options: Options) -> None:
    """Raise UserError where a command line says of compression what would mean nothing."""
    guesses = [name for name in GUESSES if name in typed]
    if guesses and not ModelSet.under_attack(options).is_pruned:
        raise UserError(
            f"--{guesses[0]} is what the attacker takes a pruned victim for, and this one is not "
            f"pruned: leave it out"
        )
    if "pruned" in typed and options.original:
        raise UserError("--original attacks the model before compression: leave out --pruned")
    if options.pruned or options.original:
        return
    if "pruned" in typed and not options.quantizer:
        raise UserError("--pruned tells what is quantised: name the quantiser with --quantizer")
    stray = [name for name in PRUNED_AFTER if name in typed]
    if options.quantizer and stray:
        raise UserError(
            f"--{stray[0]} is of pruned models, and {options.quantizer} of the originals is asked "
            f"for: give --pruned too"
        )


def _values_of(study: Study) -> dict:
    return {
        name: read_value(f"{study.where}: {name}", name, value)
        for name, value in study.values.items()
    }


def _parser(stage: str, names: Iterable[str], about: str) -> Parser:
    parser = Parser(prog=f"{stage}.py", description=about)
    parser.add_argument("device", help=DEVICES)
    parser.add_argument("config_path", help="JSON file of options, see config/")
    for name in names:
        option = OPTIONS[name]
        default = option.default
        text = "" if default in (None, False, "", ()) else f" (default: {format_value(default)})"
        takes: dict = {"action": "store_true"} if option.kind is values.flag else {"metavar": "X"}
        if option.kind is values.switch:
            takes |= {"nargs": "?", "const": "true"}
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
    if word.strip(",") in ATTACKS:
        return f"unknown argument {word!r}: attacks are separated by commas alone, without spaces"
    near = nearest(word.lstrip("-"), names, dashes="--")
    return f"unknown argument {word!r}{near} (see {stage}.py --help)"


def _of_other_runs(stage: str, chosen: Mapping) -> set[str]:
    """What a config may say for the sake of other runs than this one."""
    if stage == "mia" and chosen["original"]:
        return {"defend", "adaptive", "from_scratch", *QUANTIZING}
    return {"from_scratch"} if stage == "mia" and chosen["quantizer"] else set()


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
        reset(*_unused((*PRUNING, *QUANTIZING), meaning), "defend")
    meaning |= _meaningless_compression(meaning, stage)
    if stage != "mia":
        meaning |= {"also": (), "queries": 1}
    meaning["also"] = in_order(meaning["also"])
    if meaning["split"] == "inout":
        reset("attacker_records")
    meaning |= dict.fromkeys(_no_wrong_guesses(meaning, stage)) | _no_canaries(meaning, stage)
    if stage == "prune_dp":
        meaning["defend"] = meaning["defend"] or "dp"
        meaning["augment"] = False  # what is guaranteed is guaranteed for records as they are
    if not meaning["defend"]:
        reset("adaptive")
        meaning["defend_arg"] = None
    elif meaning["defend_arg"] is None:
        meaning["defend_arg"] = DEFENDERS[meaning["defend"]].options["default"]
    if meaning["defend"] != "dp":
        reset(*_DP_ONLY)
    if stage in ("pretrain", "prune", "quantize"):
        meaning["from_scratch"] = False
    if meaning["data_root"] is None:
        meaning["data_root"] = default_data_root()
    return meaning | {
        name: value for name, value in derived(meaning).items() if meaning[name] is None
    }


def _meaningless_compression(meaning: Mapping, stage: str) -> dict:
    """The defaults of what means nothing: options of quantisation where nothing is quantised, and
    of pruning where only that is done."""
    if not meaning["quantizer"] or stage not in OPTIONS["quantizer"].stages:
        names = _unused(QUANTIZING, meaning)
    else:
        names = () if meaning["pruned"] else _unused(PRUNING, meaning)
    return {name: OPTIONS[name].default for name in names}


def _no_canaries(meaning: Mapping, stage: str) -> dict:
    """The defaults of what canaries are like, where there are none: always but in prune_dp.py."""
    if stage == "prune_dp" and meaning["canaries"]:
        return {}
    return {name: OPTIONS[name].default for name in ("canaries", *_OF_CANARIES)}


def _no_wrong_guesses(meaning: Mapping, stage: str) -> list[str]:
    """The guesses of an attacker that are right, or of a victim that is not pruned."""
    pruned = stage == "mia" and not meaning["original"]
    pruned = pruned and (meaning["pruned"] or not meaning["quantizer"])
    return [name for name, of in GUESSES.items() if not pruned or meaning[name] == meaning[of]]


def _unused(names: tuple[str, ...], meaning: Mapping) -> tuple[str, ...]:
    """These names but for epochs that other releases may be fine-tuned for."""
    epochs = ("prune_epochs", "quantize_epochs") if meaning["also"] else ()
    return tuple(name for name in names if name not in epochs)


def for_stage(stage: str, options: Options, **changes) -> Options:
    """Another stage's options: these, with some changed; what means nothing there stays as it is.

    Raises UserError as `parse` does.
    """
    chosen = {name: getattr(options, name) for name in OPTIONS} | changes
    made = dataclasses.replace(options, stage=stage, **normalise(chosen, stage, asked=OPTIONS))
    check_together(made)
    return made


def as_config(options: Options) -> dict:
    """All options as a config that says just them; `parse` makes the same of it, in the same
    stage."""
    config = {name: getattr(options, name) for name in OPTIONS}
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in config.items()
    }
