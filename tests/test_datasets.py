import gzip
import io
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from helpers import PROJECT, SHARED_DATA
from PIL import Image

from core.console import UserError
from datasets import DATASETS, Records, load, split
from sources import archived_sets, bundled_sets, torchvision_sets


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Anything that reaches for the network fails the test, past any `except Exception` on the way."""

    def refuse(*args, **kwargs):
        pytest.fail(f"the network was asked for {args}")

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", refuse)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def load_named(name, root):
    facts = DATASETS[name].options
    return load(name, data_root=root, num_cls=facts["num_cls"], input_dim=facts["shape"][0])


# ---- records ---------------------------------------------------------------------------------------------------------


def two_images():
    x = torch.tensor(
        [[[[0, 255]], [[51, 102]]], [[[255, 0]], [[153, 204]]]], dtype=torch.uint8
    )  # (2, 2, 1, 2)
    return Records(x, torch.tensor([4, 7]), 10, mean=(0.5, 0.2), std=(0.5, 0.1))


def test_batch_of_images_is_normalised_by_channel():
    records = two_images()
    x, y = records.batch(torch.tensor([1, 0, 1]))
    second, first = [[[1.0, -1.0]], [[4.0, 6.0]]], [[[-1.0, 1.0]], [[0.0, 2.0]]]
    torch.testing.assert_close(x, torch.tensor([second, first, second]))
    assert x.dtype == torch.float32 and y.tolist() == [7, 4, 7]
    assert records.x.tolist() == two_images().x.tolist(), "the records themselves were changed"


def test_batch_gives_the_floats_of_torchvision():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    records = Records(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        torch.zeros(5).long(),
        10,
        mean,
        std,
    )
    transforms = torchvision.transforms
    expected = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    assert torch.equal(
        records.batch(torch.arange(5))[0], torch.stack([expected(image) for image in pixels])
    )


def test_batch_of_a_table_is_cast_only():
    binary = Records(torch.tensor([[0, 1], [1, 1]], dtype=torch.uint8), torch.tensor([0, 1]), 2)
    x, y = binary.batch(torch.tensor([1]))
    assert x.dtype == torch.float32 and x.tolist() == [[1.0, 1.0]] and y.tolist() == [1]
    numbers = Records(torch.tensor([[0.5, -3.0]]), torch.tensor([0]), 2)
    numbers.batch(torch.tensor([0]))[0].zero_()
    assert numbers.x.tolist() == [[0.5, -3.0]], "a batch must be a copy"


def test_batch_builds_no_tensor_from_python_numbers(monkeypatch):
    records, indices = two_images(), torch.tensor([0])
    for maker in ("tensor", "as_tensor"):
        monkeypatch.setattr(
            torch,
            maker,
            lambda *args, **kwargs: pytest.fail("this waits for the GPU in every batch"),
        )
    records.batch(indices)


def test_to_keeps_everything():
    records = two_images()
    moved = records.to("meta")
    assert moved.x.device.type == moved.y.device.type == moved._mean.device.type == "meta"
    assert (moved.shape, moved.num_cls, moved.mean, moved.std) == (
        (2, 1, 2),
        10,
        records.mean,
        records.std,
    )
    assert len(moved) == 2


def test_images_on_a_device_are_channels_last_and_say_the_same():
    records = Records(
        x=torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).view(2, 3, 4, 5),
        y=torch.arange(2),
        num_cls=2,
        mean=(0.1, 0.2, 0.3),
        std=(0.5, 0.6, 0.7),
    )
    moved, indices = records.to("cpu"), torch.tensor([1, 0, 1])
    x, y = moved.batch(indices)
    assert x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    assert torch.equal(x, records.batch(indices)[0]) and y.tolist() == [1, 0, 1]


def test_a_batch_for_a_stack_has_a_dimension_in_front():
    records, indices = two_images().to("cpu"), torch.tensor([[1, 0, 1], [0, 0, 1]])
    x, y = records.batch(indices)
    for number in range(2):
        alone = records.batch(indices[number])
        assert torch.equal(x[number], alone[0]) and torch.equal(y[number], alone[1])


# ---- the split -------------------------------------------------------------------------------------------------------


def test_split_sizes_of_location():
    # 5010 / 2 = 2505; test: ceil(2505 * 0.45 = 1127.25); 1377 are left; dev: ceil(1377 * 0.1818 = 250.3)
    for part in split(5010, seed=7, shadow_num=2).values():
        assert (len(part.train), len(part.dev), len(part.test)) == (1126, 251, 1128)
        assert {part.train.dtype, part.dev.dtype, part.test.dtype} == {np.dtype(np.int64)}


def everything(part):
    return np.concatenate([part.train, part.dev, part.test])


def test_split_parts_are_disjoint_and_cover_the_half():
    roles = split(1001, seed=3, shadow_num=3)
    assert list(roles) == ["victim", "shadow_0", "shadow_1", "shadow_2"]
    victim, *shadows = map(everything, roles.values())
    for shadow in shadows:
        assert sorted([*victim, *shadow]) == list(
            range(1001)
        )  # each record once: no overlap, nothing left over


def test_split_is_the_papers():
    """Against the calls of the paper, one after the other, on plain lists."""
    from sklearn.model_selection import train_test_split

    victim_half, attack_half = train_test_split(list(range(1797)), test_size=0.5, random_state=11)
    roles = split(1797, seed=11, shadow_num=3)
    halves = {"victim": (victim_half, 11)} | {
        f"shadow_{i}": (attack_half, 11 + i) for i in range(3)
    }
    for role, (half, seed) in halves.items():
        train, test = train_test_split(half, test_size=0.45, random_state=seed)
        train, dev = train_test_split(train, test_size=0.1818, random_state=seed)
        assert roles[role].train.tolist() == train
        assert roles[role].dev.tolist() == dev
        assert roles[role].test.tolist() == test


def test_split_depends_on_the_seed_alone():
    one, again, other = (split(200, seed=seed, shadow_num=1) for seed in (5, 5, 6))
    assert all(np.array_equal(everything(one[role]), everything(again[role])) for role in one)
    assert not np.array_equal(everything(one["victim"]), everything(other["victim"]))
    more = split(200, seed=5, shadow_num=4)
    assert np.array_equal(everything(more["shadow_0"]), everything(one["shadow_0"]))
    assert not np.array_equal(more["shadow_0"].train, more["shadow_1"].train)


@pytest.mark.parametrize("n", [0, 1, 3, 10, 21])
def test_split_of_too_few_records(n):
    with pytest.raises(UserError, match=f"{n} records are too few.*22"):
        split(n, seed=7, shadow_num=1)


@pytest.mark.parametrize("n", range(22, 60))
def test_split_of_just_enough_records(n):
    for part in split(n, seed=7, shadow_num=1).values():
        assert min(len(part.train), len(part.dev), len(part.test)) >= 2


# ---- the table of names ----------------------------------------------------------------------------------------------


def test_import_is_light():
    heavy = "{'torch', 'torchvision', 'sklearn', 'PIL'}"
    code = f"import sys, datasets; datasets.DATASETS.help(); assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)


@pytest.mark.parametrize("name", list(DATASETS))
def test_every_name_has_code_and_facts(name):
    assert callable(DATASETS.load(name))
    facts = DATASETS[name].options
    channels = facts["shape"][0] if len(facts["shape"]) == 3 else None
    for numbers in (facts.get("mean"), facts.get("std")):
        assert (None if numbers is None else len(numbers)) == channels


@pytest.mark.parametrize("name", list(DATASETS))
def test_misfits_are_told_before_a_download(name, tmp_path):
    facts = DATASETS[name].options
    with pytest.raises(UserError, match=f"{name}.*{facts['num_cls']} classes.*num_cls is 7"):
        load(name, data_root=tmp_path, num_cls=7, input_dim=facts["shape"][0])
    with pytest.raises(UserError, match=f"{name}.*{facts['shape'][0]}.*input_dim.*5"):
        load(name, data_root=tmp_path, num_cls=facts["num_cls"], input_dim=5)


def test_unknown_name(tmp_path):
    with pytest.raises(UserError, match="'digit'.*did you mean 'digits'"):
        load("digit", data_root=tmp_path, num_cls=10, input_dim=1)


@pytest.mark.parametrize("input_dim", [1, 64])
def test_digits(tmp_path, input_dim):
    records = load("digits", data_root=tmp_path, num_cls=10, input_dim=input_dim)
    assert (len(records), records.shape, records.x.dtype) == (1797, (1, 8, 8), torch.uint8)
    # the first row of the first digit, a zero, is 0 0 5 13 9 1 0 0 of 16
    assert records.x[0, 0, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]
    assert records.y[:5].tolist() == [0, 1, 2, 3, 4]
    x, _ = records.batch(torch.arange(1797))
    assert x.min() == -1 and x.max() == 1
    assert not any(tmp_path.iterdir())


def test_labels_of_a_named_set_are_tested(monkeypatch, tmp_path):
    monkeypatch.setitem(DATASETS["digits"].options, "num_cls", 9)
    with pytest.raises(UserError, match="digits.*label 9.*0 to 8"):
        load_named("digits", tmp_path)


@pytest.mark.parametrize(
    "x, y, message",
    [
        (np.zeros((3, 1, 8, 8), np.uint8), np.zeros(2, int), "3 records but 2 labels"),
        (np.zeros((0, 1, 8, 8), np.uint8), np.zeros(0, int), "empty"),
        (np.zeros((3, 1, 8, 9), np.uint8), np.zeros(3, int), r"\(1, 8, 9\), not \(1, 8, 8\)"),
    ],
)
def test_arrays_of_a_named_set_are_tested(monkeypatch, tmp_path, x, y, message):
    monkeypatch.setattr(bundled_sets, "digits", lambda folder: (x, y))
    with pytest.raises(UserError, match=message):
        load_named("digits", tmp_path)


# ---- torchvision's sets ----------------------------------------------------------------------------------------------

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


# ---- archives of tables ----------------------------------------------------------------------------------------------

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


# ---- torchvision's archives that lie there and are damaged


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


@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"digits"}))
@pytest.mark.parametrize("where", [".", "NAME"])
def test_a_file_where_the_folder_of_data_should_be(name, where, tmp_path):
    path = tmp_path / "data" if where == "." else tmp_path / "data" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    with pytest.raises(UserError, match=f"data_root: {path} is a file; a folder is needed"):
        load_named(name, tmp_path / "data")


def test_an_archive_that_may_not_be_read(location_tgz, monkeypatch):
    tgz(location_tgz, [("bangkok", csv(ROWS))])

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tarfile, "open", refuse)
    with pytest.raises(
        UserError, match="dataset_location.tgz: Permission denied; make it readable"
    ):
        load_named("location", location_tgz.parents[1])


# ---- downloads -------------------------------------------------------------------------------------------------------


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


# ---- chmnist ---------------------------------------------------------------------------------------------------------

FOLDERS = [
    "01_TUMOR",
    "02_STROMA",
    "03_COMPLEX",
    "04_LYMPHO",
    "05_DEBRIS",
    "06_MUCOSA",
    "07_ADIPOSE",
    "08_EMPTY",
]
TILES = "Kather_texture_2016_image_tiles_5000"


def tif(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="TIFF")
    return stream.getvalue()


def kather_zip(root, members):
    path = root / "chmnist" / f"{TILES}.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_chmnist(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (9, 150, 150, 3), dtype=np.uint8)
    names = [f"{TILES}/{folder}/a.tif" for folder in FOLDERS] + [f"{TILES}/01_TUMOR/b.tif"]
    members = [(name, tif(pixels)) for name, pixels in zip(names, noise)]
    junk = [
        (f"__MACOSX/{TILES}/01_TUMOR/._a.tif", b"junk"),
        (f"{TILES}/readme.txt", b"hello"),
        (f"{TILES}/", b""),
    ]
    kather_zip(tmp_path, [*members[::-1], *junk])
    records = load("chmnist", data_root=tmp_path, num_cls=8, input_dim=3)
    assert records.y.tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7] and records.shape == (3, 32, 32)
    by_torchvision = torchvision.transforms.Resize((32, 32))
    for record, pixels in zip(records.x, noise[[0, 8, 1, 2, 3, 4, 5, 6, 7]]):
        assert np.array_equal(
            record.permute(1, 2, 0), np.asarray(by_torchvision(Image.fromarray(pixels)))
        )


@pytest.mark.parametrize(
    "members, message",
    [
        ([], "no .tif tiles"),
        (
            [("09_OTHER/a.tif", tif(np.zeros((9, 9, 3), np.uint8)))],
            "09_OTHER/a.tif is in none of the folders",
        ),
        ([("01_TUMOR/a.tif", b"not an image")], "cannot identify"),
        ([("01_TUMOR/a.tif", tif(np.ones((50, 50, 3), np.uint8))[:300])], "cannot read"),
    ],
)
def test_broken_chmnist(tmp_path, members, message):
    path = kather_zip(tmp_path, members)
    with pytest.raises(UserError, match=message) as caught:
        load_named("chmnist", tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 100, -30])
def test_truncated_chmnist(tmp_path, keep):
    path = kather_zip(tmp_path, [("01_TUMOR/a.tif", tif(np.zeros((50, 50, 3), np.uint8)))])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=f"cannot read {path}"):
        load_named("chmnist", tmp_path)


# ---- the user's own file ---------------------------------------------------------------------------------------------


def load_own(tmp_path, *, num_cls=3, input_dim=4, **arrays):
    path = tmp_path / "own.npz"
    np.savez(path, **arrays)
    return load(
        "location",
        data_path=str(path),
        data_root=tmp_path / "nowhere",
        num_cls=num_cls,
        input_dim=input_dim,
    )


Y = np.array([0, 2, 1])
TABLE = np.arange(12.0).reshape(3, 4)
IMAGES = np.arange(3 * 5 * 6 * 2, dtype=np.uint8).reshape(3, 5, 6, 2)  # (N, H, W, C)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.uint8, ">f8"])
def test_own_table(tmp_path, dtype):
    records = load_own(tmp_path, x=TABLE.astype(dtype), y=Y.astype(np.uint8))
    assert records.x.dtype == torch.float32 and records.x.tolist() == TABLE.tolist()
    assert records.y.dtype == torch.int64 and records.y.tolist() == [0, 2, 1]
    assert (records.mean, records.std, records.num_cls) == (None, None, 3)


@pytest.mark.parametrize("dtype", [np.float64, bool, np.int8])
def test_own_binary_table_is_kept_as_bytes(tmp_path, dtype):
    records = load_own(tmp_path, x=(TABLE % 2).astype(dtype), y=Y)
    assert records.x.dtype == torch.uint8 and records.x.tolist() == (TABLE % 2).tolist()


@pytest.mark.parametrize("input_dim", [2, 60])
@pytest.mark.parametrize("channels_first", [False, True])
def test_own_images(tmp_path, input_dim, channels_first):
    x = IMAGES.transpose(0, 3, 1, 2) if channels_first else IMAGES
    records = load_own(tmp_path, x=x, y=Y, input_dim=input_dim)
    assert records.shape == (2, 5, 6) and records.x.is_contiguous()
    assert records.x[2, 1, 4, 3].item() == IMAGES[2, 4, 3, 1]
    assert records.mean == records.std == (0.5, 0.5)


def test_own_images_with_two_readings_have_their_channels_last(tmp_path):
    x = np.arange(3 * 2 * 5 * 2, dtype=np.uint8).reshape(3, 2, 5, 2)
    records = load_own(tmp_path, x=x, y=Y, input_dim=2)
    assert np.array_equal(records.x, x.transpose(0, 3, 1, 2))


def changed(value, where=(1, 2), dtype=float):
    table = TABLE.astype(dtype)
    table[where] = value
    return table


@pytest.mark.parametrize(
    "arrays, message",
    [
        (dict(x=TABLE), "no array 'y'"),
        (dict(y=Y), "no array 'x'"),
        (dict(x=TABLE, y=Y[:2]), "3 records but 2 labels"),
        (dict(x=TABLE, y=Y.astype(float)), r"y must be N integers, but is float64 of shape \(3,\)"),
        (dict(x=TABLE, y=Y[:, None]), r"y must be N integers, but is int64 of shape \(3, 1\)"),
        (dict(x=TABLE, y=np.array(["a", "b", "c"])), "y must be N integers"),
        (dict(x=TABLE, y=np.array([0, 3, 1])), "label 3; .*0 to 2"),
        (dict(x=TABLE, y=np.array([0, -1, 1])), "label -1; .*0 to 2"),
        (
            dict(x=TABLE, y=np.array([0, 2**63 + 1, 1], dtype=np.uint64)),
            f"label {2**63 + 1}; .*0 to 2",
        ),
        (dict(x=TABLE[0], y=Y), r"x must be .* but is float64 of shape \(4,\)"),
        (dict(x=IMAGES[..., 0], y=Y), r"x must be .* but is uint8 of shape \(3, 5, 6\)"),
        (dict(x=np.float64(3), y=Y), r"x must be .* of shape \(\)"),
        (dict(x=TABLE.astype(str), y=Y), "x must be"),
        (dict(x=TABLE.astype(complex), y=Y), "x must be"),
        (dict(x=IMAGES / 255, y=Y, input_dim=2), "images must be uint8 .* x is float64"),
        (dict(x=IMAGES.astype(int), y=Y, input_dim=2), "images must be uint8 .* x is int64"),
        (dict(x=changed(np.nan), y=Y), "row 1 of x holds NaN"),
        (dict(x=changed(-np.inf), y=Y), "row 1 of x holds NaN, infinity"),
        (dict(x=changed(1e39), y=Y), "row 1 of x .* too large for float32"),
        (dict(x=TABLE[:0], y=Y[:0]), "empty"),
        (dict(x=IMAGES[:0], y=Y[:0], input_dim=2), "empty"),
        (dict(x=IMAGES[:, :0], y=Y, input_dim=2), "empty"),
        (dict(x=TABLE, y=Y, input_dim=5), "4 columns, but input_dim is 5"),
        (
            dict(x=IMAGES, y=Y, input_dim=3),
            r"\(2, 5, 6\): input_dim must be 2 \(channels\) or 60 \(flattened.*not 3",
        ),
        (dict(x=np.array([{}, 1, 2], dtype=object), y=Y), "cannot read .* plain arrays x and y"),
        (dict(x=TABLE, y=np.array([0, 1, None])), "cannot read .* plain arrays x and y"),
    ],
)
def test_own_file_that_does_not_fit(tmp_path, arrays, message):
    with pytest.raises(UserError, match=message) as caught:
        load_own(tmp_path, **arrays)
    assert str(tmp_path / "own.npz") in str(caught.value)
    assert "\n" not in str(caught.value)


def npz_bytes():
    stream = io.BytesIO()
    np.savez_compressed(
        stream, x=np.random.default_rng(0).normal(size=(99, 4)), y=np.zeros(99, int)
    )
    return stream.getvalue()


def other_zip():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x", b"hello")
        archive.writestr("y", b"world")
    return stream.getvalue()


def with_header(text):
    """Arrays that have nothing but a header."""
    stream, header = (
        io.BytesIO(),
        b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode(),
    )
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x.npy", header)
        archive.writestr("y.npy", header)
    return stream.getvalue()


FORGED = "{'descr': '%s', 'fortran_order': False, 'shape': (%d, 1000), }"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"\x80\x04N.",  # a pickle
        npz_bytes()[:300],
        npz_bytes()[:200] + bytes(50) + npz_bytes()[250:],
        other_zip(),
        with_header(FORGED % ("<f8", 10**15)),  # claims 8 EB
        with_header(FORGED % ("<f8", 10**20)),
        with_header(FORGED % ("f,,", 9)),
        with_header((FORGED % ("<f8", 9)).replace("}", "")),
    ],
    ids=[
        "nothing",
        "text",
        "pickle",
        "truncated",
        "flipped",
        "zip",
        "forged",
        "more forged",
        "no type",
        "no end",
    ],
)
def test_own_file_that_is_no_npz(tmp_path, content):
    path = tmp_path / "own.npz"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load("", data_path=path, data_root=tmp_path, num_cls=3, input_dim=4)
    assert str(path) in str(caught.value)


def test_own_file_that_is_a_single_array(tmp_path):
    path = tmp_path / "own.npy"
    np.save(path, TABLE)
    with pytest.raises(UserError, match="single array; data_path must be an .npz"):
        load("", data_path=path, data_root=tmp_path, num_cls=3, input_dim=4)


@pytest.mark.parametrize("name", ["absent.npz", "."])
def test_own_file_that_is_not_there(tmp_path, name):
    with pytest.raises(UserError, match="there is no file"):
        load("", data_path=tmp_path / name, data_root=tmp_path, num_cls=3, input_dim=4)


def test_own_pickle_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    with pytest.raises(UserError, match="cannot read"):
        load_own(tmp_path, x=np.array([Bomb()], dtype=object), y=Y[:1])
    assert not (tmp_path / "ran").exists()
