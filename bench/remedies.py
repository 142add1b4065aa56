"""The commands that errors print: who follows them gets what is missing, and trains nothing else
anew."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from bench.configs import command, default_values, epochs_again, format_value, stage_of
from bench.layout import MANIFEST, NAMED_AFTER, ModelSet
from bench.options import OPTIONS, Options
from bench.split_file import read_split
from core.console import UserError
from core.files import read_sealed
from models import MODELS

_NAMING = tuple(name for name in NAMED_AFTER if name != "from_scratch")
# what a reader's options must share with those that a model was made with
MUST_MATCH_TO_READ = (
    *("seed", "train_seed", "dataset_name", "model_name", "norm", "num_cls", "input_dim"),
)
MUST_MATCH_TO_READ_COMPRESSED = (*MUST_MATCH_TO_READ, *_NAMING)
# what those of a stage that would make it must share, for it to be kept
MUST_MATCH_TO_REUSE = {
    stage: tuple(
        name
        for name, option in OPTIONS.items()
        if option.result and stage in option.stages and name not in others
    )
    for stage, others in {
        "pretrain": ("shadow_num", "data_path", "split", "attacker_records"),
        "prune": ("shadow_num", "data_path", "epochs"),
        "prune_dp": ("shadow_num", "data_path", "epochs"),
        "quantize": ("shadow_num", "data_path", "epochs"),
    }.items()
}


def maker(models: ModelSet) -> str:
    """The stage that makes models of this version."""
    if models.quantizer:
        return "quantize"
    return "pretrain" if models.original else stage_of(models.options.defend)


def missing(path: Path, models: ModelSet, instead: str = "") -> NoReturn:
    """Raise UserError: the stage that makes a file has not been run; `instead` is what else would
    do."""
    more = f", or {instead}" if instead else ""
    needed = [one for one in models.lineage[:-1] if not _are_there(one)] if models.alike else []
    commands = " and ".join(f"`{command_that_makes(one)}`" for one in [*needed, models])
    raise UserError(f"{path} is not there: first run {commands}{more}")


def command_that_remakes(models: ModelSet, role: str = "victim", asked: Iterable[str] = ()) -> str:
    """The command that makes models anew, as they were but for the options in `asked`."""
    return f"{command_that_makes(models, role, asked)} --fresh"


def command_that_makes(models: ModelSet, role: str = "victim", asked: Iterable[str] = ()) -> str:
    """The command of the stage that makes a version.

    It asks for what the models that are there were made with, this role's first, so that it neither
    refuses nor makes them anew. Options in `asked` and those that tell versions apart stay as they
    are.
    """
    stage, options = maker(models), models.options
    keep = {*asked, *(MUST_MATCH_TO_REUSE[stage] if stage == options.stage else ())}
    if stage == "pretrain" and options.stage != stage:
        options = replace(options, **_kind_of_split(models))
    keep |= set(models.meaningless)
    made = {name: value for name, value in made_with(models, role).items() if name not in keep}
    options = replace(options, **made)
    shadows = _shadows(models)
    if options.split == "inout":
        shadows += shadows % 2
    options = replace(options, shadow_num=max(options.shadow_num, shadows))
    return command(stage, options)


def made_with(models: ModelSet, role: str = "victim") -> dict:
    """The options of models that are there: of this version, else of one that was made for the same
    purpose, else of the originals. {} where there are none that can be read."""
    of_version = {*_NAMING, "from_scratch", "precision", "model_name", "input_dim"}
    names = MUST_MATCH_TO_REUSE[maker(models)]
    for like in [models, *models.alike, models.undefended, *models.lineage[1:-1], models.originals]:
        for one in dict.fromkeys([role, *models.roles]):
            with suppress(UserError, KeyError, TypeError):
                manifest = read_sealed(like.file(one, MANIFEST))
                made = {name: _option_of(manifest, name) for name in names}
                if like.folder(one) == models.folder(one):
                    return made | {"precision": precision_unless_default(manifest)}
                if like.original or models.quantizer:
                    made |= _epochs_like(manifest, models.options)
                return {name: value for name, value in made.items() if name not in of_version}
    return {}


def _epochs_like(manifest: dict, options: Options) -> dict:
    """The epochs of all trainings, as those of a model that is there; what follows from others in
    its options, or in `options`, does so again."""
    told, asked = default_values() | manifest["options"], vars(options)
    epochs = {"epochs": told["epochs"]}
    now = asked | epochs
    of_quantising = epochs_again(asked, now)["quantize_epochs"]
    return epochs | epochs_again(told, now) | {"quantize_epochs": of_quantising}


def how_to_ask_for(models: ModelSet, names: list[str], have: dict) -> str:
    """How to ask for a model that differs in these names from what is asked for; "" where no option
    does it."""
    stage = models.options.stage
    if "split" in names:  # the digest of its records, which no option gives
        return ""
    if not all(
        name in OPTIONS and stage in OPTIONS[name].stages and have.get(name) is not None
        for name in names
    ):
        return ""
    if "seed" in names and have["seed"] == have.get("train_seed"):  # which follows from it
        names = [name for name in names if name != "train_seed"]
    words = " ".join(f"--{name} {format_value(have[name])}" for name in names)
    return f"to use it give {words}; "


@contextmanager
def or_fresh():
    """Say of a file that cannot be read that --fresh replaces it: another program may have made
    it."""
    try:
        yield
    except UserError as error:
        raise UserError(
            f"{error}; if it is another program's, use another --results folder, or --fresh to "
            f"replace it"
        ) from error


def precision_unless_default(manifest: dict) -> str | None:
    """The precision that a model was trained in; None where `core.devices.choose_precision` takes
    it by itself."""
    options, device = manifest["options"], manifest["made"]["device"]
    if options["defend"] == "dp":
        return None
    convolves = "Conv2d" in MODELS[options["model_name"]].options["layers"]
    usual = "bf16" if convolves and device != "cpu" else "fp32"
    return None if options["precision"] == usual else options["precision"]


def _kind_of_split(models: ModelSet) -> dict:
    """The options of the split of which the originals that are there were made, also where split.npz
    itself is gone."""
    names = ("split", "attacker_records")
    for role in models.roles:
        with suppress(UserError, KeyError, TypeError):
            manifest = read_sealed(models.originals.file(role, MANIFEST))
            return {name: _option_of(manifest, name) for name in names}
    return {name: getattr(models.options, name) for name in names}


def _are_there(models: ModelSet) -> bool:
    return all(os.path.exists(models.file(role, MANIFEST)) for role in models.roles)


def _option_of(manifest: dict, name: str):
    """What a model was made with; manifests from before there was an option do not name it."""
    if name == "dp_noise" and manifest.get("privacy") is not None:
        return manifest["options"].get(name, "seeded")
    return manifest["options"].get(name, OPTIONS[name].when_missing)


def _shadows(models: ModelSet) -> int:
    """How many shadow models of a version are there, finished or, of the originals, in the
    split."""
    with suppress(UserError, OSError):
        if models.original:
            arrays = read_split(models)[1]
            return sum(key.startswith("shadow_") and key.endswith("_train") for key in arrays)
        folders = models.root.glob(models.folder("shadow_*").name)
        return sum(os.path.exists(folder / MANIFEST) for folder in folders)
    return 0
