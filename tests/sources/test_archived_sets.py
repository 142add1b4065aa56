"""Tables in archives: what is read, what is refused, and downloads that break off."""

import gzip
import io
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from helpers import SHARED_DATA, load_named

from core.console import UserError
from datasets import DATASETS, load
from sources import archived_sets

ROWS = [(3, [0, 1, 1, 0]), (1, [1, 0, 0, 0]), (2, [0, 0, 0, 1])]  # (label from 1, four columns)


def csv(rows, quote='"'):
    return "".join(
        ",".join([f"{quote}{label}{quote}", *map(str, cells)]) + "\n" for label, cells in rows
    ).encode()


def tgz(path, members, mode="w:gz"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, tarfile.TarInfo):
                info = content
                content = b""
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def small(monkeypatch):
    """The three tables with four columns and three classes, and no checksum."""
    for name in ("location", "texas100", "purchase100"):
        monkeypatch.setitem(DATASETS[name].options, "shape", (4,))
        monkeypatch.setitem(DATASETS[name].options, "num_cls", 3)
        monkeypatch.setitem(archived_sets.ARCHIVES, name, (archived_sets.ARCHIVES[name][0], None))


@pytest.fixture
def location_tgz(small, tmp_path):
    return tmp_path / "location" / "dataset_location.tgz"


def has_the_rows(records):
    return records.x.tolist() == [cells for _, cells in ROWS] and records.y.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    "content", [csv(ROWS), csv(ROWS, quote=""), csv(ROWS).replace(b"\n", b"\r\n"), csv(ROWS)[:-1]]
)
def test_location(location_tgz, content):
    tgz(location_tgz, [("bangkok", content)])
    records = load_named("location", location_tgz.parents[1])
    assert has_the_rows(records)
    assert (records.x.dtype, records.y.dtype, records.mean) == (torch.uint8, torch.int64, None)


def test_purchase(small, tmp_path):
    tgz(
        tmp_path / "purchase100" / "dataset_purchase.tgz",
        [("dataset_purchase", csv(ROWS, quote=""))],
    )
    assert has_the_rows(load_named("purchase100", tmp_path))


TEXAS = [
    ("texas/100/labels", b"3\n1\n2\n"),
    ("texas/50/feats", b"1,1\n"),
    ("texas/100/feats", b"0,1,1,0\n1,0,0,0\n0,0,0,1\n"),
]


@pytest.mark.parametrize(
    "members", [TEXAS, TEXAS[::-1], [(f"./{name}", content) for name, content in TEXAS]]
)
def test_texas(small, tmp_path, members):
    tgz(tmp_path / "texas100" / "dataset_texas.tgz", members)
    assert has_the_rows(load_named("texas100", tmp_path))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"texas/100/labels": b"3\n1\n"}, "3 records but 2 labels"),
        (
            {"texas/100/labels": b"3\n1\nx\n"},
            "dataset_texas.tgz: texas/100/labels, line 3: label 'x'",
        ),
        (
            {"texas/100/feats": b"0,1,1,0\n1,0,0\n0,0,0,1\n"},
            "texas/100/feats, line 2: 3 columns of data, expected 4",
        ),
    ],
)
def test_broken_texas(small, tmp_path, change, message):
    tgz(tmp_path / "texas100" / "dataset_texas.tgz", (dict(TEXAS) | change).items())
    with pytest.raises(UserError, match=message):
        load_named("texas100", tmp_path)


@pytest.mark.parametrize("name", ["texas/100/labels", "texas/100/feats"])
def test_texas_with_half_of_it_missing(small, tmp_path, name):
    tgz(
        tmp_path / "texas100" / "dataset_texas.tgz",
        [member for member in TEXAS if member[0] != name],
    )
    with pytest.raises(UserError, match=f"dataset_texas.tgz: there is no file {name}"):
        load_named("texas100", tmp_path)


