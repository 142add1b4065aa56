"""CH-MNIST's archive of tiles."""

import io
import zipfile

import numpy as np
import pytest
import torchvision
from helpers import load_named
from PIL import Image

from core.console import UserError
from datasets import load

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
