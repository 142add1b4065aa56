"""Whatever is wrong in a config, a data set or a command line: one line says so, and nothing is written."""

import io
import json
import math
import pickle
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from helpers import PROJECT, table_arrays
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mia
import pretrain
import prune
from attackers import ATTACKS
from bench.options import OPTIONS
from defenders import DEFENDERS
from models import MODELS
from pruner import PRUNERS

STAGES = {"pretrain": pretrain, "prune": prune, "mia": mia}
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
    """The valid config with keys changed. Models lie in `made` for the stages that read some, and pretrain.py would
    make a folder."""
    options = VALID | ({} if stage == "pretrain" else {"results": MADE}) | changes
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


# ---- values that no option of a kind takes, as a config may hold them ------------------------------------------------

wordless = st.text(
    st.characters(exclude_categories=["Nd"]), max_size=20
)  # float() reads digits of any script
nests = st.one_of(
    st.lists(st.none() | st.integers() | wordless, max_size=3),
    st.dictionaries(wordless, st.none() | st.booleans(), max_size=3),
)
numbers = st.one_of(
    st.floats(),
    st.integers(),
    st.integers(min_value=2**31),
    st.sampled_from([10**400, -(10**4000)]),
)
unprintable = st.builds(
    "{}{}{}".format,
    st.text(max_size=5),
    st.sampled_from("\0\a\b\t\n\r\x1b\x7f\x85\u2028\u202e\ud800"),
    st.text(max_size=5),
)
TOO_LONG = ["x" * 300, "new/" + "x" * 300, "x/" * 3000]


def whole(low, high=2**31 - 1):
    return st.one_of(
        nests,
        st.booleans(),
        wordless,
        st.sampled_from([low - 1, high + 1]),
        numbers.filter(lambda value: not (low <= value <= high and value == int(value))),
    )


def real(fits):
    return st.one_of(
        nests,
        st.booleans(),
        wordless,
        numbers.filter(lambda value: not (abs(value) <= sys.float_info.max and fits(value))),
    )


def name(*known):
    return st.one_of(
        nests, st.booleans(), numbers, st.text(max_size=20).filter(lambda word: word not in known)
    )


def path(*more):
    return st.one_of(nests, st.booleans(), numbers, unprintable, st.sampled_from(["", *more]))


def names_no_attack(word: str) -> bool:
    return word.strip() != "all" and any(one.strip() not in ATTACKS for one in word.split(","))


BAD_NAMES = [
    "",
    ".",
    "..",
    "...",
    "../up",
    "a/b",
    "/",
    "a\\b",
    "a b",
    "a\n",
    "-a",
    "_a",
    "é",
    "~",
    "a" * 101,
]
OTHERWISE = {
    "lr": lambda value: value > 0,
    "weight_decay": lambda value: value >= 0,
    "save_every": lambda value: value >= 0,
    "wait": lambda value: value >= 0,
    "rmia_gamma": lambda value: value > 0,
    "rmia_temperature": lambda value: value > 0,
    "rmia_trim": lambda value: 0 <= value < 0.5,
    "dp_lr": lambda value: value > 0,
    "max_grad_norm": lambda value: value > 0,
    "delta": lambda value: 0 < value < 1,
    "prune_sparsity": lambda value: 0 < value < 1,
    "defend_arg": lambda value: value >= 0,
}
LOWEST = {
    "input_dim": 1,
    "epochs": 1,
    "prune_epochs": 0,
    "batch_size": 2,
    "early_stop": 0,
    "seed": 0,
    "train_seed": 0,
}
WRONG = {
    **{key: real(fits).filter(lambda value: value != "choose") for key, fits in OTHERWISE.items()},
    **{key: whole(low) for key, low in LOWEST.items()},
    "num_cls": whole(2, 10**5),
    "shadow_num": whole(1, 10**4),
    "workers": whole(1, 1024),
    "threads": whole(1, 1024),
    "model_name": name(*MODELS, "vgg16"),
    "pruner_name": name(*PRUNERS),
    "defend": name(*DEFENDERS),
    "optimizer": name("adam", "sgd"),
    "precision": name("fp32", "bf16"),
    "dataset_name": path(*BAD_NAMES),
    **dict.fromkeys(["data_path", "data_root", "results"], path("~nobody-here/x")),
    "attacks": st.one_of(
        st.booleans(),
        numbers,
        st.text(max_size=20).filter(names_no_attack),
        st.lists(st.none() | st.integers() | nests, max_size=3),
        st.sampled_from([[], {}, ["samia", "all"], {"samia": True}]),
    ),
    "adaptive": st.one_of(nests, numbers, wordless, st.sampled_from(["true", "1"])),
    "original": st.one_of(nests, numbers, wordless, st.sampled_from(["true", "1"])),
    "fresh": st.one_of(nests, numbers, wordless, st.sampled_from(["true", "1"])),
    "per_class": st.one_of(nests, numbers, wordless, st.sampled_from(["true", "1"])),
    "tensorboard": st.one_of(nests, numbers, wordless, st.sampled_from(["true", "1"])),
    "from_scratch": st.one_of(nests, numbers, wordless, st.sampled_from(["true", "1"])),
    "dp_engine": name("pyvacy", "opacus"),
    "dp_noise": name("secret", "seeded"),
    "split": name("paper", "inout"),
    "fix_variance": name("true", "false").filter(lambda value: type(value) != bool),
    "rmia_a": real(lambda value: 0 <= value <= 1).filter(
        lambda value: value not in ("choose", "paper")
    ),
}
NULL_MEANS_NOT_GIVEN = {
    "data_root",
    "prune_epochs",
    "train_seed",
    "defend_arg",
    "precision",
    "workers",
    "fix_variance",
    "delta",
}