@pytest.mark.parametrize(
    "content, message",
    [
        (b'"3",0,1,1\n', "line 1: 3 columns of data, expected 4"),
        (b'"3",0,1,1,0\n"1",0,1,1,0,0\n', "line 2: 5 columns of data, expected 4"),
        (b'"3",0,1,1,0\n\n', "line 2: label ''"),
        (b'"3",0,1,2,0\n', "neither 0 nor 1"),
        (b'"3",0,1,10,0\n', "neither 0 nor 1"),
        (b'"3",0,1,,0\n', "neither 0 nor 1"),
        (b'"3",0,1,,10\n', "neither 0 nor 1"),
        (b'"3",0,1,1,00\n', "neither 0 nor 1"),
        (b'"0",0,1,1,0\n', "label '0' is not one of 1..3"),
        (b'"4",0,1,1,0\n', "label '4' is not one of 1..3"),
        (b'"-1",0,1,1,0\n', "label '-1' is not one of 1..3"),
        (b'"",0,1,1,0\n', "label '' is not one of 1..3"),
        (b"\xff,0,1,1,0\n", "is not one of 1..3"),
        (b"", "empty"),
    ],
)
def test_broken_location(location_tgz, content, message):
    tgz(location_tgz, [("bangkok", content)])
    with pytest.raises(UserError, match=message) as caught:
        load_named("location", location_tgz.parents[1])
    assert content == b"" or str(location_tgz) in str(caught.value)


def test_location_without_its_file(location_tgz):
    tgz(location_tgz, [("paris", csv(ROWS))])
    with pytest.raises(UserError, match=r"dataset_location\.tgz: there is no file bangkok"):
        load_named("location", location_tgz.parents[1])


@pytest.mark.parametrize("damage", ["truncated", "trailer", "text", "nothing", "flipped", "folder"])
def test_damaged_archive(location_tgz, damage):
    rng = np.random.default_rng(0)
    tgz(location_tgz, [("bangkok", csv([(1 + i % 3, rng.integers(0, 2, 4)) for i in range(3000)]))])
    load_named("location", location_tgz.parents[1])  # whole, it can be read
    whole = location_tgz.read_bytes()
    if damage == "folder":
        location_tgz.unlink()
        location_tgz.mkdir()
    else:
        location_tgz.write_bytes(
            {
                "truncated": whole[: len(whole) // 2],
                "trailer": whole[:-8] + bytes(4) + whole[-4:],  # another CRC-32
                "text": b"<html>rate limit</html>",
                "nothing": b"",
                "flipped": whole[:400] + bytes(40) + whole[440:],
            }[damage]
        )
    with pytest.raises(UserError) as caught:
        load_named("location", location_tgz.parents[1])
    assert str(location_tgz) in str(caught.value) and "remove it" in str(caught.value)


def test_tar_cut_off_inside_a_whole_gzip(location_tgz):
    tgz(location_tgz, [("bangkok", csv(ROWS * 1000))])
    location_tgz.write_bytes(gzip.compress(gzip.decompress(location_tgz.read_bytes())[:20000]))
    with pytest.raises(UserError, match="dataset_location.tgz"):
        load_named("location", location_tgz.parents[1])


def link(name, target, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return name, info


def test_hostile_archive_writes_nothing(location_tgz):
    outside = location_tgz.parents[2] / f"{location_tgz.parents[1].name}_outside"
    hostile = [
        ("../evil", b"x"),
        (str(outside / "evil"), b"x"),
        link("door", str(outside), tarfile.SYMTYPE),
        ("door/evil", b"x"),
        link("bangkok", "../../secret", tarfile.SYMTYPE),
    ]
    tgz(location_tgz, [*hostile, ("bangkok", csv(ROWS))])
    before = sorted(location_tgz.parents[1].rglob("*"))
    assert has_the_rows(load_named("location", location_tgz.parents[1]))
    assert sorted(location_tgz.parents[1].rglob("*")) == before and not outside.exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]
)
def test_only_a_plain_file_is_read(location_tgz, kind):
    tgz(location_tgz, [("paris", csv(ROWS)), link("bangkok", "paris", kind)])
    with pytest.raises(UserError, match="there is no file bangkok"):
        load_named("location", location_tgz.parents[1])


