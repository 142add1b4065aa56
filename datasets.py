"""Records in memory, by name or from a file of the user's own, and two ways to split them into roles.

Nothing but numpy is imported until records are asked for, so that `--help` can list the names at once.
"""

from __future__ import annotations

import hashlib
import http.client
import math
import os
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from core.console import UserError
from core.inputs import check_folder
from core.registry import Registry

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Records:
    """A whole data set on one device, kept as bytes where it can be and normalised batch by batch."""

    x: (
        torch.Tensor
    )  # images (N, C, H, W) uint8; tables (N, D) uint8 where all is 0 or 1, else float32
    y: torch.Tensor  # (N,) int64 in 0..num_cls-1
    num_cls: int
    mean: tuple[float, ...] | None = None  # of each channel, for pixels in 0..1; None for tables
    std: tuple[float, ...] | None = None

    def __post_init__(self):
        import torch

        # Made once: a tensor built from Python numbers in every batch would make the host wait for the GPU.
        for name in ("mean", "std"):
            numbers = getattr(self, name)
            column = (
                None
                if numbers is None
                else torch.tensor(numbers, device=self.x.device).view(-1, 1, 1)
            )
            object.__setattr__(self, f"_{name}", column)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one record: (C, H, W) or (D,)."""
        return tuple(self.x.shape[1:])

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device) -> Records:
        """The same on a device; images there in memory channel by channel of a pixel, as convolutions like it best."""
        import torch

        x = self.x.to(device)
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return replace(self, x=x, y=self.y.to(device))

    def digest(self) -> str:
        """Tells these records from any others."""
        said = repr(
            (tuple(self.x.shape), str(self.x.dtype), self.num_cls, self.mean, self.std)
        ).encode()
        found = hashlib.sha256(said)
        for tensor in (self.x, self.y):
            found.update(tensor.contiguous().cpu().numpy())
        return found.hexdigest()

    def batch(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The records at `indices` (B,): x (B, *shape) float32, y (B,), made on the device where the data lies.

        Indices (K, B) give x (K, B, *shape) and y (K, B).

        Images become (x / 255 - mean) / std, in the order of torchvision's ToTensor and Normalize: the same floats.
        """
        indices = indices.to(self.x.device, non_blocking=True)
        flat = indices.flatten()
        # a copy, so that the steps below may work in place; of whole rows in memory where images are channels last
        if self.x.dim() == 4:
            x = self.x.permute(0, 2, 3, 1).index_select(0, flat).permute(0, 3, 1, 2).float()
        else:
            x = self.x.index_select(0, flat).float()
        if self._mean is not None:
            x = x.div_(255).sub_(self._mean).div_(self._std)
        return x.view(*indices.shape, *self.shape), self.y[indices]


DATASETS = Registry("data set")
# A name's code is a function(folder) -> x (N, *shape) uint8, y (N,) integers from 0; `load` does the rest.