def test_every_option_that_is_read_is_fuzzed():
    assert set(WRONG) == set(OPTIONS) - {"image_size", "hidden_size"}


# ---- bad configs -----------------------------------------------------------------------------------------------------


def wrong_values(stage):
    def changed(key, value):
        return {"config": config(stage, **{key: value})}

    wrong = st.sampled_from(list(WRONG)).flatmap(
        lambda key: WRONG[key].map(lambda value: changed(key, value))
    )
    return st.one_of(
        wrong,
        wrong,
        wrong,  # most of all
        st.sampled_from(sorted(set(WRONG) - NULL_MEANS_NOT_GIVEN)).map(
            lambda key: changed(key, None)
        ),
        st.sampled_from(["dataset_name", "model_name", "num_cls", "input_dim"]).map(
            lambda key: changed(key, LEFT_OUT)
        ),
        st.builds(
            changed,
            st.one_of(
                wordless.filter(lambda key: key not in OPTIONS),
                st.sampled_from(list(OPTIONS)).map(lambda key: key[:-1]),
                st.sampled_from(["stage", "device", "config_path", "Seed", "seed ", "--seed"]),
            ),
            st.integers(),
        ),
    )


def wrong_texts(stage):
    text = config(stage)
    position = st.integers(0, len(text) - 1)
    depth = st.integers(1, 20_000) | st.integers(
        900, 1000
    )  # above, below and around the limit of recursion

    def with_byte(at, byte):
        return text[:at] + bytes([byte]) + text[at:]

    return st.one_of(
        position.map(lambda at: text[:at]),
        st.binary(max_size=30),  # even an object could not hold all keys that must be there
        st.builds(with_byte, position, st.integers(0x80, 0xFF)),  # alone it is no UTF-8
        st.sampled_from(["utf-16", "utf-32-be", "utf-16-le"]).map(
            lambda code: text.decode().encode(code)
        ),
        st.builds(with_byte, position, st.sampled_from(b"\0\x1b{}[]#")).filter(no_object),
        st.sampled_from(
            [
                text + b"}",
                text + text,
                text[:-1] + b",}",
                text.replace(b'"', b"'"),
                b"// \n" + text,
                text[:-1] + b', "seed": 1, "seed": 1}',
                text[:-1] + b', "image_size": NaN}',
                b"[" + text + b"]",
                b"null",
                b"NaN",
                b'"' + b"x" * 10**5 + b'"',
                b"1" * 5000,
            ]
        ),
        st.builds(
            lambda key, n: text[:-1] + b', "%s": ' % key + b"[" * n + b"]" * n + b"}",
            st.sampled_from([b"seed", b"attacks", b"model_name", b"results"]),
            depth,
        ),
        st.builds(
            lambda key, n: text[:-1] + b', "%s": ' % key + b'{"":' * n + b"0" + b"}" * n + b"}",
            st.sampled_from([b"lr", b"attacks", b"dataset_name", b"other"]),
            depth,
        ),
    ).map(lambda content: {"config": content})


