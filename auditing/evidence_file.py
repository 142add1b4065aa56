"""The arrays of an audit, as they lie in an .npz file or in CSV files."""

from __future__ import annotations

import csv
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from core.console import UserError
from core.registry import nearest

# name of an array -> what it is
ARRAYS = {
    "labels": "class of each record, from 0, (N,)",
    "victim": "posteriors of the model that is audited, (N, C); or victim_logits",
    "member": "who was trained on, 0 or 1, (N,): the truth, which no attack sees",
    "shadows": "posteriors of S shadow models, (S, N, C); or shadows_logits",
    "shadow_member": "whom each shadow model was trained on, 0 or 1, (S, N)",
    "target": "the records in question, 0 or 1, (N,): all others are known non-members",
    "record_ids": "names of the records, (N,)",
    "group": "a group of each record, text or numbers, (N,)",
    "original": "posteriors of the model before compression, (N, C); or original_logits",
    "original_shadows": "of its shadow models, (S, N, C); or original_shadows_logits",
    "calibration_mask": "which records each shadow model has to learn an attack from, (S, N)",
}
OUTPUTS = ("victim", "shadows", "original", "original_shadows")
NAMES = (*ARRAYS, *(f"{name}_logits" for name in OUTPUTS))
_TEXT = ("record_ids", "group")
_FLAGS = ("member", "shadow_member", "target", "calibration_mask")
_OF_SHADOWS = ("shadow_member", "calibration_mask")
_FLAG_WORDS = {"1": 1, "0": 0, "1.0": 1, "0.0": 0, "true": 1, "false": 0}


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, by name; nothing in it is run.

    Raises:
        UserError: it cannot be read, or has an array of a name that is none of `NAMES`.
    """
    try:
        file = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no .npz file: np.savez makes one of arrays") from error
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise UserError(f"{path} holds one array without a name: np.savez makes a file of several")
    with file:
        check_names(str(path), file.files)
        return {name: _array_in(file, name, path) for name in file.files}


def _array_in(file, name: str, path: Path) -> np.ndarray:
    try:
        return file[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise UserError(f"{path}: {name} is damaged: save the file again") from error
        raise UserError(
            f"{path}: {name} holds Python objects, which are not read: save an array of numbers or "
            f"of text, such as np.array(list_of_words)"
        ) from error
    except Exception as error:  # zip and zlib raise nearly anything on damaged bytes
        raise UserError(f"{path}: {name} is damaged: save the file again") from error


def check_names(where: str, names: Sequence[str]) -> None:
    """Raise UserError where one of the names is no array of an audit."""
    for name in names:
        if name not in NAMES:
            raise UserError(
                f"{where}: unknown array {name!r}{nearest(name, NAMES)} (arrays: "
                f"{', '.join(NAMES)})"
            )


def read_csv(paths: Mapping[str, Sequence[Path]], *, logits: bool) -> dict[str, np.ndarray]:
    """The same arrays from CSV files, by name: a row a record, with or without a header.

    `shadows` and `original_shadows` are a file a shadow model; `shadow_member` and
    `calibration_mask` have a column a shadow model.

    Args:
        logits: the outputs are logits, not posteriors.
    Raises:
        UserError: a file cannot be read, or files of shadow models have other shapes.
    """
    found: dict[str, np.ndarray] = {}
    for name, files in paths.items():
        if name in OUTPUTS:
            tables = [_table(path) for path in files]
            for path, table in zip(files, tables):
                if table.shape != tables[0].shape:
                    raise UserError(
                        f"{path} is of shape {table.shape}, {files[0]} of {tables[0].shape}: all "
                        f"shadow models answer for the same records"
                    )
            array = np.stack(tables) if name.endswith("shadows") else tables[0]
            found[f"{name}_logits" if logits else name] = array
        elif name in _TEXT:
            found[name] = _column(_rows(files[0]), files[0])
        elif name in _FLAGS:
            flags = _flags(files[0])
            found[name] = flags.T if name in _OF_SHADOWS else _only_column(flags, files[0])
        else:
            found[name] = _only_column(_table(files[0]), files[0])
    return _without_headers(found)


def _without_headers(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same, of text columns that have a row more than there are labels without the first."""
    n = len(arrays.get("labels", ()))
    return {
        name: array[1:] if name in _TEXT and len(array) == n + 1 else array
        for name, array in arrays.items()
    }


def _rows(path: Path) -> list[list[str]]:
    """The cells of all lines that are not empty."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV file in UTF-8: {error}") from error
    if not rows:
        raise UserError(f"{path} is empty: a row a record is needed")
    return rows


def _column(rows: list[list[str]], path: Path) -> np.ndarray:
    for number, row in enumerate(rows, 1):
        if len(row) != 1:
            raise UserError(f"{path}, row {number}: has {len(row)} columns, not one")
    return np.array([row[0] for row in rows])


def _only_column(table: np.ndarray, path: Path) -> np.ndarray:
    if table.shape[1] != 1:
        raise UserError(f"{path} has {table.shape[1]} columns, not one")
    return table[:, 0]


def _flags(path: Path) -> np.ndarray:
    """0 and 1, (N, K), of 0, 1, true and false."""
    rows = _rows(path)
    if not set(map(str.lower, rows[0])) & set(_FLAG_WORDS):  # a header
        rows = rows[1:]
    found = []
    for number, row in enumerate(rows, 1):
        for word in row:
            if word.lower() not in _FLAG_WORDS:
                raise UserError(f"{path}, record {number}: {word!r} is neither 0 nor 1")
        if len(row) != len(rows[0]):
            raise UserError(
                f"{path}, record {number}: has {len(row)} columns, the first has {len(rows[0])}"
            )
        found.append([_FLAG_WORDS[word.lower()] for word in row])
    return np.array(found).reshape(len(found), -1)


def _table(path: Path) -> np.ndarray:
    """Numbers (N, K), float64."""
    try:
        with open(path, encoding="utf-8-sig") as file, warnings.catch_warnings():
            header = int(_is_header(file.readline(), file.readline()))
            file.seek(0)
            warnings.simplefilter("ignore", UserWarning)  # of an empty file, see below
            table = np.loadtxt(file, delimiter=",", ndmin=2, skiprows=header, comments=None)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # UnicodeDecodeError too
        raise UserError(f"{path} is no table of numbers: {error}") from error
    if not table.size:
        raise UserError(f"{path} is empty: a row a record is needed")
    return table


def _is_header(first: str, second: str) -> bool:
    """Whether the first row names columns: by words, or by 0, 1, 2, ... above numbers that are no
    whole ones, as pandas does."""
    names = [cell.strip() for cell in first.split(",")]
    if not all(map(_is_number, names)):
        return True
    counted = len(names) > 1 and names == [str(number) for number in range(len(names))]
    return counted and "." in second


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