_CIFAR = dict(
    shape=(3, 32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)
)  # for both: paper
DATASETS.register(
    "cifar10",
    "datasets:cifar10",
    "60000 photographs (Krizhevsky 2009; torchvision)",
    num_cls=10,
    **_CIFAR,
)
DATASETS.register(
    "cifar100",
    "datasets:cifar100",
    "60000 photographs (Krizhevsky 2009; torchvision)",
    num_cls=100,
    **_CIFAR,
)
DATASETS.register(
    "svhn",
    "datasets:svhn",
    "99289 house numbers, train and test (Netzer et al. 2011; torchvision)",
    num_cls=10,
    shape=(3, 32, 32),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
DATASETS.register(
    "mnist",
    "datasets:mnist",
    "70000 handwritten digits (LeCun et al. 1998; torchvision)",
    num_cls=10,
    shape=(1, 28, 28),
    mean=(0.1307,),
    std=(0.3081,),
)
DATASETS.register(
    "chmnist",
    "datasets:chmnist",
    "5000 tiles of colorectal tissue (Kather et al. 2016; Zenodo 53169)",
    num_cls=8,
    shape=(3, 32, 32),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
DATASETS.register(
    "location",
    "datasets:location",
    "5010 users' places (Shokri et al. 2017; GitHub privacytrustlab)",
    num_cls=30,
    shape=(446,),
)
DATASETS.register(
    "texas100",
    "datasets:texas100",
    "67330 hospital stays (Shokri et al. 2017; GitHub privacytrustlab)",
    num_cls=100,
    shape=(6169,),
)
DATASETS.register(
    "purchase100",
    "datasets:purchase100",
    "197324 shoppers (Shokri et al. 2017; GitHub privacytrustlab)",
    num_cls=100,
    shape=(600,),
)
DATASETS.register(
    "digits",
    "datasets:digits",
    "1797 digits of 8x8 pixels (Alpaydin & Kaynak 1998; in scikit-learn)",
    num_cls=10,
    shape=(1, 8, 8),
    mean=(0.5,),
    std=(0.5,),
)


def load(name: str, *, data_path=None, data_root, num_cls: int, input_dim: int) -> Records:
    """All records of a data set: its train part, then its test part, where it comes in two.

    Args:
        data_path: an .npz file of the user's own (see `read_npz`) that takes the place of the named set.
        data_root: the folder of the named sets; each lies, or is downloaded to, `data_root/name/`.
        num_cls: the number of classes; a named set has only one that is right.
        input_dim: channels of an image or columns of a table; for images also C*H*W, as columnfc flattens them.
    Raises:
        UserError: the set is not there and cannot be downloaded, is damaged, or does not fit num_cls or input_dim.
    """
    if data_path:
        source = str(data_path)
        x, y = read_npz(Path(data_path), input_dim=input_dim)
        _check_width(x.shape[1:], input_dim, source)
        mean = std = (0.5,) * x.shape[1] if x.ndim == 4 else None
    else:
        source, facts = f"data set {name!r}", DATASETS[name].options
        if num_cls != facts["num_cls"]:
            raise UserError(f"{source} has {facts['num_cls']} classes, but num_cls is {num_cls}")
        _check_width(
            facts["shape"], input_dim, source
        )  # before a download that would be for nothing
        for folder in (Path(data_root), Path(data_root) / name):
            check_folder("data_root", folder)
        x, y = DATASETS.load(name)(Path(data_root) / name)
        mean, std = facts.get("mean"), facts.get("std")
        if x.shape[1:] != facts["shape"]:
            raise UserError(f"{source} has records of shape {x.shape[1:]}, not {facts['shape']}")
    if len(x) != len(y):
        raise UserError(f"{source} has {len(x)} records but {len(y)} labels")
    if x.size == 0:
        raise UserError(f"{source} is empty: at least one record is needed")
    outside = y[(y < 0) | (y >= num_cls)]
    if len(outside):
        raise UserError(
            f"{source} has label {outside[0]}; with num_cls {num_cls} labels run from 0 to {num_cls - 1}"
        )
    import torch

    x, y = torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y.astype(np.int64))
    return Records(x, y, num_cls, mean, std)


def _check_width(shape: tuple[int, ...], input_dim: int, source: str) -> None:
    if len(shape) == 1 and input_dim != shape[0]:
        raise UserError(f"{source} has {shape[0]} columns, but input_dim is {input_dim}")
    if len(shape) == 3 and input_dim not in (shape[0], math.prod(shape)):
        raise UserError(
            f"{source} has images of shape {shape}: input_dim must be {shape[0]} (channels) "
            f"or {math.prod(shape)} (flattened, for columnfc), not {input_dim}"
        )


@dataclass(frozen=True, eq=False)
class RoleSplit:
    """What one role has: indices into the whole data set, int64."""

    train: np.ndarray  # members
    dev: np.ndarray  # early stopping
    test: np.ndarray  # non-members


SPLITS = ("paper", "inout")


def split(n: int, *, seed: int, shadow_num: int, kind: str = "paper") -> dict[str, RoleSplit]:
    """A split of n records: role ("victim", "shadow_0", ...) -> its train, dev and test indices.

    A split of fewer shadows is the beginning of one of more.
    Raises UserError where a part would have fewer than 2 records.
    """
    if n < 22:  # 22: two halves of 11; 5 for test leave 6, and of 6 dev gets ceil(1.09) = 2
        raise UserError(
            f"{n} records are too few to split: at least 22 are needed for 2 in every part"
        )
    return {"paper": _paper_split, "inout": _inout_split}[kind](n, seed, shadow_num)


def check_even(shadow_num: int) -> None:
    """Raise UserError where the in/out split can't be of so many shadows."""
    if shadow_num % 2:
        raise UserError(
            f"in the in/out split each record is a member of exactly half of the shadow models: "
            f"--shadow_num must be even, not {shadow_num}"
        )


def _inout_split(n: int, seed: int, shadow_num: int) -> dict[str, RoleSplit]:
    """For online attacks: shadow models are trained on the victim's records too, each record in half of them.

    A tenth of the records is every model's dev. Of the others, two shadows at a time take the two halves of a random
    order, so that each record is IN exactly half of an even number of shadows, and OUT of the others. The victim's
    members are a random half of their own: were they drawn together with the shadows', the number of shadows that a
    record is IN would tell. (Carlini et al., S&P 2022, section VI, balance by record; by pairs, the models are of
    one size too.)
    """
    check_even(shadow_num)
    draw = np.random.default_rng(seed)
    dev, pool = np.split(draw.permutation(n).astype(np.int64), [n // 10])
    dev.sort()

    def halves() -> tuple[RoleSplit, RoleSplit]:
        one, other = (np.sort(half) for half in np.array_split(draw.permutation(pool), 2))
        return RoleSplit(one, dev, other), RoleSplit(other, dev, one)

    parts = {"victim": halves()[0]}
    for pair in range(0, shadow_num, 2):
        parts[f"shadow_{pair}"], parts[f"shadow_{pair + 1}"] = halves()
    return parts


def _paper_split(n: int, seed: int, shadow_num: int) -> dict[str, RoleSplit]:
    """The paper's: shadow models never see the victim's records.

    One half is the victim's. All shadows draw from the other, shadow i with seed + i. Of each half 45 % are train,
    10 % dev, 45 % test (Yuan & Zhang, USENIX Security 2022; not stratified).
    """
    from sklearn.model_selection import train_test_split

    def role(half: np.ndarray, seed: int) -> RoleSplit:
        train, test = train_test_split(half, test_size=0.45, random_state=seed)
        train, dev = train_test_split(train, test_size=0.1818, random_state=seed)
        return RoleSplit(train, dev, test)

    victim, attacker = train_test_split(
        np.arange(n, dtype=np.int64), test_size=0.5, random_state=seed
    )
    return {"victim": role(victim, seed)} | {
        f"shadow_{i}": role(attacker, seed + i) for i in range(shadow_num)
    }


def batches(
    indices: torch.Tensor, size: int, *generators: torch.Generator
) -> Iterator[torch.Tensor]:
    """One epoch of `indices` in random order, in batches of `size`; the last holds what is left.

    A single record left over joins the batch before it: BatchNorm can't normalise over one record.

    Args:
        indices: (n,), or (K, n) for a stack of K models, which gives batches (K, size).
        generators: one for each model.
    """
    import torch

    n = indices.shape[-1]
    orders = [
        torch.randperm(n, generator=generator, device=indices.device) for generator in generators
    ]
    order = indices[orders[0]] if indices.dim() == 1 else indices.gather(1, torch.stack(orders))
    count = max(1, math.ceil(n / size))
    if n % size == 1 and count > 1:
        count -= 1
    for number in range(count):
        yield order[..., number * size : (number + 1) * size if number < count - 1 else None]


def read_npz(path: Path, *, input_dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Arrays x and y of a user's .npz file; images come out as (N, C, H, W) uint8, tables as uint8 or float32.

    x holds images, (N, H, W, C) or (N, C, H, W) uint8, or a table of numbers, (N, D); y holds (N,) integers.
    The axis of an image that is input_dim long is its channels, the last axis if both are; where input_dim is
    C*H*W it is the shorter of the two. A table of nothing but 0 and 1 is kept as uint8.
    Raises UserError where anything is otherwise.
    """
    if not os.path.isfile(path):  # unlike Path.is_file, False also for a name that is too long
        why = (
            " (it is a folder)"
            if os.path.isdir(path)
            else ""
            if path.is_absolute()
            else f" in {Path.cwd()}"
        )
        raise UserError(
            f"data_path: there is no file {path}{why}; an .npz file with arrays x and y is needed"
        )
    with _reading(
        path, "data_path must be an .npz file of plain arrays x and y, as numpy.savez writes it"
    ):
        arrays = np.load(path, allow_pickle=False)
        if isinstance(arrays, np.ndarray):
            raise ValueError("it is a single array")
        with arrays:
            missing = [key for key in "xy" if key not in arrays]
            if missing:
                raise ValueError(f"it has no array {missing[0]!r}, only {sorted(arrays)}")
            x, y = np.asarray(arrays["x"]), np.asarray(arrays["y"])
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise UserError(f"{path}: y must be N integers, but is {y.dtype} of shape {y.shape}")
    if x.ndim == 4:
        if x.dtype != np.uint8:
            raise UserError(f"{path}: images must be uint8 (0..255), but x is {x.dtype}")
        first, last = x.shape[1], x.shape[3]
        if last == input_dim or (first != input_dim and last <= first):
            x = x.transpose(0, 3, 1, 2)
        return x, y
    if x.ndim != 2 or x.dtype.kind not in "biuf":
        raise UserError(
            f"{path}: x must be images (N, H, W, C) or (N, C, H, W), or a table of numbers (N, D), "
            f"but is {x.dtype} of shape {x.shape}"
        )
    if ((x == 0) | (x == 1)).all():
        return x.astype(np.uint8), y
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is reported next
        x = x.astype(np.float32)
    rows = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(rows):
        raise UserError(
            f"{path}: row {rows[0]} of x holds NaN, infinity or a number too large for float32"
        )
    return x, y


# ---- the named sets --------------------------------------------------------------------------------------------------


def cifar10(folder: Path):
    x, y = _torchvision(
        "CIFAR10", folder, "https://www.cs.toronto.edu/~kriz/", "cifar-10-python.tar.gz"
    )
    return x.transpose(0, 3, 1, 2), y


def cifar100(folder: Path):
    x, y = _torchvision(
        "CIFAR100", folder, "https://www.cs.toronto.edu/~kriz/", "cifar-100-python.tar.gz"
    )
    return x.transpose(0, 3, 1, 2), y


def svhn(folder: Path):
    files = "train_32x32.mat and test_32x32.mat"
    return _torchvision("SVHN", folder, "http://ufldl.stanford.edu/housenumbers/", files)


def mnist(folder: Path):
    files = "{train,t10k}-images-idx3-ubyte.gz and {train,t10k}-labels-idx1-ubyte.gz"
    x, y = _torchvision(
        "MNIST", folder, "https://ossci-datasets.s3.amazonaws.com/mnist/", files, inside="MNIST/raw"
    )
    return x[:, None], y


def chmnist(folder: Path):
    """Tiles in the order of their names, each shrunk from 150x150 as torchvision's Resize would (PIL, antialiased)."""
    from PIL import Image

    path, x, y = _archive("chmnist", folder), [], []
    with _reading(path), zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            tile = PurePosixPath(name)
            if tile.suffix != ".tif" or tile.name.startswith(
                "."
            ):  # "._*.tif" is what a Mac leaves behind
                continue
            number = re.match(r"0([1-8])_", tile.parent.name)
            if not number:
                raise ValueError(f"{name} is in none of the folders 01_TUMOR to 08_EMPTY")
            with archive.open(name) as stream, Image.open(stream) as image:
                x.append(
                    np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR))
                )
            y.append(int(number[1]) - 1)
        if not x:
            raise ValueError("there are no .tif tiles in it")
    return np.stack(x).transpose(0, 3, 1, 2), np.array(y)


def location(folder: Path):
    return _binary_table("location", folder, rows="bangkok")


def purchase100(folder: Path):
    return _binary_table("purchase100", folder, rows="dataset_purchase")


def texas100(folder: Path):
    return _binary_table("texas100", folder, rows="texas/100/feats", labels="texas/100/labels")


def digits(folder: Path):
    """Pixels 0..16 are stretched to 0..255. Nothing is read from `folder`."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.round(bunch.images * 255 / 16).astype(np.uint8)[:, None], bunch.target


# ---- files and archives ----------------------------------------------------------------------------------------------

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
TORCHVISION_MD5 = {  # of the archives that torchvision fetches, as it names them
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
_MNIST_BYTES = {
    "train-images-idx3-ubyte": 16 + 60000 * 784,
    "train-labels-idx1-ubyte": 8 + 60000,  # unpacked
    "t10k-images-idx3-ubyte": 16 + 10000 * 784,
    "t10k-labels-idx1-ubyte": 8 + 10000,
}
_DAMAGE = (  # what readers of files raise: torchvision's of MNIST asserts, a forged size asks for too much memory
    OSError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    AssertionError,
    MemoryError,
    zlib.error,
    zipfile.BadZipFile,
    tarfile.TarError,
    http.client.HTTPException,
)


def _said(error: Exception) -> str:
    return (
        " ".join(str(error).split()) or type(error).__name__
    )  # some say nothing, some say it in many lines


@contextmanager
def _reading(path: Path, remedy: str = "copy it again, or remove it to have it downloaded"):
    """Turn whatever a damaged or unexpected file makes its reader raise into a UserError."""
    try:
        yield
    except PermissionError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; make it readable (chmod +r)"
        ) from error
    except (
        Exception
    ) as error:  # numpy alone raises SyntaxError, TokenError and OverflowError on a damaged header
        raise UserError(f"cannot read {path}: {_said(error)}; {remedy}") from error


def _archive(name: str, folder: Path) -> Path:
    """The path of a set's archive: the one that lies in `folder`, else a fresh download, with its checksum tested."""
    address, sha256 = ARCHIVES[name]
    path = folder / address.rpartition("/")[2]
    if not os.path.exists(path):  # unlike Path.exists, False also for a name that is too long
        from torchvision.datasets.utils import download_url

        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(
                dir=folder
            ) as half_done:  # an interrupted download leaves no half archive
                download_url(address, half_done, path.name)
                os.replace(Path(half_done, path.name), path)
        except _DAMAGE as error:
            remedy = f"put {path.name} into {folder} yourself"
            raise UserError(f"cannot download {address} ({_said(error)}): {remedy}") from error
    if sha256 is not None:
        _check_digest(path, "sha256", sha256)
    return path


def _check_digest(path: Path, kind: str, expected: str) -> None:
    """Raise UserError where a file has another checksum."""
    with _reading(path), open(path, "rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    if found != expected:
        shown = {"md5": "MD5"}.get(kind, kind)
        raise UserError(
            f"{path} is not the file it should be (copy it again, or remove it to have it downloaded): "
            f"expected {shown} {expected}, found {found}"
        )


def _binary_table(
    name: str, folder: Path, *, rows: str, labels: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """x (N, D) uint8 and y (N,) from members of a .tgz: lines "0,1,..." and lines of labels, which count from 1.

    Without a member `labels` every row begins with its label, which may be quoted.
    """
    path, facts = _archive(name, folder), DATASETS[name].options
    (columns,), num_cls = facts["shape"], facts["num_cls"]
    x, y = bytearray(), []
    with _reading(path):
        for member, where, line in _lines(path, {rows, labels} - {None}):
            if member == labels:
                y.append(_label(line, num_cls, where))
                continue
            if labels is None:
                label, _, line = line.partition(b",")
                y.append(_label(label, num_cls, where))
            x += _cells(line, columns, where)
    x = np.frombuffer(x, dtype=np.uint8).reshape(-1, columns)
    x -= ord("0")  # in place: Texas has 415 MB of them
    return x, np.array(y, dtype=np.int64)


def _lines(path: Path, wanted: set[str]):
    """(member, "member, line 7", line) for every line of the wanted members of a .tgz.

    They are read as streams: nothing is unpacked to disk, whatever names and links are in the archive.
    """
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if name not in wanted or not member.isreg():
                continue
            wanted = wanted - {name}
            stream = archive.extractfile(member)
            lines = iter(
                lambda: stream.readline(1 << 20), b""
            )  # a limit, as a line of a broken file may be endless
            for number, line in enumerate(lines, start=1):
                yield name, f"{name}, line {number}", line.rstrip(b"\r\n")
        while archive.fileobj.read(1 << 20):  # to the end, where gzip tests its own checksum
            pass
    if wanted:
        raise ValueError(f"there is no file {min(wanted)} in it")


def _label(text: bytes, num_cls: int, where: str) -> int:
    text = text.strip(b'"')
    if not text.isdigit() or not 1 <= int(text) <= num_cls:
        raise ValueError(
            f"{where}: label {text[:20].decode(errors='replace')!r} is not one of 1..{num_cls}"
        )
    return int(text) - 1


def _cells(line: bytes, columns: int, where: str) -> bytes:
    """The characters 0 and 1 of a line; every one, and every comma between them, is one byte."""
    found, cells = line.count(b",") + 1, line[::2]
    if found != columns:
        raise ValueError(f"{where}: {found} columns of data, expected {columns}")
    if len(line) != 2 * columns - 1 or cells.strip(b"01"):
        raise ValueError(f"{where}: a value is neither 0 nor 1")
    return cells


def _torchvision(kind: str, folder: Path, address: str, files: str, *, inside: str = ""):
    """x and y of torchvision's data set `kind`, train part first; torchvision tests the checksums (MD5).

    Raises UserError where an archive that lies there is damaged, rather than have it replaced.
    """
    absent = [path for path in _archives(kind, folder) if not os.path.lexists(path)]
    try:
        try:
            parts = _parts(kind, folder, download=not _damaged(kind, folder))
        except BaseException:
            for path in set(absent) & set(_damaged(kind, folder)):  # a download that broke off
                path.unlink(missing_ok=True)
            raise
    except _DAMAGE as error:
        for path, md5 in _archives(kind, folder).items():
            if os.path.exists(path):
                _check_digest(path, "md5", md5)
        _check_unpacked(kind, folder)
        raise UserError(
            f"cannot download or read {kind} ({_said(error)}): "
            f"put {files} from {address} into {folder / inside} yourself"
        ) from error
    labels = [part.labels if kind == "SVHN" else part.targets for part in parts]
    return np.concatenate([np.asarray(part.data) for part in parts]), np.concatenate(
        [np.asarray(y) for y in labels]
    )


def _parts(kind: str, folder: Path, *, download: bool) -> list:
    """torchvision's train and test part."""
    from torchvision import datasets as vision

    which = (
        [{"split": "train"}, {"split": "test"}]
        if kind == "SVHN"
        else [{"train": True}, {"train": False}]
    )
    return [getattr(vision, kind)(folder, download=download, **part) for part in which]


def _archives(kind: str, folder: Path) -> dict[Path, str]:
    """The MD5 that each archive of torchvision's data set should have."""
    return {folder / name: md5 for name, md5 in TORCHVISION_MD5[kind].items()}


def _damaged(kind: str, folder: Path) -> list[Path]:
    """Those archives that lie there and are not what they should be."""
    damaged = []
    for path, md5 in _archives(kind, folder).items():
        if os.path.exists(path):
            try:
                _check_digest(path, "md5", md5)
            except UserError:
                damaged.append(path)
    return damaged


def _check_unpacked(kind: str, folder: Path) -> None:
    """Raise UserError where MNIST's unpacked files are damaged, which torchvision only tests for being there."""
    for name, expected in _MNIST_BYTES.items() if kind == "MNIST" else ():
        path = folder / "MNIST" / "raw" / name
        if os.path.isfile(path) and os.path.getsize(path) != expected:
            raise UserError(
                f"{path} is not the file it should be (remove it, to have it unpacked again from its "
                f"archive): expected {expected} bytes, found {os.path.getsize(path)}"
            )