def no_object(content: bytes) -> bool:
    """Whether a config is none, so that a byte more did not merely change a name or a path."""
    try:
        return not isinstance(json.loads(content), dict)
    except ValueError:
        return True


def misfits(stage):
    """Options that are right one by one and do not go together, with the data or with the models that are there."""
    for_all = [
        *(
            {"model_name": model} for model in ("resnet18", "vgg16", "vgg16bn", "densenet121")
        ),  # of a table
        {"num_cls": 2},
        {"input_dim": COLUMNS - 1},
        {"input_dim": 2**31 - 1},
        {"data_path": LEFT_OUT},
        {"data_path": None},
        {"data_path": LEFT_OUT, "dataset_name": "digits"},
        {"data_path": LEFT_OUT, "dataset_name": "location"},
        {"data_path": LEFT_OUT, "dataset_name": "cifar10"},
        {
            "data_path": LEFT_OUT,
            "dataset_name": "location",
            "num_cls": 30,
            "input_dim": 446,
            "data_root": "x" * 300,
        },
        *(
            {"data_path": where}
            for where in ("absent.npz", ".", "../given", CONFIG, f"{CONFIG}/x", *TOO_LONG)
        ),
        *({"results": where} for where in (CONFIG, f"{CONFIG}/x", "/dev/null/x", *TOO_LONG)),
    ]
    of_pruning = [{"pruner_name": pruner} for pruner in ("l1structure", "l2structure", "slim")]
    not_made = [
        {"num_cls": 4},
        {"seed": 8},
        {"train_seed": 8},
        {"shadow_num": 2},
        {"results": "elsewhere"},
        {"dataset_name": "other"},
    ]
    of_mia = [
        {"adaptive": True},
        {"defend": "ppb"},
        {"prune_sparsity": 0.5},
        {"original": True, "num_cls": 4},
    ]
    changes = {
        "pretrain": for_all,
        "prune": for_all + not_made + of_pruning,
        "mia": for_all + not_made + of_pruning + of_mia,
    }
    return st.sampled_from(changes[stage]).map(lambda change: {"config": config(stage, **change)})


# ---- bad data sets ---------------------------------------------------------------------------------------------------

RECORD = np.dtype([("a", "i4")])
HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }"


def with_header(text: str | bytes) -> bytes:
    """X as .npy, under another header."""
    text = text.encode() if isinstance(text, str) else text
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + X.tobytes()


def with_cell(where, value_and_type):
    value, dtype = value_and_type
    x = X.astype(dtype)
    x[where] = value
    return {"x": x, "y": Y}


def with_label(where, value_and_type):
    value, dtype = value_and_type
    y = Y.astype(dtype)
    y[where] = value
    return {"x": X, "y": y}


def resized(keep_x, keep_y):
    return {"x": np.resize(X, (keep_x, COLUMNS)), "y": np.resize(Y, keep_y)}


