"""Configs and command lines that no stage takes, as strategies of hypothesis."""

import json
import sys

from fuzz_base import COLUMNS, CONFIG, DATA, LEFT_OUT, config
from hypothesis import strategies as st

from attackers import ATTACKS
from bench.options import OPTIONS
from defenders import DEFENDERS
from models import MODELS
from pruner import PRUNERS
from quantizer import QUANTIZERS

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
    "shadow_sparsity": lambda value: 0 < value < 1,
    "attacker_records": lambda value: 0 < value <= 1,
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
    "rewind": 0,
    "quantize_epochs": 0,
    "canary_seed": 0,
}

WRONG = {
    **{key: real(fits).filter(lambda value: value != "choose") for key, fits in OTHERWISE.items()},
    **{key: whole(low) for key, low in LOWEST.items()},
    "num_cls": whole(2, 10**5),
    "shadow_num": whole(1, 10**4),
    "boundary_records": whole(20),
    "workers": whole(1, 1024),
    "prune_iterations": whole(1, 100),
    "augment": st.one_of(
        nests, numbers, wordless.filter(lambda word: word not in ("true", "false"))
    ),
    "queries": st.one_of(
        nests,
        st.booleans(),
        wordless,
        st.sampled_from([0, 3, 9, 17, 19, 163, -2]),
        numbers.filter(lambda value: value not in (1, 2, 18, 50, 98, 162)),
    ),
    "also": st.one_of(
        st.booleans(),
        numbers,
        # a version that there is not is refused where versions are looked for, in mia.py
        st.sampled_from(["", "x y", "a/b", "original,", "-int9", [None], [1.5], [[]], {}]),
    ),
    "ensemble_of": st.one_of(
        st.booleans(),
        numbers,
        st.sampled_from(["", "x", "all", "ensemble", "loss,", "lira,nn2", [None], [1.5], [[]], {}]),
    ),
    "keep_epochs": st.sampled_from(
        [True, False, "", "x", "1,", "-1", "1;2", -1, 1.5, [-1], [None], [1.5], [[]], {}]
    ),
    "threads": whole(1, 1024),
    "model_name": name(*MODELS, "vgg16"),
    "shadow_model_name": name(*MODELS, "vgg16"),
    "pruner_name": name(*PRUNERS),
    "shadow_pruner_name": name(*PRUNERS),
    "quantizer": name(*QUANTIZERS, ""),
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
    "pruned": st.one_of(
        nests, numbers, wordless.filter(lambda word: word not in ("true", "false"))
    ),
    "original": st.one_of(nests, numbers, wordless, st.sampled_from(["true", "1"])),
    "fresh": st.one_of(nests, numbers, wordless, st.sampled_from(["true", "1"])),
    "per_class": st.one_of(nests, numbers, wordless, st.sampled_from(["true", "1"])),
    "records": st.one_of(nests, numbers, wordless, st.sampled_from(["true", "1"])),
    "tensorboard": st.one_of(nests, numbers, wordless, st.sampled_from(["true", "1"])),
    "from_scratch": st.one_of(nests, numbers, wordless, st.sampled_from(["true", "1"])),
    "dp_engine": name("pyvacy", "opacus"),
    "dp_noise": name("secret", "seeded"),
    "canaries": whole(0, 10**6),
    "canary_kind": name("mislabelled", "random"),
    "split": name("paper", "inout"),
    "norm": name("batch", "group"),
    "fix_variance": name("true", "false").filter(lambda value: type(value) != bool),
    "rmia_a": real(lambda value: 0 <= value <= 1).filter(
        lambda value: value not in ("choose", "paper")
    ),
}

NULL_MEANS_NOT_GIVEN = {
    "data_root",
    "prune_epochs",
    "quantize_epochs",
    "rewind",
    "train_seed",
    "defend_arg",
    "precision",
    "workers",
    "fix_variance",
    "delta",
    "shadow_pruner_name",
    "shadow_sparsity",
    "shadow_model_name",
}


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


def misfits(stage):  # long: a table of mistakes
    """Options that are right one by one and do not go together, with the data or with the models
    that are there."""
    for_all = [
        *(
            {"model_name": model} for model in ("resnet18", "vgg16", "vgg16bn", "densenet121")
        ),  # of a table
        {"num_cls": 2},
        {"norm": "group"},
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
        {"shadow_sparsity": 0.5},
        {"shadow_pruner_name": "random"},
        {"shadow_pruner_name": "l1structure"},
        {"shadow_model_name": "resnet18"},
        {"shadow_sparsity": 0.5, "also": "original"},
        {"original": True, "num_cls": 4},
        {"queries": 18},  # of a table
    ]
    changes = {
        "pretrain": [
            *for_all,
            {"attacker_records": 0.3},  # of 30 records, of which a shadow needs 11
            {"attacker_records": 0.5, "split": "inout", "shadow_num": 2},
            {"augment": True},  # of a table
        ],
        "prune": for_all + not_made + of_pruning,
        "quantize": [
            *for_all,
            *not_made,
            {"pruned": True, "prune_sparsity": 0.5},
            {"quantizer": ""},
        ],
        "mia": for_all + not_made + of_pruning + of_mia,
    }
    return st.sampled_from(changes[stage]).map(lambda change: {"config": config(stage, **change)})


def bad_words(stage):  # long: a table of mistakes, each with the values around it
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
                    ("--original", "--shadow_sparsity", "0.5"),
                    ("--quantizer=int8", "--shadow_pruner_name", "random"),
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
