"""What a user's arrays say, checked: refused where nothing right could come of them, with warnings
where figures would mislead."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from attackers import ATTACKS, Evidence, arrays
from attackers.signals import Release
from attackers.statistic import MIN_SHADOWS
from auditing import oddities
from auditing.evidence_file import check_names
from auditing.outputs import Outputs, outputs
from core.console import UserError

MOST_LEFT_OUT = 0.1  # of the targets, as too few shadow models know them
MANY_GROUPS = 20  # from so many groups on, they must have two records each on average
FEWEST_ONLINE = ATTACKS["lira"].options["shadows"][1]


@dataclass(frozen=True, eq=False)
class Given:
    """The answers of all models for N records, and what is known of these.

    Attributes:
        labels: (N,) int64.
        member: (N,) bool, the truth: for judging alone.
        target: (N,) bool, the records in question; all others are known non-members.
        record_ids: (N,), the user's, else row numbers.
        group: (N,) of text; None where there are none.
        released: answers of the model that is audited and of S shadow models, which may be 0.
        original: the same before compression; None where it is not known.
        shadow_member, calibration_mask: (S, N) bool, as of `Evidence`.
        warnings: what is odd, a text each.
    """

    labels: np.ndarray
    member: np.ndarray
    target: np.ndarray
    record_ids: np.ndarray
    group: np.ndarray | None
    released: Release
    original: Release | None
    shadow_member: np.ndarray
    calibration_mask: np.ndarray
    warnings: list[str]

    @property
    def num_cls(self) -> int:
        return self.released.victim.logits.shape[1]

    @property
    def online(self) -> bool:
        """Whether shadow models were trained on targets too."""
        return bool(self.shadow_member[:, self.target].any())

    def evidence(self, attacked: Release, also: Mapping[str, Release] | None = None) -> Evidence:
        """What an attacker of this release has, without the truth."""
        return Evidence(
            labels=self.labels,
            victim=attacked.victim,
            shadows=attacked.shadows,
            member=self.shadow_member,
            calibration_mask=self.calibration_mask,
            target=self.target,
            online=self.online,
            record_ids=np.arange(len(self.labels)),
            also=dict(also or {}),
        )


def checked(found: Mapping[str, np.ndarray]) -> Given:
    """The arrays of an audit (`evidence_file.ARRAYS`), checked.

    Raises:
        UserError: one is missing, of another shape, holds what it cannot, or contradicts another.
    """
    check_names("arrays", list(found))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            given = _checked(found)
        except ValueError as error:
            raise UserError(str(error)) from error
    given.warnings.extend(dict.fromkeys(str(one.message) for one in caught))
    return given


def _checked(found: Mapping[str, np.ndarray]) -> Given:
    victim = outputs(found, "victim", (None, None), "(N, C), a column a class")
    if victim is None:
        raise UserError("victim is missing: the model's posteriors (N, C), or victim_logits")
    for name, what in (("labels", "the records' classes"), ("member", "who was trained on")):
        if name not in found:
            raise UserError(f"{name} is missing: {what}, (N,)")
    n, num_cls = victim.values.shape
    labels = arrays.classes("labels", found["labels"], n, num_cls)
    target = _flags(found, "target", n) if "target" in found else np.ones(n, bool)
    member = _truth(found, n, target)
    shadows = _shadows(found, "shadows", victim)
    shadow_member, mask = _membership(found, shadows, target)
    unknown = _hardly_known(shadow_member, target)
    if unknown.any():
        given = _checked(_without(found, unknown))
        given.warnings.append(
            f"targets left out, as fewer than {MIN_SHADOWS} shadow models were trained with them, or "
            f"without: {unknown.sum()} of {target.sum()}"
        )
        return given
    _check_not_among(shadows, victim)
    original = _original(found, victim, shadows)
    models = {"victim": victim, "shadows": shadows, "original": original}
    odd = [
        *oddities.of_classes(labels[target], member[target]),
        *oddities.of_rounding({name: one for name, one in models.items() if one is not None}),
        *oddities.of_dealing(shadow_member[:, target], member[target]),
    ]
    if original is not None and np.array_equal(original.values, victim.values):
        odd.append("original answers just as victim: nothing was changed by compression")
    of_original = None if original is None else _shadows(found, "original_shadows", original)
    return Given(
        labels,
        member,
        target,
        _record_ids(found, n),
        _groups(found, n),
        _release(victim, shadows),
        None if original is None else _release(original, of_original),
        shadow_member,
        mask,
        odd,
    )


def _check_not_among(shadows: Outputs | None, victim: Outputs) -> None:
    """Raise UserError where a shadow model is the one that is audited, by answers that are too many
    to be the same by chance."""
    varied = len(np.unique(victim.values)) > len(victim.values)
    for number, one in enumerate(shadows.values if shadows is not None and varied else ()):
        if np.array_equal(one, victim.values):
            raise UserError(f"shadows[{number}] answers just as victim: it is the same model")


def _flags(found: Mapping[str, np.ndarray], name: str, *shape: int) -> np.ndarray:
    words = "(N,)" if len(shape) == 1 else "(S, N)"
    return arrays.flags(name, found[name], shape, words)


def _truth(found: Mapping[str, np.ndarray], n: int, target: np.ndarray) -> np.ndarray:
    """`member`, where there are targets of either kind and no member beside them."""
    member = _flags(found, "member", n)
    if (member & ~target).any():
        row = int((member & ~target).argmax())
        raise UserError(
            f"member[{row}] is 1 where target is 0: records that are no targets are known "
            f"non-members"
        )
    if not target.any() or member[target].all() or not member[target].any():
        kind = "members" if member[target].any() else "non-members"
        raise UserError(
            f"member: all targets are {kind}: an attack is judged by how it tells one kind from the "
            f"other"
        )
    return member


def _shadows(found: Mapping[str, np.ndarray], name: str, victim: Outputs) -> Outputs | None:
    n, num_cls = victim.values.shape
    words = f"(S, N, C) for the N = {n} records and C = {num_cls} classes of the model"
    return outputs(found, name, (None, n, num_cls), words)


def _membership(
    found: Mapping[str, np.ndarray], shadows: Outputs | None, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`shadow_member` and `calibration_mask`, (S, N) each; (0, N) where there are no shadows."""
    n = len(target)
    if shadows is None:
        for name in ("shadow_member", "calibration_mask"):
            if name in found:
                raise UserError(f"{name} is given, but shadows are missing: posteriors (S, N, C)")
        return np.zeros((0, n), bool), np.zeros((0, n), bool)
    if "shadow_member" not in found:
        raise UserError("shadow_member is missing: whom each shadow was trained on, (S, N)")
    count = len(shadows.values)
    member = _flags(found, "shadow_member", count, n)
    if not member.any():
        raise UserError("shadow_member: no shadow model was trained on any of these records")
    if count > 1 and (member == member[0]).all():
        raise UserError(
            "shadow_member: all shadow models were trained on the same records, so that no record "
            "has models with it and without it: draw another half of the records for each"
        )
    mask = found.get("calibration_mask")
    member, _, mask = arrays.membership(member, target, mask, shape=(count, n))
    return member, mask


