"""The cells of a study: every combination of its options' values."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from attackers import unfit
from bench.command_line import Study, parse
from bench.configs import config_values, derived, read_value
from bench.layout import NAMED_AFTER, QUANTIZING, ModelSet, study_folder
from bench.options import OPTIONS, Options
from core.console import UserError
from core.inputs import locate, read_object
from core.registry import nearest

# options that belong to a command, not to a study
_OF_COMMANDS = ("results", "fresh", "workers", "wait", "per_class", "records")
_OTHER_KEYS = ("about", "config", "grids")
# options that tell models apart by their folder's name; those that differ in any other have results
# folders apart
_IN_NAMES = ("dataset_name", "model_name", *NAMED_AFTER, "shadow_num")


def read_about(path: str | Path) -> str:
    """What a study says it is about. Raises UserError where it cannot be read."""
    return _read_study(path).get("about", "")


def _read_study(path: str | Path) -> dict:
    study = read_object(path, "study")
    if not isinstance(study.get("about", ""), str):
        raise UserError(f"study {path}: about must be a text")
    return study


def read_cells(path: str, *, device: str, results: str) -> list[Options]:
    """The cells of a study, as options of mia.py. Those that come to the same are one, with the
    attacks of all.

    Raises:
        UserError: it cannot be read, or a key or value is wrong.
    """
    study = _read_study(path)
    grids = study.pop("grids", [{}])
    if not (
        isinstance(grids, list)
        and grids
        and all(isinstance(grid, dict) and not {"grids", "about"} & set(grid) for grid in grids)
    ):
        raise UserError(f"study {path}: grids must be a list of objects of options")
    cells: dict[tuple, Options] = {}
    for grid in grids:
        for values in _combinations(path, study | grid):
            config = locate(values.pop("config"), "config", beside=[Path(path).parent])
            said = Study(_checked(path, values), f"study {path}")
            cell = parse("mia", [device, config], study=said)
            cell = replace(cell, results=str(_folder(cell, results, Path(path).stem)), fresh=False)
            _check_attacks(path, cell)
            key = what_differs(cell, OPTIONS)
            first = cells.setdefault(key, cell)
            names = tuple(dict.fromkeys(first.attacks + cell.attacks))
            cells[key] = replace(first, attacks=("all",) if "all" in names else names)
    return list(cells.values())


def _check_attacks(path: str, cell: Options) -> None:
    """Raise UserError where an attack that a cell names cannot be made in it."""
    online = cell.split == "inout"
    for name in cell.attacks:
        reason = None
        if name != "all":
            reason = unfit(name, online=online, shadow_num=cell.shadow_num, also=cell.also)
        if reason:
            raise UserError(f"study {path}: {reason}")


def _combinations(path: str, grid: dict) -> Iterable[dict]:
    for key in grid:
        if key in _OF_COMMANDS:
            raise UserError(f"study {path}: {key} is not for a study: it belongs to the command")
        if key not in OPTIONS and key not in _OTHER_KEYS:
            raise UserError(
                f"study {path}: unknown key {key!r}{nearest(key, (*OPTIONS, *_OTHER_KEYS))}"
            )
    axes = {
        key: value if isinstance(value, list) else [value]
        for key, value in grid.items()
        if key not in ("about", "attacks")
    }
    if not axes.get("config") or not all(isinstance(config, str) for config in axes["config"]):
        raise UserError(f"study {path}: config is missing: the path of a config, or a list of them")
    for key, values in axes.items():
        if len(values) > 1 and key in OPTIONS and not OPTIONS[key].result:
            raise UserError(f"study {path}: {key} changes no result, so it can have one value only")
    if empty := [key for key, values in axes.items() if not values]:
        raise UserError(f"study {path}: {empty[0]} is an empty list")
    more = {"attacks": grid["attacks"]} if "attacks" in grid else {}
    for combination in itertools.product(*axes.values()):
        yield dict(zip(axes, combination)) | more


def _checked(path: str, cell: dict) -> dict:
    """What a study says of a cell, a defence and its strength apart. Raises UserError where a value
    is none of its option's kind, whether or not it has a meaning in this cell."""
    if not isinstance(cell.get("defend", ""), str):
        if not isinstance(cell["defend"], list) or len(cell["defend"]) != 2:
            raise UserError(
                f'study {path}: defend is a list of names and of pairs such as ["ppb", 4]; '
                f"{cell['defend']!r} is neither"
            )
        cell["defend"], cell["defend_arg"] = cell["defend"]
    for name, value in cell.items():
        read_value(f"study {path}: {name}", name, value)
    return cell


def what_differs(options: Options, names: Iterable[str], without: Iterable[str] = ()) -> tuple:
    """Tells a stage's command from others, by the options of these names that can change a
    result."""
    return options.stage, *(
        (name, getattr(options, name))
        for name in names
        if OPTIONS[name].result and name not in without
    )


def _folder(cell: Options, results: str, study: str) -> Path:
    """A cell's results folder: one for each seed, and for whatever else makes other models than the
    config says, but has no part in the name of a model's folder."""
    plain = config_values(cell.config_path)
    follow = derived(vars(cell))
    plain |= {name: value for name, value in follow.items() if plain[name] is None}
    unused = set(ModelSet.under_attack(cell).meaningless)
    unused |= set() if cell.quantizer else set(QUANTIZING)
    unused -= {"prune_epochs", "quantize_epochs"} if cell.also else set()
    apart = [
        name
        for name, option in OPTIONS.items()
        if option.result
        and option.stages != ("mia",)
        and name not in ("seed", *_IN_NAMES, *unused)
        and getattr(cell, name) != plain[name]
    ]
    return study_folder(results, study, {name: getattr(cell, name) for name in ("seed", *apart)})
