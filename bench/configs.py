"""What configs and command lines say of single options, and the command line of given ones."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from contextlib import suppress

from bench import values
from bench.layout import ModelSet
from bench.options import OPTIONS, Options
from core.console import UserError
from core.inputs import expand_home, read_object
from core.registry import nearest
from defenders import DEFENDERS


def default_values() -> dict:
    """Every option's value where nobody says one."""
    return {name: option.default for name, option in OPTIONS.items()}


def derived(meaning: Mapping) -> dict:
    """The options that follow from others where nobody says them."""
    return {
        "train_seed": meaning["seed"],
        "prune_epochs": _fine_tuning_epochs(meaning["epochs"], meaning["prune_iterations"]),
        "quantize_epochs": meaning["epochs"] // 2 if meaning["quantizer"] else None,
    }


def epochs_again(told: Mapping, now: Mapping) -> dict:
    """The epochs of fine-tuning in the options `told`; those that follow from others there follow
    from those of `now`."""
    before, after = derived(told), derived(now)
    return {
        name: after[name] if told[name] in (None, before[name]) else told[name]
        for name in ("prune_epochs", "quantize_epochs")
    }


def _fine_tuning_epochs(epochs: int, rounds: int) -> int:
    return epochs // 2 if rounds == 1 else max(1, epochs // 2 // rounds)


def stage_of(defence: str) -> str:
    """The stage that fine-tunes with a defence."""
    return DEFENDERS[defence].options.get("stage", "prune")


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
    of_no_matter = {"attacks", "workers", "save_every", "wait", "per_class", "records"}
    if options.quantizer:
        of_no_matter |= set(ModelSet(options).meaningless)
    words = ["python", f"{stage}.py", options.device, options.config_path]
    for name, option in OPTIONS.items():
        value = getattr(options, name)
        if (
            stage in option.stages
            and name not in of_no_matter
            and value not in (None, before[name])
            and not (name in follows and follows[name] == value)
        ):
            flag = option.kind is values.flag or option.kind is values.switch and value
            words += [f"--{name}"] * value if flag else [f"--{name}", format_value(value)]
    return shlex.join(words)


def config_values(config_path: str) -> dict:
    """The options as a config and the defaults say them, before a command line."""
    config = read_config(config_path)
    return default_values() | {
        name: read_value(name, name, value) for name, value in config.items()
    }


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
