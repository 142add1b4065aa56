"""Data sets that no stage takes, as strategies of hypothesis."""

import math
import pickle
import zipfile

import numpy as np
from fuzz_base import COLUMNS, ROWS, X, Y, config, npy, npz, zipped
from hypothesis import strategies as st

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


def bad_arrays(stage):  # long: a table of mistakes, each with the values around it
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