def bad_arrays(stage):
    row, column, side = st.integers(0, ROWS - 1), st.integers(0, COLUMNS - 1), st.integers(1, 5)
    shapes = st.lists(st.integers(0, 4), max_size=6).map(tuple)
    split_of_others = (
        [] if stage == "pretrain" else [st.integers(22, 59).map(lambda n: resized(n, n))]
    )
    return st.one_of(
        st.builds(
            with_cell,
            st.tuples(row, column),
            st.sampled_from(
                [
                    (math.nan, "f2"),
                    (math.inf, "f4"),
                    (-math.inf, ">f8"),
                    (1e39, "f8"),
                    (-1e300, ">f8"),
                    (math.nan, "g"),
                ]
            ),
        ),
        st.builds(
            with_label,
            row,
            st.one_of(
                st.tuples(
                    st.integers(-128, -1) | st.integers(3, 127),
                    st.sampled_from(["i1", ">i2", "i4", "i8"]),
                ),
                st.sampled_from([(255, "u1"), (2**63, "u8"), (2**64 - 1, ">u8"), (-(2**63), "i8")]),
            ),
        ),
        st.builds(
            lambda shape, dtype: {"x": np.zeros(shape, dtype), "y": Y},
            shapes.filter(lambda shape: len(shape) not in (2, 4)),
            st.sampled_from(["u1", "f4"]),
        ),
        st.builds(
            lambda shape: {"x": X, "y": np.zeros(shape, int)},
            shapes.filter(lambda shape: len(shape) != 1),
        ),
        st.sampled_from(["c8", "U4", "S4", "M8[s]", "m8[s]", RECORD]).map(
            lambda dtype: {"x": np.zeros(X.shape, dtype), "y": Y}
        ),
        st.sampled_from(["f2", "f4", "f8", "?", "U2", "S1", "c8", "M8[s]", "m8[s]", RECORD]).map(
            lambda dtype: {"x": X, "y": np.zeros(ROWS, dtype)}
        ),
        st.sampled_from(
            [
                {"x": X.astype(object), "y": Y},
                {"x": X, "y": Y.astype(object)},
                {"x": np.array([{}] * ROWS), "y": Y},
            ]
        ),  # pickled
        st.integers(0, 59).map(lambda n: resized(ROWS, n)),
        st.integers(61, 200).map(lambda n: resized(ROWS, n)),
        st.integers(0, 59).map(lambda n: resized(n, ROWS)),
        st.integers(0, 21).map(lambda n: resized(n, n)),
        *split_of_others,
        st.integers(0, 30)
        .filter(lambda n: n != COLUMNS)
        .map(lambda n: {"x": np.resize(X, (ROWS, n)), "y": Y}),
        st.builds(
            lambda *shape: {"x": np.ones((ROWS, *shape), "u1"), "y": Y}, side, side, side
        ).filter(lambda arrays: arrays["x"][0].size != COLUMNS),
        st.sampled_from(["f4", "i8", "?", "i1", "u2"]).map(
            lambda dtype: {"x": np.ones((ROWS, 2, 2, 3), dtype), "y": Y}
        ),
        st.dictionaries(
            st.sampled_from(["x", "X", "Y", "x ", "data", "arr_0", "y/x", ""]), st.just(X)
        ),  # no y
        st.dictionaries(
            st.sampled_from(["y", "X", "Y", "x.npy", "labels", "../x"]), st.just(Y)
        ),  # no x
    ).map(
        lambda arrays: {
            "about": " ".join(f"{key}: {one.dtype} {one.shape}" for key, one in arrays.items()),
            "data": npz(**arrays),
        }
    )


def bad_archives(stage):
    good = {"x.npy": npy(X), "y.npy": npy(Y)}
    whole_header = HEADER % X.shape

    def other_x(content):
        return zipped(good | {"x.npy": content})

    def other_method(number):  # in the directory at the end, which readers go by
        archive = bytearray(zipped(good))
        archive[archive.find(b"PK\x01\x02") + 10] = number
        return bytes(archive)

    methods = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]).map(
        lambda method: zipped(good, method)
    )
    return st.one_of(
        methods.flatmap(
            lambda archive: st.integers(0, len(archive) - 1).map(lambda end: archive[:end])
        ),
        st.binary(max_size=50),
        st.binary(max_size=50).map(lambda start: b"PK\x03\x04" + start),
        st.binary(max_size=50).map(lambda start: b"\x93NUMPY" + start),
        st.sampled_from(
            [
                npy(X),
                pickle.dumps((X, Y)),
                config(stage),
                zipped({}),
                zipped({"x": b"1", "y": b"2"}),
                zipped({"x.npy": b"", "y.npy": b""}),
                zipped({"x.npy/": b"", "y.npy/": b""}),
            ]
        ),
        st.sampled_from([1, 8, 9, 12, 14, 93, 99]).map(other_method),
        st.integers(0, len(whole_header) - 1).map(
            lambda end: other_x(with_header(whole_header[:end]))
        ),
        st.binary(max_size=50).map(lambda text: other_x(with_header(text))),
        st.one_of(st.integers(-(2**70), 2**70), st.integers(0, 10**6), st.just(ROWS + 2**62))
        .filter(lambda n: n != ROWS)
        .map(lambda n: other_x(with_header(HEADER % (n, COLUMNS)))),
        st.binary(max_size=50).map(other_x),
    ).map(lambda data: {"about": f"{len(data)} bytes", "data": data})


# ---- bad command lines -----------------------------------------------------------------------------------------------


