"""A user's own .npz file."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from core.console import UserError
from datasets import load


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
