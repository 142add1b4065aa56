"""Noise of DP-SGD: its distribution, and that it is secret or follows from the key."""

import hashlib
import math
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dp_cases import ENGINES, batch, columnfc, flat, private, started, tiny_records
from helpers import a_batch
from scipy.stats import kstest, norm

from base_model import Context, TrainSet
from defenders.dp import PrivateSGD
from defenders.noise import CHUNK, SecretStream, SeededStream, normals, uniforms


def test_normals_are_normal():
    """One by one, and in pairs that chunks, summands or neighbouring draws could tie together."""
    for stream in (SeededStream(bytes(16)), SecretStream()):
        found = normals(stream, 3 * CHUNK + 5)
        assert found.shape == (3 * CHUNK + 5,) and found.dtype == np.float64
        assert kstest(found, "norm").pvalue > 1e-6
        assert kstest(found**2, "chi2", args=(1,)).pvalue > 1e-6  # a wrong deviation shows
        for apart in (1, 2, 4, CHUNK // 4, CHUNK):
            assert abs(np.corrcoef(found[:-apart], found[apart:])[0, 1]) < 5 / math.sqrt(
                len(found) - apart
            ), apart
    again = normals(SeededStream(bytes(16)), 3 * CHUNK + 5)
    assert not np.allclose(again, found) and len(np.unique(found)) == len(found)


def test_a_normal_is_half_the_sum_of_four():
    class Fixed:
        def read(self, count):
            return b"".join(
                int(share * 2**53 * 2**11).to_bytes(8, "little")
                for share in (0.5, 0.75, 0.1, 0.9, 0.25, 0.5, 0.975, 0.5)
            )[:count]

    first, second = (
        norm.ppf([0.5, 0.1, 0.25, 0.975]).sum() / 2,
        norm.ppf([0.75, 0.9, 0.5, 0.5]).sum() / 2,
    )
    assert np.allclose(normals(Fixed(), 2), [first, second], atol=1e-12)


def test_uniforms_have_53_bits_and_no_end():
    class Ends:
        def read(self, count):
            return bytes(8) + b"\xff" * 8

    low, high = uniforms(Ends(), 2)
    assert (low, high) == (2.0**-54, 1 - 2.0**-53) and np.isfinite(norm.ppf([low, high])).all()
    found = uniforms(SecretStream(), 10**5)
    assert kstest(found, "uniform").pvalue > 1e-6
    bits = (found * 2.0**53).astype(np.int64)
    for bit in range(53):  # the lowest as good as the highest
        assert abs((bits >> bit & 1).mean() - 0.5) < 5 * 0.5 / math.sqrt(10**5), bit


def test_a_seeded_stream_is_its_key_s_and_goes_on_where_it_was():
    """SHAKE-256 of the key and the call's number, by another way of hashing."""
    stream, other = SeededStream(b"k" * 16), SeededStream(b"l" * 16)
    first, second = stream.read(40), stream.read(40)
    for number, bytes_read in ((1, first), (2, second)):
        hashed = hashlib.shake_256()
        hashed.update(b"k" * 16)
        hashed.update(bytes(7) + bytes([number]))
        assert hashed.digest(40) == bytes_read
    assert other.read(40) != first
    again = SeededStream(b"k" * 16)
    again.read(3)
    late = SeededStream(b"k" * 16)
    late.set_state(again.state())
    assert late.read(40) == second and b"k" * 16 not in repr(again.state()).encode()


def test_seeded_noise_needs_a_key_and_a_wrong_one_is_named():
    with pytest.raises(ValueError, match="key must have 16 bytes or more, not 3"):
        PrivateSGD(
            1.0, dp_engine="pyvacy", dp_lr=1.0, max_grad_norm=1.0, dp_noise="seeded", key=b"abc"
        ).setup(Context(TrainSet(tiny_records(4), torch.arange(4)), batch_size=4, generator=None))


@pytest.mark.parametrize("change", ["a record", "a label", "one fewer"])
def test_a_neighbouring_data_set_has_other_noise_of_the_same_seed(change):
    """Where two models differed by less than their noise, the noise has cancelled and the guarantee with it."""
    found = []
    for changed in (False, True):
        records, count = tiny_records(20), 20
        if changed and change == "a record":
            records.x[7, 3] += 1e-3
        if changed and change == "a label":
            records.y[7] = (records.y[7] + 1) % 3
        network, _ = columnfc()
        before = flat(network)
        x, y = batch()
        fewer = changed and change == "one fewer"
        private(network, count=count - fewer, expected=9, noise=50.0, records=records)(x, y)
        found.append((flat(network) - before)[flat(network) != 0])
    rms = float((found[0] - found[1]).square().mean().sqrt())
    assert rms == pytest.approx(math.sqrt(2) * 0.5 * 50 / 9, rel=0.05)  # two noises, not none


@pytest.mark.parametrize("engine", ENGINES)
def test_two_secret_steps_differ_by_as_much_as_the_noise_says(engine):
    found, sizes = [], []
    for _ in range(2):
        network, masks = columnfc()
        defender = started(
            engine=engine, count=50, expected=10, noise=3.0, lr=0.5, max_grad_norm=2.0, seed=None
        )
        optimizer = defender.build_optimizer(network, SimpleNamespace(weight_decay=0.0))
        defender.step(network, optimizer, None, a_batch(*batch()))
        found.append(flat(network)[flat(network) != 0])
        sizes.append([len(drawn) for drawn in defender.batches(torch.arange(50), 1)])
    differ = found[0] - found[1]
    deviation = math.sqrt(2) * 0.5 * 3.0 * 2.0 / 10
    assert float(differ.std()) == pytest.approx(deviation, rel=5 / math.sqrt(2 * len(differ)))
    assert kstest(differ / deviation, "norm").pvalue > 1e-6 and sizes[0] != sizes[1]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_system_is_asked_for_entropy_in_each_step(engine, monkeypatch):
    asked, real = [], os.urandom

    def counted(count):
        asked.append(count)
        return real(count)

    monkeypatch.setattr(os, "urandom", counted)
    network, masks = columnfc()
    defender = started(engine=engine, count=50, expected=10, seed=None)
    optimizer = defender.build_optimizer(network, SimpleNamespace(weight_decay=0.0))
    assert asked == []  # nothing is drawn beforehand, to be kept
    weights = int((flat(network) != 0).sum()) + sum(
        layer.bias.numel() for layer in network if hasattr(layer, "bias")
    )
    for number, drawn in enumerate(defender.batches(torch.arange(50), 10), start=1):
        assert sum(asked) == 8 * 50
        defender.step(network, optimizer, None, a_batch(*batch()))
        assert (
            sum(asked) == 8 * 50 + 8 * 4 * weights
        )  # four uniforms of 8 bytes for each weight that is kept
        asked.clear()
    assert number == 5


def test_secret_noise_has_no_state():
    defender = started(count=50, expected=10, seed=None)
    list(defender.batches(torch.arange(50), 10))
    assert defender.state() == {"stream": {}} and vars(defender.stream) == {}
