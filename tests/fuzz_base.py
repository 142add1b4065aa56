"""A command line, a config and a data set that are right, and a case of one that is not."""

import io
import json
import zipfile
from dataclasses import dataclass, field

import numpy as np
from helpers import table_arrays
from hypothesis import strategies as st

import mia
import pretrain
import prune
import quantize

STAGES = {"pretrain": pretrain, "prune": prune, "quantize": quantize, "mia": mia}

X, Y = table_arrays(n=60)

ROWS, COLUMNS = X.shape

CONFIG, DATA, MADE = (
    "../given/config.json",
    "../given/own.npz",
    "../made",
)  # as seen from the folder that stages run in

VALID = {
    "dataset_name": "tiny",
    "data_path": DATA,
    "model_name": "columnfc",
    "num_cls": 3,
    "input_dim": COLUMNS,
    "epochs": 1,
    "shadow_num": 1,
    "early_stop": 0,
    "workers": 1,
    "attacks": "threshold",
}
# what a stage cannot do without
NEEDS = {"quantize": {"quantizer": "int8", "quantize_epochs": 0}}

LEFT_OUT = object()


def npz(**arrays) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def npy(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def zipped(members: dict[str, bytes], method=zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(
                zipfile.ZipInfo(name), content, method
            )  # a ZipInfo: without the time of day
    return stream.getvalue()


def config(stage: str, /, **changes) -> bytes:
    """The valid config with keys changed. Models lie in `made` for the stages that read some, and
    pretrain.py would make a folder."""
    place = {} if stage == "pretrain" else {"results": MADE}
    options = VALID | place | NEEDS.get(stage, {}) | changes
    return json.dumps(
        {key: value for key, value in options.items() if value is not LEFT_OUT}
    ).encode()


@dataclass(frozen=True)
class Case:
    stage: str
    config: bytes
    argv: tuple[str, ...] = ("cpu", CONFIG)
    about: str = ""  # what is wrong with the data
    data: bytes = field(default=npz(x=X, y=Y), repr=False)


def cases(strategy):
    """A strategy of cases from a function(stage) -> strategy of their fields."""

    def made(stage):
        return strategy(stage).map(
            lambda fields: Case(**{"stage": stage, "config": config(stage)} | fields)
        )

    return st.sampled_from(list(STAGES)).flatmap(made)


def flipped(content: bytes, flips) -> bytes:
    content = bytearray(content)
    for at, bit in flips:
        content[at % len(content)] ^= 1 << bit
    return bytes(content)
