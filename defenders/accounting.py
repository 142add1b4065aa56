"""What DP-SGD guarantees: epsilon, by three accountants."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from core.console import UserError

if TYPE_CHECKING:
    import numpy as np

NO_GUARANTEE = "no guarantee: the noise follows from the seed"
# the noise multiplier below which pyvacy's epsilon counts; for much noise it is too low
PYVACY_BELOW = 0.5
# where RDP's epsilon is so large, a smaller one by PRV would guarantee nothing either
PRV_MAX_RDP = 100.0
PRV_MAX_POINTS = 5_000_000  # of PRV's grid, which takes up to 230 bytes and 2 microseconds a point


@dataclass(frozen=True)
class Guarantee:
    """(epsilon, delta)-differential privacy of a training, for adding or removing one record.

    Attributes:
        noise_multiplier, sampling_rate, steps, delta: what it follows from.
        pyvacy, rdp, prv: epsilon by each accountant; None where one was left out (see
            `prv_epsilon`). pyvacy's is too low for much noise (even negative, above a noise
            multiplier of about 8: it goes to orders at which its sums fail), so that it counts only
            where the PRV accountant, which is all but exact, is left out and the noise multiplier
            is below `PYVACY_BELOW`.
        n: train records; 0 where it is not known, as of models from before it was stored.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int
    delta: float
    pyvacy: float
    rdp: float
    prv: float | None
    n: int = 0

    @property
    def epsilon(self) -> float:
        """The smallest valid one."""
        valid = [self.rdp]
        if self.prv is not None:
            valid.append(self.prv)
        elif self.noise_multiplier < PYVACY_BELOW:
            valid.append(self.pyvacy)
        return max(0.0, min(valid))


def caveat(privacy: dict | None) -> str:
    """What must stand beside the epsilon of a model, as its manifest has it; "" where there is
    nothing to say.

    Models from before there was secret noise say nothing of it: theirs followed from the seed.
    """
    return NO_GUARANTEE if privacy and privacy.get("noise") != "secret" else ""


def rounded_up(epsilon: float, *, decimals: int = 2) -> str:
    """Epsilon in print, never below what has been proven."""
    return f"{math.ceil(10**decimals * epsilon) / 10**decimals:.{decimals}f}"


def default_delta(n: int) -> float:
    """The largest power of ten below 1 / n."""
    return float(f"1e-{len(str(n))}")


def prv_epsilon(
    *, noise_multiplier: float, rate: float, steps: int, delta: float, rdp: float
) -> float | None:
    """Epsilon by the PRV accountant (Gopi et al., NeurIPS 2021), or None where it is left out.

    It is left out where `rdp`, epsilon by RDP, is above `PRV_MAX_RDP`, where its grid would have
    more than `PRV_MAX_POINTS` points (which is known before any is made), and where it finds no
    finite number.
    """
    if not rdp <= PRV_MAX_RDP:
        return None
    from opacus.accountants import PRVAccountant

    class Bounded(PRVAccountant):
        def _get_domain(self, **how):
            domain = super()._get_domain(**how)
            if domain.size > PRV_MAX_POINTS:
                raise OverflowError(f"a grid of {domain.size} points")
            return domain

    try:
        epsilon = _epsilon(Bounded(), noise_multiplier, rate, steps, delta)
    except (ArithmeticError, ValueError, RuntimeError):
        return None
    return epsilon if math.isfinite(epsilon) else None


def _epsilon(accountant, noise_multiplier: float, rate: float, steps: int, delta: float) -> float:
    """Epsilon by an accountant of Opacus."""
    accountant.history = [(noise_multiplier, rate, steps)]
    with warnings.catch_warnings():
        # of orders that could have been better: the bound is one nevertheless
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta))


