"""What DP-SGD guarantees: epsilon, by three accountants."""
from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import lru_cache

from core.console import UserError

PRV_FROM = 0.5  # the noise multiplier below which the PRV accountant takes tens of gigabytes


@dataclass(frozen=True)
class Guarantee:
    """(epsilon, delta)-differential privacy of a training, for adding or removing one record.

    Attributes:
        noise_multiplier, sampling_rate, steps, delta: what it follows from.
        pyvacy, rdp, prv: epsilon by each accountant; None where one was left out. pyvacy's is too low for much noise
            (even negative, above a noise multiplier of about 8: it goes to orders at which its sums fail), so that it
            counts only where the PRV accountant, which is all but exact, is left out for having little noise.
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
        """The smallest valid one."""
        others = [self.prv] if self.prv is not None else [self.pyvacy] if self.noise_multiplier < PRV_FROM else []
        return max(0.0, min(self.rdp, *others))


def default_delta(n: int) -> float:
    """1 / n rounded down to a power of ten."""
    return float(f"1e-{len(str(n - 1))}")


@lru_cache
def guarantee(*, n: int, batch_size: int, noise_multiplier: float, epochs: int, delta: float | None) -> Guarantee:
    """Of all planned steps, stopped early or not: a time to stop that depends on the data buys nothing.

    Args:
        n: records; each step draws each of them with probability batch_size / n.
        delta: None = the default.
    Raises UserError where there is no accounting for such numbers.
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

    try:
        return Guarantee(
            **how, rdp=by(RDPAccountant()), prv=by(PRVAccountant()) if noise_multiplier >= PRV_FROM else None,
            # it counts epochs of n / batch_size steps each
            pyvacy=float(moments_accountant(n, rate * n, noise_multiplier, steps * rate, delta)))
    except (ArithmeticError, ValueError, RuntimeError, MemoryError) as error:
        raise UserError(f"no epsilon can be computed for noise multiplier {noise_multiplier:g} and delta {delta:g} "
                        f"({error}): take a less extreme one") from error
