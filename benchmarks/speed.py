"""How fast this code is on this machine, beside plain PyTorch and the obvious algorithms.

    python benchmarks/speed.py cpu
    python benchmarks/speed.py 0 --parts training,shadows

Appends a JSON line with the machine's description to --out and prints it as tables. Parts:

    training   records a second of training and of queries, each network, against a DataLoader with 4 workers
    location   wall time of pretrain, prune and mia on Location (which must be there or can be downloaded)
    threshold  the threshold search against one that tries every pair
    private    clipped gradients of DP-SGD, against torch.func and Opacus, which write out each record's; and the
               noise of a step at sparsity 0.7, secret and seeded, against torch's generator
    samia      a step of SAMIA's network in training: on the CPU in slices on all cores, against the whole batch with
               torch's own threads; on a GPU the whole batch
    shadows    time and peak memory of pretrain on Location with 1 to 256 shadow models
"""

import argparse
import copy
import datetime
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import models
from attackers.calibration import best_threshold
from base_model import BaseModel, TrainConfig, TrainSet
from core.console import table
from core.devices import choose_device, choose_precision
from core.parallel import available_cores, parallel_map, tune_malloc
from datasets import Records
from defenders.dp import clipped_sum, clipped_sum_loop
from defenders.noise import SecretStream, SeededStream, normals
from models.layers import Dropout
from transformer import SelfAttentionAttack

IMAGE, COLUMNS = (3, 32, 32), (446,)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def machine(device: str) -> dict:
    info = Path("/proc/cpuinfo")
    names = (
        [
            line.partition(": ")[2]
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        if info.exists()
        else [platform.processor()]
    )
    place = choose_device(device)
    gpu = _gpu_name(place.index) if place.type == "cuda" else None
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": names[0],
        "cores": available_cores(),
        "gpu": gpu,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _gpu_name(index: int) -> str:
    """Asked of the driver's tool, since a process that has used CUDA can't fork."""
    command = ["nvidia-smi", f"--id={index}", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


# ---- training and queries --------------------------------------------------------------------------------------------


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
    """Records a second of training and of sensitivity queries, as a user of plain PyTorch would write them."""
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    torch.set_num_threads(available_cores())
    shape = IMAGE if x.ndim == 4 else x.shape[1:]
    network = models.build(name, shape=shape, num_cls=num_cls, generator=torch.Generator()).to(
        device
    )
    models.layers.seed_dropout(network, seed=0)
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

    def ask():
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

    return _rate(train, len(y), device), _rate(ask, len(y), device)


def our_rates(
    name: str, x: np.ndarray, y: np.ndarray, device: torch.device, num_cls: int
) -> tuple[float, float]:
    """The same by this code: on a CPU a model on each core, on a GPU one. Summed over the models."""
    images = {"mean": MEAN, "std": STD} if x.ndim == 4 else {}
    records = Records(
        torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2) if images else x)),
        torch.from_numpy(y),
        num_cls,
        **images,
    ).to("cpu")

    workers = available_cores() if device.type == "cpu" else 1
    together = multiprocessing.get_context("fork").Barrier(workers)

    def measure(_, progress):
        here = records.to(device)
        network = models.build(name, shape=here.shape, num_cls=num_cls, generator=torch.Generator())
        model = BaseModel(
            network,
            device=device,
            generator=torch.Generator(),
            precision=choose_precision(None, device, convolves=bool(images)),
        )
        rows = torch.arange(len(here), device=device)
        draw = torch.Generator(device).manual_seed(0)
        runs = (
            lambda: model.train(TrainSet(here, rows), TrainConfig(epochs=1), generator=draw),
            lambda: model.sensitivity(here, rows, generator=draw),
        )
        return [_rate(run, len(y), device, together) for run in runs]

    names = [str(number) for number in range(workers)]
    return tuple(
        map(sum, zip(*dict(parallel_map(measure, names, workers=max(2, workers))).values()))
    )


def _rate(run, count: int, device: torch.device, together=None) -> float:
    """Records a second of the second of two runs, which begins when all processes are ready for it."""
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if together is not None:
        together.wait()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return count / (time.perf_counter() - start)