def _hardly_known(shadow_member: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Targets (N,) bool of which attacks that compare with a record's shadow models can say nothing,
    where all but a few can be compared; nobody where too few would be left, or there are too few
    shadow models for such attacks."""
    count, inside = len(shadow_member), shadow_member.sum(axis=0)
    unknown = target & (np.minimum(inside, count - inside) < MIN_SHADOWS)
    few = count < FEWEST_ONLINE or not shadow_member[:, target].any()
    return (
        np.zeros_like(unknown) if few or unknown.sum() > MOST_LEFT_OUT * target.sum() else unknown
    )


def _without(found: Mapping[str, np.ndarray], unknown: np.ndarray) -> dict[str, np.ndarray]:
    """The same arrays without these records, which keep their numbers."""
    ids = {"record_ids": np.arange(len(unknown))} | dict(found)
    return {
        name: np.asarray(array)[:, ~unknown]
        if "shadow" in name or name == "calibration_mask"
        else np.asarray(array)[~unknown]
        for name, array in ids.items()
    }


def _original(
    found: Mapping[str, np.ndarray], victim: Outputs, shadows: Outputs | None
) -> Outputs | None:
    original = outputs(
        found, "original", victim.values.shape, "(N, C), as the model's, before compression"
    )
    of_shadows = {"original_shadows", "original_shadows_logits"} & set(found)
    if original is None and of_shadows:
        raise UserError("original_shadows are given, but original is missing")
    if original is not None and shadows is not None and not of_shadows:
        raise UserError(
            "original_shadows are missing: the same shadow models before compression, (S, N, C)"
        )
    if original is not None and shadows is None and of_shadows:
        raise UserError("original_shadows are given, but shadows are missing")
    if original is not None and of_shadows:
        assert shadows is not None
        name = of_shadows.pop()
        if len(found[name]) != len(shadows.values):
            raise UserError(
                f"{name} are {len(found[name])} models, shadows are {len(shadows.values)}: the same "
                f"models in the same order"
            )
    return original


def _release(victim: Outputs, shadows: Outputs | None) -> Release:
    return Release(victim.signals(), [] if shadows is None else shadows.each_signals())


def _record_ids(found: Mapping[str, np.ndarray], n: int) -> np.ndarray:
    if "record_ids" not in found:
        return np.arange(n)
    ids = _text_or_numbers(found, "record_ids", n)
    values, counts = np.unique(ids, return_counts=True)
    if len(values) < n:
        raise UserError(
            f"record_ids: {values[counts.argmax()]} stands twice: each names one record"
        )
    return ids


def _groups(found: Mapping[str, np.ndarray], n: int) -> np.ndarray | None:
    if "group" not in found:
        return None
    groups = _text_or_numbers(found, "group", n).astype(str)
    count = len(np.unique(groups))
    if count > max(MANY_GROUPS, n // 2):
        raise UserError(
            f"group has {count} values for {n} records: a group is of many records (names of records "
            f"are record_ids)"
        )
    return groups


def _text_or_numbers(found: Mapping[str, np.ndarray], name: str, n: int) -> np.ndarray:
    array = np.asarray(found[name])
    if array.shape != (n,):
        raise UserError(f"{name} must be of shape (N,) = ({n},), not {array.shape}")
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype.kind not in "biufU":
        raise UserError(f"{name} must be text or numbers, not {array.dtype}")
    return array