@lru_cache
def guarantee(
    *, n: int, batch_size: int, noise_multiplier: float, epochs: int, delta: float | None
) -> Guarantee:
    """Of all planned steps, stopped early or not: a time to stop that depends on the data buys
    nothing.

    Args:
        n: records; each step draws each of them with probability batch_size / n.
        delta: None = the default.
    Raises UserError where there is no accounting for such numbers.
    """
    rate, steps = min(1.0, batch_size / n), epochs * math.ceil(n / batch_size)
    delta = default_delta(n) if delta is None else delta
    facts: dict[str, Any] = {
        "n": n,
        "noise_multiplier": noise_multiplier,
        "sampling_rate": rate,
        "steps": steps,
        "delta": delta,
    }
    if steps == 0:
        return Guarantee(**facts, pyvacy=0.0, rdp=0.0, prv=0.0)
    from opacus.accountants import RDPAccountant
    from pyvacy.analysis import moments_accountant

    try:
        rdp = _epsilon(RDPAccountant(), noise_multiplier, rate, steps, delta)
        # it counts epochs of n / batch_size steps each
        pyvacy = float(moments_accountant(n, rate * n, noise_multiplier, steps * rate, delta))
    except (ArithmeticError, ValueError, RuntimeError, MemoryError) as error:
        raise UserError(
            f"no epsilon can be computed for noise multiplier {noise_multiplier:g} and delta {delta:g} "
            f"({error}): take a less extreme one"
        ) from error
    prv = prv_epsilon(
        noise_multiplier=noise_multiplier, rate=rate, steps=steps, delta=delta, rdp=rdp
    )
    return Guarantee(**facts, pyvacy=pyvacy, rdp=rdp, prv=prv)


def noise_multiplier(
    epsilon: float, *, n: int, batch_size: int, epochs: int, delta: float | None = None
) -> float:
    """The smallest noise multiplier, to three digits, whose guarantee is epsilon or less; for the
    arguments of `guarantee`. Raises UserError where 1000 would not do."""

    def suffices(noise: float) -> bool:
        bound = guarantee(
            n=n, batch_size=batch_size, noise_multiplier=noise, epochs=epochs, delta=delta
        )
        return bound.epsilon <= epsilon

    low, high = 0.1, 1000.0
    if not suffices(high):
        raise UserError(f"no noise multiplier up to {high:g} gives epsilon {epsilon:g}")
    while high > 1.001 * low:  # the digits in question
        middle = math.sqrt(low * high)
        low, high = (low, middle) if suffices(middle) else (middle, high)
    unit = 10.0 ** (math.floor(math.log10(high)) - 2)
    return round(math.ceil(high / unit) * unit, 6)


def advantage_bound(epsilon: np.ndarray, delta: float) -> np.ndarray:
    """The most that TPR - FPR can be where training is (epsilon, delta)-private to adding or
    removing a record.

    For models that are (e, d)-indistinguishable FNR + exp(e) FPR >= 1 - d, and the same with both
    exchanged (Kairouz et al., ICML 2015), so that TPR - FPR <= (exp(e) - 1 + 2 d) / (exp(e) + 1). A
    split has a fixed number of members: where one record is none, another is one, an exchange; so e
    = 2 epsilon and d = delta (1 + exp(epsilon)).
    """
    import numpy as np

    e = np.exp(np.minimum(epsilon, 300))  # beyond, whatever it allows is all
    return np.minimum(1, (e**2 - 1 + 2 * delta * (1 + e)) / (e**2 + 1))


def beyond_guarantee(
    decision: np.ndarray, member: np.ndarray, *, epsilon: float, delta: float, tests: int = 1
) -> bool:
    """Whether an attack is surely better than (epsilon, delta)-private training allows; then that
    is not what was done.

    With 95 % confidence over all `tests` (Bonferroni), TPR > exp(2 epsilon) FPR + delta (1 +
    exp(epsilon)), or the same of (TNR, FNR), by Clopper-Pearson intervals of the rates; an exchange
    of records as in `advantage_bound`.

    Args:
        decision, member: (n,) bool, who is called a member, and who is one.
    """
    from scipy.stats import binomtest

    if 2 * epsilon > 700:
        return False  # whatever that allows is more than 1
    slack = delta * (1 + math.exp(epsilon))

    def rate(events: np.ndarray):
        return binomtest(int(events.sum()), len(events)).proportion_ci(
            1 - 0.05 / tests, method="exact"
        )

    true_and_false = (
        (rate(decision[member]), rate(decision[~member])),
        (rate(~decision[~member]), rate(~decision[member])),
    )
    return any(
        true.low > math.exp(2 * epsilon) * false.high + slack for true, false in true_and_false
    )