def training(
    device: str, *, tables: int = 20_000, images: int | None = None, names=tuple(models.MODELS)
) -> list[dict]:
    place = choose_device(device)
    images = images or (256 if place.type == "cpu" else 25_600)
    draw = np.random.default_rng(0)
    rows = []
    for name in names:
        if models.MODELS[name].options["smallest"]:
            x, num_cls = draw.integers(256, size=(images, 32, 32, 3), dtype=np.uint8), 10
        else:
            x, num_cls = draw.integers(2, size=(tables, *COLUMNS), dtype=np.uint8), 30
        y = draw.integers(num_cls, size=len(x))
        ours = our_rates(name, x, y, place, num_cls)
        _, plain = next(
            parallel_map(  # in a process, too: this one stays fit to fork
                lambda *_: plain_rates(name, x, y, place, num_cls), ["plain"], workers=2
            )
        )
        rows.append(
            {
                "network": name,
                "records": len(x),
                "train": ours[0],
                "train_plain": plain[0],
                "queries": ours[1],
                "queries_plain": plain[1],
            }
        )
    return rows


# ---- the threshold search --------------------------------------------------------------------------------------------


def quadratic_threshold(members: np.ndarray, others: np.ndarray) -> float:
    """Tries every value as the threshold, and counts anew for each; for as many members as others."""
    values = np.concatenate([members, others])
    quality = [
        np.count_nonzero(members >= value) + np.count_nonzero(others < value) for value in values
    ]
    return float(values[int(np.argmax(quality))])


