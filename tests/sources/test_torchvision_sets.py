"""torchvision's data sets: order, digests, and damage that is named."""

import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from helpers import load_named

from core.console import UserError
from datasets import DATASETS
from sources import torchvision_sets

TORCHVISION = {  # name -> torchvision's class, shape of its data
    "cifar10": ("CIFAR10", (32, 32, 3)),
    "cifar100": ("CIFAR100", (32, 32, 3)),
    "svhn": ("SVHN", (3, 32, 32)),
    "mnist": ("MNIST", (28, 28)),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_train_part_comes_before_test_part(monkeypatch, tmp_path, name):
    kind, shape = TORCHVISION[name]
    data = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    labels = np.array([3, 1, 4, 1, 5])

    class Fake:  # with the attributes and their types as torchvision has them
        def __init__(self, root, train=None, split=None, download=False):
            assert Path(root) == tmp_path / name and download
            assert (train is None) == (kind == "SVHN") and (split is None) == (kind != "SVHN")
            chosen = slice(0, 3) if train or split == "train" else slice(3, 5)
            self.data = torch.from_numpy(data[chosen]) if kind == "MNIST" else data[chosen]
            if kind == "SVHN":
                self.labels = labels[chosen]
            else:
                self.targets = (
                    torch.from_numpy(labels[chosen]) if kind == "MNIST" else labels[chosen].tolist()
                )

    monkeypatch.setattr(torchvision.datasets, kind, Fake)
    records = load_named(name, tmp_path)
    assert records.x.dtype == torch.uint8 and records.y.tolist() == [3, 1, 4, 1, 5]
    channel, row, column = 0, 2, 7
    where = {"SVHN": (channel, row, column), "MNIST": (row, column)}.get(
        kind, (row, column, channel)
    )
    assert records.x[:, channel, row, column].tolist() == data[(slice(None), *where)].tolist()
    assert records.shape == DATASETS[name].options["shape"]


@pytest.mark.parametrize("name", TORCHVISION)
@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("no route"),
        RuntimeError("not found\nor corrupted"),
        AssertionError(),
        EOFError(),
    ],
)
def test_torchvision_set_that_cannot_be_had(monkeypatch, tmp_path, name, error):
    def fail(*args, **kwargs):
        raise error

    kind = TORCHVISION[name][0]
    monkeypatch.setattr(torchvision.datasets, kind, fail)
    with pytest.raises(UserError) as caught:
        load_named(name, tmp_path)
    file = {"svhn": "train_32x32.mat", "mnist": "{train,t10k}-images-idx3-ubyte.gz"}.get(
        name, "-python.tar.gz"
    )
    for word in (
        file,
        "http",
        str(tmp_path / name),
        " ".join(str(error).split()) or type(error).__name__,
    ):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", TORCHVISION)
def test_addresses_are_torchvisions(monkeypatch, tmp_path, name):
    """What we tell the user to fetch must be what torchvision would fetch."""
    kind = getattr(torchvision.datasets, TORCHVISION[name][0])
    if name == "svhn":
        expected = {kind.split_list[part][0] for part in ("train", "test")}
    elif name == "mnist":
        expected = {kind.mirrors[0] + file for file, _ in kind.resources}
    else:
        expected = {kind.url}
    told = []
    monkeypatch.setattr(
        torchvision_sets,
        "read",
        lambda *args, **kwargs: told.extend(args) or (np.zeros((1,) * 4), 0),
    )
    DATASETS.load(name)(tmp_path)
    _, folder, address, files = told
    assert folder == tmp_path
    parts = ("train", "t10k")
    assert {
        address + file.replace("{train,t10k}", part)
        for file in files.split(" and ")
        for part in parts
    } == expected


def test_checksums_are_torchvisions():
    vision = torchvision.datasets
    assert torchvision_sets.ARCHIVE_MD5 == {
        "CIFAR10": {vision.CIFAR10.filename: vision.CIFAR10.tgz_md5},
        "CIFAR100": {vision.CIFAR100.filename: vision.CIFAR100.tgz_md5},
        "SVHN": {
            file: md5
            for _, file, md5 in (vision.SVHN.split_list[part] for part in ("train", "test"))
        },
        "MNIST": {f"MNIST/raw/{file}": md5 for file, md5 in vision.MNIST.resources},
    }


@pytest.mark.parametrize("damage", ["cut", "empty", "folder"])
@pytest.mark.parametrize(
    "name, file",
    [
        (name, file)
        for name, (kind, _) in TORCHVISION.items()
        for file in torchvision_sets.ARCHIVE_MD5[kind]
    ],
)
def test_an_archive_that_lies_there_damaged_is_named_and_stays(name, file, damage, tmp_path):
    """By its checksum, and without asking the network for another in its place."""
    path = tmp_path / name / file
    path.parent.mkdir(parents=True)
    path.mkdir() if damage == "folder" else path.write_bytes(
        bytes(100_000) if damage == "cut" else b""
    )
    with pytest.raises(UserError) as caught:
        load_named(name, tmp_path)
    said = str(caught.value)
    assert (
        str(path) in said
        and "copy it again, or remove it to have it downloaded" in said
        and path.exists()
    )
    if damage != "folder":
        expected = torchvision_sets.ARCHIVE_MD5[TORCHVISION[name][0]][file]
        found = {
            "cut": "0019d23bef56a136a1891211d7007f6f",
            "empty": "d41d8cd98f00b204e9800998ecf8427e",
        }[damage]
        assert "is not the file it should be" in said and said.endswith(
            f"expected MD5 {expected}, found {found}"
        )


def test_a_damaged_archive_does_not_matter_once_it_is_unpacked(tmp_path, monkeypatch):
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "cifar-10-python.tar.gz").write_bytes(b"cut")

    class Unpacked:
        def __init__(self, root, train, download):
            assert not download
            self.data, self.targets = np.zeros((3, 32, 32, 3), np.uint8), [0, 1, 2]

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Unpacked)
    assert len(load_named("cifar10", tmp_path)) == 6


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("reset")])
def test_a_download_that_broke_off_leaves_no_archive(tmp_path, monkeypatch, error):
    def fetch(root, split, download):
        Path(root).mkdir()
        Path(root, "train_32x32.mat").write_bytes(b"half")
        raise error

    monkeypatch.setattr(torchvision.datasets, "SVHN", fetch)
    with pytest.raises(UserError if isinstance(error, OSError) else KeyboardInterrupt):
        load_named("svhn", tmp_path)
    assert not list((tmp_path / "svhn").iterdir())


def test_a_file_of_mnist_that_is_unpacked_in_part(tmp_path):
    raw = tmp_path / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{kind}-ubyte").write_bytes(bytes(20))
    with pytest.raises(
        UserError,
        match="train-images-idx3-ubyte is not the file it should be .* expected 47040016 byt",
    ):
        load_named("mnist", tmp_path)