def bad_words(stage):
    own = [key for key, option in OPTIONS.items() if stage in option.stages]
    flags = [key for key in own if OPTIONS[key].default is False]
    valued = [key for key in own if key not in flags]
    word = st.text(max_size=20).filter(lambda text: not text.startswith("-"))  # -h asks for help

    def as_words(key):
        """A value that is wrong for an option, as one word or two."""
        # a number in digits is a fine path
        kinds = (
            (str,)
            if key in ("dataset_name", "data_path", "data_root", "results")
            else (str, int, float)
        )
        value = WRONG[key].filter(lambda value: type(value) in kinds).map(str).filter(encodable)
        spelt = value.filter(lambda text: text[:1] != "-" or text[1:2].isdigit())
        return st.one_of(
            value.map(lambda text: (f"--{key}={text}",)), spelt.map(lambda text: (f"--{key}", text))
        )

    known = {*own, "help", "image_size", "hidden_size"}  # the last two are taken and not used
    unknown = st.one_of(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
        st.sampled_from([*OPTIONS, *(key[:-1] for key in OPTIONS), "no-seed", "-seed", "SEED"]),
    )
    words = [
        st.sampled_from(valued).flatmap(as_words),
        st.sampled_from(valued).flatmap(as_words),
        unknown.filter(lambda text: text.split("=")[0] not in known).flatmap(
            lambda text: st.sampled_from([(f"--{text}",), (f"--{text}", "1"), (f"--{text}=1",)])
        ),
        st.sampled_from(
            [("-x",), ("-1x",), ("-seed", "1"), ("extra",), ("--", "extra"), ("--seed", "1", "2")]
        ),
        st.builds(
            lambda key, after: (f"--{key}", *after),
            st.sampled_from(valued),
            st.sampled_from([(), ("--workers", "1"), ("--seed=1",)]),
        ),  # the value is missing
    ]
    if stage != "pretrain":
        words.append(
            st.sampled_from(
                [("--pruner_name", pruner) for pruner in ("l1structure", "l2structure", "slim")]
            )
        )
    if stage == "mia":
        words.append(
            st.sampled_from(
                [
                    ("--adaptive",),
                    ("--original", "--adaptive"),
                    ("--original", "--defend", "ppb"),
                    ("--adaptive=1",),
                    ("--original=",),
                    ("--original", "--defend=adv", "--adaptive"),
                    ("--adaptive", "--defend", ""),
                ]
            )
        )
    devices = st.one_of(
        word.filter(lambda text: text not in ("cpu", "cuda") and not any(map(str.isdigit, text))),
        st.sampled_from(
            [
                "-1",
                "cuda:",
                "cuda:x",
                "cuda:-1",
                "cpu:0",
                "9999",
                "99999",
                "cuda:99999",
                "1.5",
                "0 ",
                "0x0",
                "cuda:0\n",
            ]
        ),
    )
    return st.one_of(
        *(one.map(lambda more: ("cpu", CONFIG, *more)) for one in words),
        devices.map(lambda device: (device, CONFIG)),
        st.sampled_from([(), ("cpu",), (CONFIG,), (CONFIG, "cpu"), ("cpu", "--seed", "1")]),
        st.one_of(
            word.filter(
                lambda text: text != CONFIG
            ),  # hypothesis also tries texts that it finds in this file
            st.sampled_from([*TOO_LONG, "absent.json", "../given", f"{CONFIG}/x", DATA, "/"]),
        ).map(lambda where: ("cpu", where)),
    ).map(lambda argv: {"argv": argv})