def threshold(
    device: str, *, sizes=(10**3, 10**4, 10**5, 10**6), quadratic_up_to: int = 10**5
) -> list[dict]:
    rows = []
    for n in sizes:
        draw = np.random.default_rng(n)
        members, others = draw.normal(0.5, 1, n // 2), draw.normal(0, 1, n // 2)
        start = time.perf_counter()
        found = best_threshold(members, others)
        row = {"records": n, "seconds": time.perf_counter() - start, "quadratic_seconds": None}
        if n <= quadratic_up_to:
            start = time.perf_counter()
            expected = quadratic_threshold(members, others)
            row["quadratic_seconds"] = time.perf_counter() - start
            if found != expected:
                raise SystemExit(f"the searches disagree for {n} records: {found} and {expected}")
        rows.append(row)
    return rows


# ---- private gradients -----------------------------------------------------------------------------------------------


def private(
    device: str, *, cases=(("columnfc", 128), ("resnet18", 8)), repeats: int = 5
) -> list[dict]:
    """Seconds of a batch's sum of clipped gradients and of a step's noise, the fastest of some; on one thread."""
    from opacus import GradSampleModule

    torch.set_num_threads(1)
    place, rows = choose_device(device), []
    for name, size in cases:
        shape = IMAGE if name == "resnet18" else COLUMNS
        network = models.build(name, shape=shape, num_cls=10, generator=torch.Generator()).to(place)
        if (
            name == "columnfc"
        ):  # Opacus sees records in training mode only, torch.func knows no generator of ours
            network = torch.nn.Sequential(
                *(layer for layer in network if not isinstance(layer, Dropout))
            )
        else:
            network.eval()
        x, y = torch.rand(size, *shape, device=place), torch.randint(10, (size,), device=place)
        named, buffers = dict(network.named_parameters()), dict(network.named_buffers())

        def loss_of_one(parameters, record, label):
            logits = torch.func.functional_call(network, (parameters, buffers), (record[None],))
            return torch.nn.functional.cross_entropy(logits, label[None])

        each = torch.func.vmap(torch.func.grad(loss_of_one), in_dims=(None, 0, 0))
        ways = {
            "seconds": lambda: clipped_sum(network, x, y, max_grad_norm=1.0),
            "one_by_one": lambda: clipped_sum_loop(network, list(named.values()), x, y, 1.0),
            "torch_func": lambda: _clipped(list(each(named, x, y).values())),
        }
        if name == "columnfc":
            twin = GradSampleModule(copy.deepcopy(network), loss_reduction="sum")

            def of_opacus():
                twin.zero_grad()
                torch.nn.functional.cross_entropy(twin(x), y, reduction="sum").backward()
                return _clipped([parameter.grad_sample for parameter in twin.parameters()])

            ways["opacus"] = of_opacus
        weights = sum(parameter.numel() for parameter in named.values()) * 3 // 10
        streams = {"secret": SecretStream(), "seeded": SeededStream(bytes(16))}
        ways |= {
            f"{noise}_noise": lambda stream=stream: normals(stream, weights)
            for noise, stream in streams.items()
        }
        ways["torch_noise"] = lambda: torch.randn(weights)
        rows.append(
            {"network": name, "records": size, "opacus": None, "kept_weights": weights}
            | {way: min(_seconds(run, place) for _ in range(repeats)) for way, run in ways.items()}
        )
    return rows


def samia(device: str, *, classes=(10, 30, 100), steps: int = 30) -> list[dict]:
    """Seconds of a step on a batch of 128: median over `steps`, after a tenth as many to warm up."""
    place, rows = choose_device(device), []
    draw = torch.Generator().manual_seed(0)
    for num_cls in classes:
        x = torch.rand(128, num_cls, 3, generator=draw).to(place)
        y = torch.randint(2, (128,), generator=draw).to(place)
        row: dict = {"classes": num_cls}
        for way, threads in (("slices", 1), ("whole", available_cores())):
            network = SelfAttentionAttack(num_cls=num_cls)
            models.layers.initialise(network, torch.Generator().manual_seed(0))
            network.to(place)
            models.layers.seed_dropout(network, seed=0)
            tokens = (
                network
                if way == "slices"
                else lambda x, network=network: network.of_tokens(
                    network.norm(x.flatten(1)).view(x.shape)
                )
            )
            optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
            torch.set_num_threads(threads)

            def step(tokens=tokens, optimizer=optimizer, x=x, y=y):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(tokens(x), y).backward()
                optimizer.step()

            times = [_seconds(step, place) for _ in range(steps + steps // 10)][steps // 10 :]
            row[way] = float(np.median(times)) if way == "whole" or place.type == "cpu" else None
        rows.append(row)
    return rows


def _clipped(gradients: list[torch.Tensor]) -> list[torch.Tensor]:
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    return [torch.einsum("i,i...", (1 / norms).clamp(max=1), gradient) for gradient in gradients]


def _seconds(run, place: torch.device) -> float:
    start = time.perf_counter()
    run()
    if place.type == "cuda":
        torch.cuda.synchronize(place)
    return time.perf_counter() - start


# ---- whole stages ----------------------------------------------------------------------------------------------------


def stage(
    name: str, device: str, results: str, *words: str, progress: bool = False
) -> tuple[float, int | None]:
    """Run a stage on Location; returns wall seconds and, if asked to `progress` it, which takes time, the peak of its
    processes' memory in bytes."""
    command = [
        sys.executable,
        PROJECT / f"{name}.py",
        device,
        PROJECT / "config/location.json",
        "--results",
        results,
    ]
    start = time.perf_counter()
    process = subprocess.Popen([*command, *words], stdout=subprocess.DEVNULL)
    memory = _Memory(process.pid) if progress else None
    if process.wait() != 0:
        raise SystemExit(f"{name}.py failed on Location")
    return time.perf_counter() - start, memory.peak() if memory else None


class _Memory(threading.Thread):
    """Watches the memory of a process and its children, shared pages divided among them (Linux only)."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.pid, self.most, self.over = pid, 0, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(1.0):
            self.most = max(self.most, sum(map(self._own, [self.pid, *self._children(self.pid)])))

    def peak(self) -> int | None:
        self.over.set()
        self.join()
        return self.most or None

    def _children(self, pid: int) -> list[int]:
        try:
            return [
                int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            ]
        except OSError:
            return []

    def _own(self, pid: int) -> int:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            return 0
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def location(
    device: str, *, attack_lists=("threshold", "samia", "samia,threshold,nn,nn_top3,nn_cls")
) -> list[dict]:
    with tempfile.TemporaryDirectory() as results:
        seconds = {name: stage(name, device, results)[0] for name in ("pretrain", "prune")}
        for attacks in attack_lists:
            seconds[f"mia --attacks {attacks}"] = stage(
                "mia", device, results, "--attacks", attacks, "--fresh"
            )[0]
    return [{"stage": name, "seconds": value} for name, value in seconds.items()]


def shadows(device: str, *, counts=(1, 4, 16, 64, 256)) -> list[dict]:
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory() as results:
            seconds, memory = stage(
                "pretrain", device, results, "--shadow_num", str(count), progress=True
            )
        rows.append({"shadow_models": count, "seconds": seconds, "peak_memory": memory})
    return rows


PARTS = {
    "training": training,
    "threshold": threshold,
    "private": private,
    "samia": samia,
    "shadows": shadows,
    "location": location,
}
QUICK = {
    "training": {"names": ("columnfc",), "tables": 512},
    "threshold": {"sizes": (100, 1000)},
    "private": {"cases": (("columnfc", 16),), "repeats": 1},
    "samia": {"classes": (3,), "steps": 2},
    "shadows": {"counts": (1,)},
    "location": {"attack_lists": ("threshold",)},
}


def show(part: str, rows: list[dict]) -> None:
    number = lambda value: (
        "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    )
    ratio = lambda a, b: "-" if a is None or b is None else f"{number(a / b)} x"
    if part == "training":
        table(
            "training: records a second",
            ["network", "training", "plain", "ratio", "queries", "plain", "ratio"],
            [
                [
                    row["network"],
                    number(row["train"]),
                    number(row["train_plain"]),
                    ratio(row["train"], row["train_plain"]),
                    number(row["queries"]),
                    number(row["queries_plain"]),
                    ratio(row["queries"], row["queries_plain"]),
                ]
                for row in rows
            ],
        )
    elif part == "threshold":
        table(
            "threshold search: seconds",
            ["records", "one sort", "every pair", "ratio"],
            [
                [
                    f"{row['records']:,}",
                    number(row["seconds"]),
                    number(row["quadratic_seconds"]),
                    ratio(row["quadratic_seconds"], row["seconds"]),
                ]
                for row in rows
            ],
        )
    elif part == "private":
        table(
            "clipped gradients of a batch: milliseconds",
            ["network", "records", "ours", "one by one", "torch.func", "Opacus"],
            [
                [
                    row["network"],
                    str(row["records"]),
                    *(
                        number(row[way] and 1000 * row[way])
                        for way in ("seconds", "one_by_one", "torch_func", "opacus")
                    ),
                ]
                for row in rows
            ],
        )
        table(
            "noise of a step: milliseconds",
            ["network", "weights kept", "secret", "seeded", "torch.randn"],
            [
                [
                    row["network"],
                    f"{row['kept_weights']:,}",
                    *(
                        number(1000 * row[way])
                        for way in ("secret_noise", "seeded_noise", "torch_noise")
                    ),
                ]
                for row in rows
            ],
        )
    elif part == "samia":
        table(
            "a step of SAMIA, batch of 128: milliseconds",
            ["classes", "in slices", "whole batch", "ratio"],
            [
                [
                    str(row["classes"]),
                    number(row["slices"] and 1000 * row["slices"]),
                    number(1000 * row["whole"]),
                    ratio(row["whole"], row["slices"]),
                ]
                for row in rows
            ],
        )
    elif part == "location":
        table(
            "Location, 5 shadow models",
            ["stage", "seconds"],
            [[row["stage"], number(row["seconds"])] for row in rows],
        )
    else:
        first = rows[0]
        table(
            "pretrain on Location",
            ["shadow models", "seconds", "times one", "peak memory, MiB"],
            [
                [
                    str(row["shadow_models"]),
                    number(row["seconds"]),
                    ratio(row["seconds"], first["seconds"]),
                    number(row["peak_memory"] and row["peak_memory"] / 2**20),
                ]
                for row in rows
            ],
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("device", help="as for the stages: a GPU's number or cpu")
    parser.add_argument("--parts", default=",".join(PARTS), help="default: all")
    parser.add_argument(
        "--quick", action="store_true", help="training of columnfc only, little data: to see it run"
    )
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks" / "speed.jsonl")
    args = parser.parse_args()
    unknown = set(args.parts.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {min(unknown)!r}: choose from {', '.join(PARTS)}")
    tune_malloc()
    line = machine(args.device)
    print(", ".join(f"{name} {value}" for name, value in line.items() if value is not None))
    for part in args.parts.split(","):
        line[part] = PARTS[part](args.device, **(QUICK[part] if args.quick else {}))
        show(part, line[part])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(f"\nsaved {os.path.relpath(args.out)}")


if __name__ == "__main__":
    main()