def test_wrong_checksum(location_tgz, monkeypatch):
    tgz(location_tgz, [("bangkok", csv(ROWS))])
    monkeypatch.setitem(
        archived_sets.ARCHIVES, "location", (archived_sets.ARCHIVES["location"][0], "ab" * 32)
    )
    with pytest.raises(
        UserError, match=f"expected sha256 {'ab' * 32}, found [0-9a-f]{{64}}$"
    ) as caught:
        load_named("location", location_tgz.parents[1])
    assert str(location_tgz) in str(caught.value)


def test_real_location():
    if not (SHARED_DATA / "location").is_dir():
        pytest.skip("the Location archive is not beside this project (../shared/data/location)")
    before = sorted(SHARED_DATA.rglob("*"))
    records = load("location", data_root=SHARED_DATA, num_cls=30, input_dim=446)
    assert (len(records), records.shape, records.num_cls) == (5010, (446,), 30)
    counts = np.bincount(records.y.numpy(), minlength=30)
    assert (len(counts), counts.min(), counts.max()) == (30, 97, 308)
    assert round(records.x.sum().item() / 5010, 1) == 53.7
    with tarfile.open(
        SHARED_DATA / "location" / "dataset_location.tgz"
    ) as archive:  # again, the slow and simple way
        last = archive.extractfile("bangkok").read().decode().splitlines()[-1].split(",")
    assert records.x[-1].tolist() == list(map(int, last[1:]))
    assert records.y[-1].item() == int(last[0].strip('"')) - 1
    assert sorted(SHARED_DATA.rglob("*")) == before


def test_an_archive_that_may_not_be_read(location_tgz, monkeypatch):
    tgz(location_tgz, [("bangkok", csv(ROWS))])

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tarfile, "open", refuse)
    with pytest.raises(
        UserError, match="dataset_location.tgz: Permission denied; make it readable"
    ):
        load_named("location", location_tgz.parents[1])


@pytest.mark.parametrize("name", ["chmnist", "location", "texas100", "purchase100"])
def test_no_network(monkeypatch, tmp_path, name):
    def fail(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", fail)
    with pytest.raises(UserError) as caught:
        load_named(name, tmp_path)
    address = archived_sets.ARCHIVES[name][0]
    assert address.startswith("https://")
    for word in (
        address,
        f"put {address.split('/')[-1]} into {tmp_path / name}",
        "no route to host",
    ):
        assert word in str(caught.value)
    assert not any((tmp_path / name).iterdir())


def test_a_folder_whose_name_is_too_long(monkeypatch, tmp_path):
    monkeypatch.setattr(
        torchvision.datasets.utils,
        "download_url",
        lambda *args: pytest.fail("downloads for nothing"),
    )
    with pytest.raises(UserError, match="File name too long"):
        load_named("location", tmp_path / ("x" * 300))


def test_download_once(monkeypatch, location_tgz):
    calls = []

    def download(url, root, filename):
        calls.append((url, Path(root), filename))
        tgz(Path(root) / filename, [("bangkok", csv(ROWS))])
        assert not location_tgz.exists()

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download)
    for _ in range(2):
        assert has_the_rows(load_named("location", location_tgz.parents[1]))
    [(url, root, filename)] = calls
    assert url == "https://github.com/privacytrustlab/datasets/raw/master/dataset_location.tgz"
    assert (
        filename == location_tgz.name and root.parent == location_tgz.parent
    )  # one file system: a rename is atomic
    assert list(location_tgz.parent.iterdir()) == [location_tgz]


@pytest.mark.parametrize(
    "error, seen", [(KeyboardInterrupt(), KeyboardInterrupt), (OSError("reset"), UserError)]
)
def test_interrupted_download_leaves_nothing(monkeypatch, location_tgz, error, seen):
    def download(url, root, filename):
        (Path(root) / filename).write_bytes(b"half")
        raise error

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download)
    with pytest.raises(seen):
        load_named("location", location_tgz.parents[1])
    assert not any(location_tgz.parent.iterdir())
