"""Single computations beside the obvious algorithm: threshold search, private step, SAMIA's
step."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import numpy as np
import torch

import models
from attackers.calibration import best_threshold
from benchmarks.rates import COLUMNS, IMAGE
from benchmarks.timing import Part, milliseconds, number, ratio, seconds
from core.console import table
from core.devices import choose_device
from core.parallel import available_cores
from defenders.dp import clipped_sum, clipped_sum_loop
from defenders.noise import SecretStream, SeededStream, normals
from models.layers import Dropout, initialise, seed_dropout
from transformer import SelfAttentionAttack


def quadratic_threshold(members: np.ndarray, others: np.ndarray) -> float:
    """Tries every value as the threshold, and counts anew for each; for as many members as
    others."""
    values = np.concatenate([members, others])
    quality = [
        np.count_nonzero(members >= value) + np.count_nonzero(others < value) for value in values
    ]
    return float(values[int(np.argmax(quality))])


def threshold(
    device: str, *, sizes=(10**3, 10**4, 10**5, 10**6), quadratic_up_to: int = 10**5
) -> list[dict]:
    """A row a number of records; `device` is left alone, as the search runs on the CPU."""
    rows = []
    for n in sizes:
        draw = np.random.default_rng(n)
        members, others = draw.normal(0.5, 1, n // 2), draw.normal(0, 1, n // 2)
        start = time.perf_counter()
        value = best_threshold(members, others)
        row = {"records": n, "seconds": time.perf_counter() - start, "quadratic_seconds": None}
        if n <= quadratic_up_to:
            start = time.perf_counter()
            expected = quadratic_threshold(members, others)
            row["quadratic_seconds"] = time.perf_counter() - start
            if value != expected:
                raise SystemExit(f"the searches disagree for {n} records: {value}, {expected}")
        rows.append(row)
    return rows


def private(
    device: str, *, cases=(("columnfc", 128), ("resnet18", 8), ("vgg16bn", 8)), repeats: int = 5
) -> list[dict]:
    """Seconds of a batch's sum of clipped gradients and of a step's noise, the fastest of some; on
    one thread."""
    torch.set_num_threads(1)
    where, rows = choose_device(device), []
    for name, size in cases:
        shape = COLUMNS if name == "columnfc" else IMAGE
        network = models.build(name, shape=shape, num_cls=10, generator=torch.Generator()).to(where)
        if name == "columnfc":
            # Opacus sees records in training mode only, torch.func knows none of our generators
            layers = [layer for layer in network.children() if not isinstance(layer, Dropout)]
            network = torch.nn.Sequential(*layers)
        else:
            network.eval()
        x, y = torch.rand(size, *shape, device=where), torch.randint(10, (size,), device=where)
        weights = sum(parameter.numel() for parameter in network.parameters()) * 3 // 10
        ways = {
            "seconds": lambda: clipped_sum(network, x, y, max_grad_norm=1.0),
            "one_by_one": lambda: clipped_sum_loop(network, list(network.parameters()), x, y, 1.0),
            "torch_func": _with_torch_func(network, x, y),
            "secret_noise": lambda: normals(SecretStream(), weights),
            "seeded_noise": lambda: normals(SeededStream(bytes(16)), weights),
            "torch_noise": lambda: torch.randn(weights),
        }
        if name == "columnfc":
            ways["opacus"] = _with_opacus(network, x, y)
        times = {way: min(seconds(run, where) for _ in range(repeats)) for way, run in ways.items()}
        row = {"network": name, "records": size, "opacus": None, "kept_weights": weights}
        rows.append(row | times)
    return rows


def _with_torch_func(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable:
    """Each record's gradient by torch.func, clipped to 1 and summed."""
    named, buffers = dict(network.named_parameters()), dict(network.named_buffers())

    def loss_of_one(parameters, record, label):
        logits = torch.func.functional_call(network, (parameters, buffers), (record[None],))
        return torch.nn.functional.cross_entropy(logits, label[None])

    each = torch.func.vmap(torch.func.grad(loss_of_one), in_dims=(None, 0, 0))
    return lambda: _clipped(list(each(named, x, y).values()))


