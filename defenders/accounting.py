"""What DP-SGD guarantees: epsilon, by three accountants."""
from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import lru_cache

PRV_FROM = 0.5  # the noise multiplier below which the PRV accountant takes tens of gigabytes


@dataclass(frozen=True)
class Guarantee:
    """(epsilon, delta)-differential privacy of a training, for adding or removing one record.

    Attributes:
        noise_multiplier, sampling_rate, steps, delta: what it follows from.
        pyvacy, rdp, prv: epsilon by each accountant, all of them upper bounds; None where one was left out.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int
    delta: float
    pyvacy: float
    rdp: float
    prv: float | None

    @property
    def epsilon(self) -> float:
        """The smallest."""
        return min(bound for bound in (self.pyvacy, self.rdp, self.prv) if bound is not None)


def default_delta(n: int) -> float:
    """1 / n rounded down to a power of ten."""
    return float(f"1e-{len(str(n - 1))}")


@lru_cache
def guarantee(*, n: int, batch_size: int, noise_multiplier: float, epochs: int, delta: float | None) -> Guarantee:
    """Of all planned steps, stopped early or not: a time to stop that depends on the data buys nothing.

    Args:
        n: records; each step draws each of them with probability batch_size / n.
        delta: None = the default.
    """
    rate, steps = min(1.0, batch_size / n), epochs * math.ceil(n / batch_size)
    delta = default_delta(n) if delta is None else delta
    how = {"noise_multiplier": noise_multiplier, "sampling_rate": rate, "steps": steps, "delta": delta}
    if steps == 0:
        return Guarantee(**how, pyvacy=0.0, rdp=0.0, prv=0.0)
    from opacus.accountants import PRVAccountant, RDPAccountant
    from pyvacy.analysis import moments_accountant

    def by(accountant) -> float:
        accountant.history = [(noise_multiplier, rate, steps)]
        with warnings.catch_warnings():  # of orders that could have been better: the bound is one nevertheless
            warnings.simplefilter("ignore")
            return float(accountant.get_epsilon(delta))

    return Guarantee(**how, rdp=by(RDPAccountant()), prv=by(PRVAccountant()) if noise_multiplier >= PRV_FROM else None,
                     # it counts epochs of n / batch_size steps each
                     pyvacy=float(moments_accountant(n, rate * n, noise_multiplier, steps * rate, delta)))
