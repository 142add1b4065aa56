"""Data sets that torchvision downloads and reads; damage of their files is named here."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from core.archives import DAMAGE, check_digest, in_one_line
from core.console import UserError, say

ARCHIVE_MD5 = {  # of the archives that torchvision fetches, as it names them
    "CIFAR10": {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
    "CIFAR100": {"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"},
    "SVHN": {
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    },
    "MNIST": {
        "MNIST/raw/train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "MNIST/raw/train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "MNIST/raw/t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "MNIST/raw/t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
}
_MNIST_BYTES = {  # unpacked
    "train-images-idx3-ubyte": 16 + 60000 * 784,
    "train-labels-idx1-ubyte": 8 + 60000,
    "t10k-images-idx3-ubyte": 16 + 10000 * 784,
    "t10k-labels-idx1-ubyte": 8 + 10000,
}


def cifar10(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10, (60000, 3, 32, 32)."""
    x, y = read("CIFAR10", folder, "https://www.cs.toronto.edu/~kriz/", "cifar-10-python.tar.gz")
    return x.transpose(0, 3, 1, 2), y


def cifar100(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-100, (60000, 3, 32, 32)."""
    x, y = read("CIFAR100", folder, "https://www.cs.toronto.edu/~kriz/", "cifar-100-python.tar.gz")
    return x.transpose(0, 3, 1, 2), y


def svhn(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """SVHN without its extra part, (99289, 3, 32, 32)."""
    files = "train_32x32.mat and test_32x32.mat"
    return read("SVHN", folder, "http://ufldl.stanford.edu/housenumbers/", files)


def mnist(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """MNIST, (70000, 1, 28, 28)."""
    files = "{train,t10k}-images-idx3-ubyte.gz and {train,t10k}-labels-idx1-ubyte.gz"
    address = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    x, y = read("MNIST", folder, address, files, inside="MNIST/raw")
    return x[:, None], y


def read(
    kind: str, folder: Path, address: str, files: str, *, inside: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """x and y of torchvision's data set `kind`, train part first; torchvision tests the MD5
    digests.

    Args:
        address, files, inside: what a user without a network fetches, and the folder for it.
    Raises:
        UserError: nothing can be had, or an archive in the folder is damaged, which is not
            replaced.
    """
    absent = [path for path in _archives(kind, folder) if not os.path.lexists(path)]
    if absent:
        say(f"{kind} is not in {folder}: downloading it")
    try:
        try:
            parts = _parts(kind, folder, download=not _damaged(kind, folder))
        except BaseException:
            for path in set(absent) & set(_damaged(kind, folder)):  # a download that broke off
                path.unlink(missing_ok=True)
            raise
    except DAMAGE as error:
        for path, md5 in _archives(kind, folder).items():
            if os.path.exists(path):
                check_digest(path, "md5", md5)
        _check_unpacked(kind, folder)
        raise UserError(
            f"cannot download or read {kind} ({in_one_line(error)}): "
            f"put {files} from {address} into {folder / inside} yourself"
        ) from error
    labels = [part.labels if kind == "SVHN" else part.targets for part in parts]
    x = np.concatenate([np.asarray(part.data) for part in parts])
    return x, np.concatenate([np.asarray(y) for y in labels])


def _parts(kind: str, folder: Path, *, download: bool) -> list:
    """torchvision's train and test part."""
    from torchvision import datasets as vision

    options: list[dict] = (
        [{"split": "train"}, {"split": "test"}]
        if kind == "SVHN"
        else [{"train": True}, {"train": False}]
    )
    return [getattr(vision, kind)(folder, download=download, **part) for part in options]


def _archives(kind: str, folder: Path) -> dict[Path, str]:
    """The MD5 digest that each archive of torchvision's data set should have."""
    return {folder / name: md5 for name, md5 in ARCHIVE_MD5[kind].items()}


def _damaged(kind: str, folder: Path) -> list[Path]:
    """The archives in the folder that have another digest."""
    damaged = []
    for path, md5 in _archives(kind, folder).items():
        if os.path.exists(path):
            try:
                check_digest(path, "md5", md5)
            except UserError:
                damaged.append(path)
    return damaged


def _check_unpacked(kind: str, folder: Path) -> None:
    """Raise UserError where MNIST's unpacked files are damaged: torchvision only tests that they
    are there."""
    for name, expected in _MNIST_BYTES.items() if kind == "MNIST" else ():
        path = folder / "MNIST" / "raw" / name
        if os.path.isfile(path) and os.path.getsize(path) != expected:
            raise UserError(
                f"{path} is not the file it should be (remove it, to have it unpacked again from "
                f"its archive): expected {expected} bytes, found {os.path.getsize(path)}"
            )
