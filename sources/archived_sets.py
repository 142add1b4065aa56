"""Data sets that their authors publish as one archive: CH-MNIST, and the tables of Shokri et al."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np

from core.archives import fetch, tar_lines, user_error_if_unreadable
from sources import DATASETS

_TRUST_LAB = "https://github.com/privacytrustlab/datasets/raw/master/"
ARCHIVES = {  # name -> address, sha256 (None where none is published)
    "chmnist": (
        "https://zenodo.org/record/53169/files/Kather_texture_2016_image_tiles_5000.zip",
        None,
    ),
    "location": (
        _TRUST_LAB + "dataset_location.tgz",
        "927203f85a868f8ee17a0ded1dc61699efe602167beabe34fbf45b4b1de94b33",
    ),
    "texas100": (_TRUST_LAB + "dataset_texas.tgz", None),
    "purchase100": (_TRUST_LAB + "dataset_purchase.tgz", None),
}


def chmnist(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Tiles in the order of their names, each shrunk from 150x150 by PIL's antialiased bilinear
    filter, as torchvision's Resize would."""
    from PIL import Image

    path = _archive("chmnist", folder)
    x, y = [], []
    with user_error_if_unreadable(path), zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            tile = PurePosixPath(name)
            # "._*.tif" is what a Mac leaves behind
            if tile.suffix != ".tif" or tile.name.startswith("."):
                continue
            number = re.match(r"0([1-8])_", tile.parent.name)
            if not number:
                raise ValueError(f"{name} is in none of the folders 01_TUMOR to 08_EMPTY")
            with archive.open(name) as stream, Image.open(stream) as image:
                small = image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
                x.append(np.asarray(small))
            y.append(int(number[1]) - 1)
        if not x:
            raise ValueError("there are no .tif tiles in it")
    return np.stack(x).transpose(0, 3, 1, 2), np.array(y)


def location(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Location, whose member `bangkok` has the label in front of each row."""
    return _binary_table("location", folder, rows="bangkok")


def purchase100(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Purchase-100, with the label in front of each row."""
    return _binary_table("purchase100", folder, rows="dataset_purchase")


def texas100(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Texas-100, rows and labels in a member each."""
    return _binary_table("texas100", folder, rows="texas/100/feats", labels="texas/100/labels")


def _archive(name: str, folder: Path) -> Path:
    address, sha256 = ARCHIVES[name]
    return fetch(address, folder, sha256=sha256)


def _binary_table(
    name: str, folder: Path, *, rows: str, labels: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """x (N, D) uint8 and y (N,) from members of a .tgz: lines "0,1,..." and lines of labels, which
    count from 1.

    Without a member `labels` every row begins with its label, which may be quoted.
    """
    path, facts = _archive(name, folder), DATASETS[name].options
    (columns,), num_cls = facts["shape"], facts["num_cls"]
    cells, y = bytearray(), []
    with user_error_if_unreadable(path):
        for member, where, line in tar_lines(path, {rows} if labels is None else {rows, labels}):
            if member == labels:
                y.append(_label(line, num_cls, where))
                continue
            if labels is None:
                label, _, line = line.partition(b",")
                y.append(_label(label, num_cls, where))
            cells += _cells(line, columns, where)
    x = np.frombuffer(cells, dtype=np.uint8).reshape(-1, columns)
    x -= ord("0")  # in place: Texas has 415 MB of them
    return x, np.array(y, dtype=np.int64)


def _label(text: bytes, num_cls: int, where: str) -> int:
    text = text.strip(b'"')
    if not text.isdigit() or not 1 <= int(text) <= num_cls:
        raise ValueError(
            f"{where}: label {text[:20].decode(errors='replace')!r} is not one of 1..{num_cls}"
        )
    return int(text) - 1


def _cells(line: bytes, columns: int, where: str) -> bytes:
    """The characters 0 and 1 of a line; each of them, and each comma between them, is one byte."""
    count, cells = line.count(b",") + 1, line[::2]
    if count != columns:
        raise ValueError(f"{where}: {count} columns of data, expected {columns}")
    if len(line) != 2 * columns - 1 or cells.strip(b"01"):
        raise ValueError(f"{where}: a value is neither 0 nor 1")
    return cells