def encodable(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


# ---- what must come of them ------------------------------------------------------------------------------------------

KINDS = {
    "values": cases(wrong_values),
    "texts": cases(wrong_texts),
    "words": cases(bad_words),  # before data are read
    "misfits": cases(misfits),
    "arrays": cases(bad_arrays),
    "archives": cases(bad_archives),
}
QUIET = (
    DeprecationWarning,
    PendingDeprecationWarning,
    ImportWarning,
    ResourceWarning,
)  # Python doesn't show these


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to run in; beside it what is `given`, and in `made` the models that the valid config makes."""
    for folder in ("here", "given"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for stage in STAGES:
        assert run(Case(stage, config(stage, results=MADE)))[:2] == (0, "")


def fuzz(examples, strategy):
    def with_settings(test):
        return settings(
            max_examples=examples,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )(given(strategy)(test))

    return with_settings


def lying() -> dict:
    """All that lies here and around, and when the files were written."""
    return {
        path: path.is_file() and (path.stat().st_mtime_ns, path.stat().st_size)
        for path in Path("..").rglob("*")
    }


def lay_out(case: Case):
    Path(CONFIG).write_bytes(case.config)
    Path(DATA).write_bytes(case.data)


def run(case: Case) -> tuple[int, str, bool]:
    """Status, stderr, and whether anything was written."""
    lay_out(case)
    before, error = lying(), io.StringIO()
    with (
        warnings.catch_warnings(record=True) as warned,
        redirect_stdout(io.StringIO()),
        redirect_stderr(error),
    ):
        warnings.simplefilter("always")
        status = STAGES[case.stage].main(list(case.argv))
    assert not [
        one for one in warned if not issubclass(one.category, QUIET)
    ]  # it would be a line more
    return status, error.getvalue(), lying() != before


def is_one_line(error: str) -> bool:
    return error.startswith("error: ") and error.endswith("\n") and len(error.splitlines()) == 1


def test_bad_input_gets_one_line_status_2_and_nothing_written(place):
    tried: dict[Case, str] = {}

    for kind, strategy in KINDS.items():

        @fuzz(250, strategy)
        def refuse(case):
            tried[case] = kind
            status, error, written = run(case)
            assert status == 2 and is_one_line(error) and not written, error

        refuse()
    count = Counter(tried.values())  # of inputs that differ
    assert count.total() >= 500 and min(count.values()) >= 40, count


def test_bad_input_in_a_process_of_its_own(place):
    tried = set()

    def refuse(case):
        tried.add(case)
        lay_out(case)
        before = lying()
        result = subprocess.run(
            [sys.executable, PROJECT / f"{case.stage}.py", *case.argv],
            capture_output=True,
            timeout=60,
        )
        error = result.stderr.decode()
        assert result.returncode == 2 and is_one_line(error) and lying() == before, error

    early = st.one_of(
        KINDS["values"], KINDS["texts"], KINDS["words"]
    )  # most end before torch is imported: it is slow
    fuzz(30, early.filter(lambda case: not any("\0" in word for word in case.argv)))(refuse)()
    fuzz(2, KINDS["arrays"] | KINDS["archives"])(refuse)()
    assert len(tried) >= 20, len(tried)


# ---- what may be harmless --------------------------------------------------------------------------------------------


def flipped(content: bytes, flips) -> bytes:
    content = bytearray(content)
    for at, bit in flips:
        content[at % len(content)] ^= 1 << bit
    return bytes(content)


def flips(within):
    return st.lists(
        st.tuples(st.integers(0, within - 1), st.integers(0, 7)), min_size=1, max_size=3
    )


AN_NPZ = st.sampled_from(
    [
        zipped({"x.npy": npy(X), "y.npy": npy(Y)}, method)
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    ]
)
PERHAPS = (
    st.one_of(
        st.builds(flipped, AN_NPZ, flips(10_000)),
        st.builds(
            flipped, AN_NPZ, st.tuples(st.tuples(st.integers(-250, -1), st.integers(0, 7)))
        ),  # the zip's directory
        flips(128).map(
            lambda bits: zipped(
                {"x.npy": flipped(npy(X)[:128], bits) + npy(X)[128:], "y.npy": npy(Y)}
            )
        ),
        flips(128).map(
            lambda bits: zipped(
                {"x.npy": npy(X), "y.npy": flipped(npy(Y)[:128], bits) + npy(Y)[128:]}
            )
        ),
    ).map(lambda data: {"data": data})
    | st.fixed_dictionaries(
        {},
        optional={  # in range, and of no use
            "lr": st.floats(min_value=0, exclude_min=True, allow_infinity=False),
            "weight_decay": st.floats(min_value=0, allow_infinity=False),
            "batch_size": st.integers(2, 2**31 - 1),
            "seed": st.integers(0, 2**31 - 1),
            "train_seed": st.integers(0, 2**31 - 1),
            "optimizer": st.sampled_from(["adam", "sgd"]),
            "num_cls": st.integers(3, 1000),
        },
    ).map(lambda changes: {"config": config("pretrain", **changes)})
)


def test_input_that_may_be_harmless_gets_that_line_or_a_model(place):
    statuses = Counter()

    @fuzz(250, PERHAPS)
    def take_or_refuse(fields):
        status, error, written = run(
            Case(**{"stage": "pretrain", "config": config("pretrain")} | fields)
        )
        statuses[status] += 1
        shutil.rmtree("results", ignore_errors=True)
        assert (
            (status, error, written) == (0, "", True)
            or status == 2
            and is_one_line(error)
            and (not written or "no longer finite" in error)
        ), error  # a training that fails has stored the split before

    take_or_refuse()
    assert min(statuses[0], statuses[2]) >= 20, statuses