def _with_opacus(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable:
    """Each record's gradient by Opacus, clipped to 1 and summed."""
    from opacus import GradSampleModule

    twin = GradSampleModule(copy.deepcopy(network), loss_reduction="sum")

    def run():
        twin.zero_grad()
        torch.nn.functional.cross_entropy(twin(x), y, reduction="sum").backward()
        return _clipped([parameter.grad_sample for parameter in twin.parameters()])

    return run


def samia(device: str, *, classes=(10, 30, 100), steps: int = 30) -> list[dict]:
    """Seconds of a step on a batch of 128: median over `steps`, after a tenth as many to warm
    up."""
    where, rows = choose_device(device), []
    draw = torch.Generator().manual_seed(0)
    for num_cls in classes:
        x = torch.rand(128, num_cls, 3, generator=draw).to(where)
        y = torch.randint(2, (128,), generator=draw).to(where)
        row: dict = {"classes": num_cls, "slices": None}
        for way, threads in (("slices", 1), ("whole", available_cores())):
            if way == "slices" and where.type != "cpu":
                continue
            torch.set_num_threads(threads)
            step = _samia_step(x, y, whole=way == "whole")
            times = [seconds(step, where) for _ in range(steps + steps // 10)][steps // 10 :]
            row[way] = float(np.median(times))
        rows.append(row)
    return rows


def _samia_step(x: torch.Tensor, y: torch.Tensor, *, whole: bool) -> Callable:
    """A step of a fresh network on these tokens (B, C, 3); `whole` without slices."""
    network = SelfAttentionAttack(num_cls=x.shape[1])
    initialise(network, torch.Generator().manual_seed(0))
    network.to(x.device)
    seed_dropout(network, seed=0)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)

    def step():
        optimizer.zero_grad()
        tokens = network.norm(x.flatten(1)).view(x.shape) if whole else x
        logits = network.of_tokens(tokens) if whole else network(x)
        torch.nn.functional.cross_entropy(logits, y).backward()
        optimizer.step()

    return step


def _clipped(gradients: list[torch.Tensor]) -> list[torch.Tensor]:
    """Sums over records of gradients (n, ...), each record's clipped to norm 1."""
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    return [torch.einsum("i,i...", (1 / norms).clamp(max=1), gradient) for gradient in gradients]


def show_threshold(rows: list[dict]) -> None:
    """Print the rows of `threshold`."""
    cells = [
        [
            f"{row['records']:,}",
            number(row["seconds"]),
            number(row["quadratic_seconds"]),
            ratio(row["quadratic_seconds"], row["seconds"]),
        ]
        for row in rows
    ]
    table("threshold search: seconds", ["records", "one sort", "every pair", "ratio"], cells)


def show_private(rows: list[dict]) -> None:
    """Print the rows of `private`."""
    ways = ("seconds", "one_by_one", "torch_func", "opacus")
    table(
        "clipped gradients of a batch: milliseconds",
        ["network", "records", "ours", "one by one", "torch.func", "Opacus"],
        [
            [row["network"], str(row["records"]), *(milliseconds(row[way]) for way in ways)]
            for row in rows
        ],
    )
    noises = ("secret_noise", "seeded_noise", "torch_noise")
    table(
        "noise of a step: milliseconds",
        ["network", "weights kept", "secret", "seeded", "torch.randn"],
        [
            [
                row["network"],
                f"{row['kept_weights']:,}",
                *(milliseconds(row[way]) for way in noises),
            ]
            for row in rows
        ],
    )


def show_samia(rows: list[dict]) -> None:
    """Print the rows of `samia`."""
    cells = [
        [
            str(row["classes"]),
            milliseconds(row["slices"]),
            milliseconds(row["whole"]),
            ratio(row["whole"], row["slices"]),
        ]
        for row in rows
    ]
    header = ["classes", "in slices", "whole batch", "ratio"]
    table("a step of SAMIA, batch of 128: milliseconds", header, cells)


PARTS = {
    "threshold": Part(threshold, show_threshold, {"sizes": (100, 1000)}),
    "private": Part(private, show_private, {"cases": (("columnfc", 16),), "repeats": 1}),
    "samia": Part(samia, show_samia, {"classes": (3,), "steps": 2}),
}
