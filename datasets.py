"""Records in memory, by name or from a user's own file, and two ways to split them into roles.

Nothing but numpy is imported until records are asked for, so that `--help` lists the names at once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.console import UserError
from core.inputs import check_folder
from sources import DATASETS

if TYPE_CHECKING:
    import torch

__all__ = [
    "DATASETS",
    "SPLITS",
    "Records",
    "RoleSplit",
    "batches",
    "check_even",
    "dealt",
    "load",
    "split",
]


@dataclass(frozen=True, eq=False)
class Records:
    """A whole data set on one device, as bytes where it can be and normalised batch by batch.

    Attributes:
        x: images (N, C, H, W) uint8; tables (N, D) uint8 where all is 0 or 1, else float32.
        y: (N,) int64 in 0..num_cls-1.
        mean, std: of each channel, for pixels in 0..1; None for tables.
    """

    x: torch.Tensor
    y: torch.Tensor
    num_cls: int
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    _mean: torch.Tensor | None = field(init=False, repr=False)  # (C, 1, 1) on the device
    _std: torch.Tensor | None = field(init=False, repr=False)

    def __post_init__(self):
        import torch

        # Made once: a tensor built from Python numbers in every batch would make the host wait for
        # the GPU.
        for name, values in (("_mean", self.mean), ("_std", self.std)):
            column = None
            if values is not None:
                column = torch.tensor(values, device=self.x.device).view(-1, 1, 1)
            object.__setattr__(self, name, column)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one record: (C, H, W) or (D,)."""
        return tuple(self.x.shape[1:])

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device) -> Records:
        """The same on a device; images there are channels last, which convolutions are fastest
        on."""
        import torch

        x = self.x.to(device)
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return replace(self, x=x, y=self.y.to(device))

    def digest(self) -> str:
        """SHA-256 of all that tells these records from any others."""
        facts = (tuple(self.x.shape), str(self.x.dtype), self.num_cls, self.mean, self.std)
        digest = hashlib.sha256(repr(facts).encode())
        for tensor in (self.x, self.y):
            digest.update(tensor.contiguous().cpu().numpy().data)
        return digest.hexdigest()

    def batch(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The records at `indices` (B,): x (B, *shape) float32, y (B,), on the device of the data.

        Indices (K, B) give x (K, B, *shape) and y (K, B). Images become (x / 255 - mean) / std, in
        the order of torchvision's ToTensor and Normalize: the same floats.
        """
        indices = indices.to(self.x.device, non_blocking=True)
        flat = indices.flatten()
        # a copy, so that the steps below may work in place; of whole rows in memory where images
        # are channels last
        if self.x.dim() == 4:
            x = self.x.permute(0, 2, 3, 1).index_select(0, flat).permute(0, 3, 1, 2).float()
        else:
            x = self.x.index_select(0, flat).float()
        if self._mean is not None and self._std is not None:
            x = x.div_(255).sub_(self._mean).div_(self._std)
        return x.view(*indices.shape, *self.shape), self.y[indices]


def load(name: str, *, data_path=None, data_root, num_cls: int, input_dim: int) -> Records:
    """All records of a data set: its train part, then its test part, where it comes in two.

    Args:
        data_path: a user's own .npz file (see `sources.npz`), in place of the named set.
        data_root: the folder of the named sets; each lies, or is downloaded to, `data_root/name/`.
        num_cls: the number of classes; a named set has only one that is right.
        input_dim: channels of an image or columns of a table; for images also C*H*W, as columnfc
            flattens them.
    Raises:
        UserError: the set is not there and cannot be downloaded, is damaged, or does not fit
            num_cls or input_dim.
    """
    if data_path:
        from sources.npz import read_npz

        source = str(data_path)
        x, y = read_npz(Path(data_path), input_dim=input_dim)
        _check_width(x.shape[1:], input_dim, source)
        mean = std = (0.5,) * x.shape[1] if x.ndim == 4 else None
    else:
        source, facts = f"data set {name!r}", DATASETS[name].options
        if num_cls != facts["num_cls"]:
            raise UserError(f"{source} has {facts['num_cls']} classes, but num_cls is {num_cls}")
        # before a download that would be for nothing
        _check_width(facts["shape"], input_dim, source)
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
            f"{source} has label {outside[0]}; with num_cls {num_cls} labels run from 0 to "
            f"{num_cls - 1}"
        )
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(x))
    return Records(tensor, torch.from_numpy(y.astype(np.int64)), num_cls, mean, std)


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
    """The records of one role: indices into the whole data set, int64.

    Attributes:
        train: members of its model.
        dev: records for early stopping.
        test: non-members.
    """

    train: np.ndarray
    dev: np.ndarray
    test: np.ndarray


SPLITS = ("paper", "inout")


_LEAST = 11  # records of a role: 5 for test leave 6, and of 6 dev gets ceil(1.09) = 2


def split(
    n: int, *, seed: int, shadow_num: int, kind: str = "paper", attacker_records: float = 1.0
) -> dict[str, RoleSplit]:
    """A split of n records: role ("victim", "shadow_0", ...) -> its train, dev and test indices.

    A split of fewer shadows is the beginning of one of more.

    Args:
        attacker_records: the share of the attacker's half that shadows are dealt, of the paper's
            split. A smaller share is part of a larger one; the victim's records are the same.
    Raises:
        UserError: a part would have fewer than 2 records, or `attacker_records` has no meaning.
    """
    if n < 2 * _LEAST:
        raise UserError(
            f"{n} records are too few to split: at least {2 * _LEAST} are needed for 2 in every part"
        )
    check_share(kind, attacker_records)
    if kind == "inout":
        return _inout_split(n, seed, shadow_num)
    return _paper_split(n, seed, shadow_num, attacker_records)


def check_share(kind: str, attacker_records: float) -> None:
    """Raise UserError where shadows of this kind of split cannot be dealt a share of the records."""
    if kind == "inout" and attacker_records < 1:
        raise UserError(
            "in the in/out split shadow models are dealt the victim's own records: "
            "--attacker_records, a share of others, is for --split paper"
        )


def dealt(n: int, attacker_records: float) -> int:
    """How many of n records the victim and shadows have that are dealt this share of the attacker's
    half."""
    victim = n // 2
    return victim + int(attacker_records * (n - victim) + 1e-9)  # 0.29 of 100 are 29


def check_even(shadow_num: int) -> None:
    """Raise UserError where the in/out split can't be of so many shadows."""
    if shadow_num % 2:
        raise UserError(
            f"in the in/out split each record is a member of exactly half of the shadow models: "
            f"--shadow_num must be even, not {shadow_num}"
        )


def _inout_split(n: int, seed: int, shadow_num: int) -> dict[str, RoleSplit]:
    """For online attacks: each record, the victim's too, is a member of half of the shadow models.

    A tenth of the records is every model's dev. Of the others, two shadows at a time take the two
    halves of a random order, so that each record is IN exactly half of an even number of shadows,
    and OUT of the others. The victim's members are a random half drawn apart from the shadows':
    else the number of shadows that a record is IN would tell. (Carlini et al., S&P 2022, section
    VI, balance by record; by pairs, the models are of one size too.)
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


def _paper_split(
    n: int, seed: int, shadow_num: int, attacker_records: float
) -> dict[str, RoleSplit]:
    """The paper's: shadow models never see the victim's records.

    One half is the victim's. All shadows draw from the other, shadow i with seed + i. Of each half
    45 % are train, 10 % dev, 45 % test (Yuan & Zhang, USENIX Security 2022; not stratified). With
    a share of the attacker's half, which the paper does not take, it is the first of that half,
    whose order is random.
    """
    from sklearn.model_selection import train_test_split

    def role(half: np.ndarray, seed: int) -> RoleSplit:
        train, test = train_test_split(half, test_size=0.45, random_state=seed)
        train, dev = train_test_split(train, test_size=0.1818, random_state=seed)
        return RoleSplit(train, dev, test)

    victim, attacker = train_test_split(
        np.arange(n, dtype=np.int64), test_size=0.5, random_state=seed
    )
    number = dealt(n, attacker_records) - len(victim)
    if number < _LEAST:
        least = math.ceil(1e6 * _LEAST / len(attacker)) / 1e6
        raise UserError(
            f"--attacker_records {attacker_records:g} leaves {number} of {len(attacker)} records to "
            f"the shadow models, which need {_LEAST} for 2 in every part: give {least:g} or more"
        )
    attacker = attacker[:number]
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
