"""Records a second of training and of queries, beside plain PyTorch with a DataLoader."""

from __future__ import annotations

import multiprocessing
import warnings

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import models
from base_model import BaseModel, TrainConfig, TrainSet
from benchmarks.timing import Part, number, rate, ratio
from core.console import table
from core.devices import choose_device, choose_precision
from core.parallel import available_cores, parallel_map
from datasets import Records
from models.layers import seed_dropout

IMAGE, COLUMNS = (3, 32, 32), (446,)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


class Plain(Dataset):
    """Records one by one, as torchvision's data sets give them."""

    def __init__(self, x: np.ndarray, y: np.ndarray):
        from torchvision import transforms

        self.x, self.y = x, y
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        )

    def __len__(self):
        return len(self.y)

    def __getitem__(self, number):
        from PIL import Image

        x = self.x[number]
        if x.ndim == 1:
            return torch.from_numpy(x).float(), int(self.y[number])
        return self.transform(Image.fromarray(x)), int(self.y[number])


def plain_rates(
    name: str, x: np.ndarray, y: np.ndarray, device: torch.device, num_cls: int
) -> tuple[float, float]:
    """Records a second of training and of sensitivity queries, as a user of plain PyTorch would
    write them."""
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    torch.set_num_threads(available_cores())
    shape = IMAGE if x.ndim == 4 else x.shape[1:]
    network = models.build(name, shape=shape, num_cls=num_cls, generator=torch.Generator()).to(
        device
    )
    seed_dropout(network, seed=0)
    loader = DataLoader(
        Plain(x, y),
        batch_size=128,
        shuffle=True,
        num_workers=4,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=5e-4)
    loss_of = torch.nn.CrossEntropyLoss()

    def train():
        network.train()
        total = 0.0
        for inputs, labels in loader:
            inputs, labels = inputs.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = loss_of(network(inputs), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()

    def query():
        network.eval()
        with torch.no_grad():
            for inputs, _ in loader:
                inputs = inputs.to(device)
                posterior = torch.softmax(network(inputs), dim=1)
                noisy = [
                    torch.softmax(network(inputs + 1e-3 * torch.randn_like(inputs)), dim=1)
                    for _ in range(10)
                ]
                (torch.stack([(p - posterior).abs() for p in noisy]).mean(dim=0) / 1e-3).cpu()

    return rate(train, len(y), device), rate(query, len(y), device)


def our_rates(
    name: str, x: np.ndarray, y: np.ndarray, device: torch.device, num_cls: int
) -> tuple[float, float]:
    """The same by this code: on a CPU a model on each core, on a GPU one. Summed over the
    models."""
    images = x.ndim == 4
    records = Records(
        torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2) if images else x)),
        torch.from_numpy(y),
        num_cls,
        MEAN if images else None,
        STD if images else None,
    ).to("cpu")

    workers = available_cores() if device.type == "cpu" else 1
    together = multiprocessing.get_context("fork").Barrier(workers)

    def measure(_, progress):
        data = records.to(device)
        network = models.build(name, shape=data.shape, num_cls=num_cls, generator=torch.Generator())
        model = BaseModel(
            network,
            device=device,
            generator=torch.Generator(),
            precision=choose_precision(None, device, convolves=images),
        )
        rows = torch.arange(len(data), device=device)
        draw = torch.Generator(device).manual_seed(0)
        runs = (
            lambda: model.train(TrainSet(data, rows), TrainConfig(epochs=1), generator=draw),
            lambda: model.sensitivity(data, rows, generator=draw),
        )
        return [rate(run, len(y), device, together) for run in runs]

    names = [str(number) for number in range(workers)]
    each = dict(parallel_map(measure, names, workers=max(2, workers))).values()
    trained, queried = (sum(rates) for rates in zip(*each))
    return trained, queried


def training(
    device: str, *, tables: int = 20_000, images: int | None = None, names=tuple(models.MODELS)
) -> list[dict]:
    """A row a network: so many records of random tables or images, by this code and by plain
    PyTorch."""
    where = choose_device(device)
    images = images or (256 if where.type == "cpu" else 25_600)
    draw = np.random.default_rng(0)
    rows = []
    for name in names:
        if models.MODELS[name].options["smallest"]:
            x, num_cls = draw.integers(256, size=(images, 32, 32, 3), dtype=np.uint8), 10
        else:
            x, num_cls = draw.integers(2, size=(tables, *COLUMNS), dtype=np.uint8), 30
        y = draw.integers(num_cls, size=len(x))
        ours = our_rates(name, x, y, where, num_cls)
        _, plain = next(
            parallel_map(  # in a process, too: this one stays fit to fork
                lambda *_: plain_rates(name, x, y, where, num_cls), ["plain"], workers=2
            )
        )
        row = {"network": name, "records": len(x), "train": ours[0], "train_plain": plain[0]}
        rows.append(row | {"queries": ours[1], "queries_plain": plain[1]})
    return rows


def show_training(rows: list[dict]) -> None:
    """Print the rows of `training`."""
    cells = []
    for row in rows:
        cells.append([row["network"]])
        for kind in ("train", "queries"):
            ours, plain = row[kind], row[f"{kind}_plain"]
            cells[-1] += [number(ours), number(plain), ratio(ours, plain)]
    header = ["network", "training", "plain", "ratio", "queries", "plain", "ratio"]
    table("training: records a second", header, cells)


PARTS = {"training": Part(training, show_training, {"names": ("columnfc",), "tables": 512})}
