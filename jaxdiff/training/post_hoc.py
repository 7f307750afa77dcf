"""Post-hoc EMA: from the averages of a few widths, stored along a run, the average of any width at any of its times
(Karras et al. 2024, Sec. 3.2 and appendix C).

A power-function average of exponent g at time t weighs the parameters of time s <= t by p(s) = (g + 1) s^g / t^(g + 1).
The stored p_i span the averages that can be had: sum_i x_i p_i is nearest to the target p in the sense of least squares
where A x = b, A_ij = <p_i, p_j> and b_i = <p_i, p>, inner products that have a closed form. The same x on the stored
parameters is the reconstruction. All is float64: A is nearly singular when snapshots are many, which does no harm to
sum_i x_i p_i."""

import os
import zipfile
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxdiff.errors import InputError
from jaxdiff.training.ema import exponent
from jaxdiff.training.snapshots import PREFIX, Snapshot, by_name, stored


def weights(pairs: Sequence[tuple[float, float]], t: float, sigma_rel: float) -> np.ndarray:
    """The share x_i of each stored average in the one of relative width `sigma_rel` at time `t`; they sum to 1.

    `pairs` are the (time, relative width) of the stored ones; times are numbers of examples, or any unit of the run.
    Raises InputError for no pairs, two alike, a time that is not positive, or a width that is none."""
    times, widths = [float(time) for time, _ in pairs], [float(width) for _, width in pairs]
    if not pairs or min(*times, t) <= 0:
        raise InputError(f"post_hoc.weights got times {times} and t = {t}, expected at least one, and all positive")
    if len(set(zip(times, widths, strict=True))) < len(pairs):
        raise InputError(f"post_hoc.weights got a (time, width) twice among {sorted(pairs)}: give each average once")
    gammas = [exponent(width) for width in widths]
    rows = _products(times, gammas, times, gammas)
    x = np.linalg.solve(rows, _products(times, gammas, [t], [exponent(sigma_rel)])[:, 0])
    return x / x.sum()


def _products(ta, ga, tb, gb):
    """<p_i, p_j> = (g_i + 1) (g_j + 1) r / ((g_i + g_j + 1) max(t_i, t_j)), r = (min / max)^(exponent of the later)."""
    (ta, ga), (tb, gb) = (np.asarray([t, g], np.float64) for t, g in ((ta, ga), (tb, gb)))
    ta, ga = ta[:, None], ga[:, None]
    ratio = np.where(ta < tb, (ta / tb) ** gb, (tb / ta) ** ga)
    return (ga + 1) * (gb + 1) * ratio / ((ga + gb + 1) * np.maximum(ta, tb))


def reconstruct(
    snapshots: str | os.PathLike | Iterable[Snapshot], sigma_rel: float, like: PyTree[Any], *, t: float | None = None
) -> PyTree[Any]:
    """The averaged parameters of relative width `sigma_rel` after `t` examples (by default, at the newest snapshot).

    `snapshots` is the directory that `Snapshots` wrote, or a choice from `snapshots.stored` of it; those later than `t`
    are left out. `like` gives structure, shapes and dtypes, and may be abstract. In memory are one file at a
    time and a float64 sum. Raises InputError where there are no snapshots, one is damaged, or holds
    other parameters."""
    chosen = stored(snapshots) if isinstance(snapshots, str | os.PathLike) else sorted(snapshots)
    t = max((snapshot.position for snapshot in chosen), default=0) if t is None else t
    chosen = [snapshot for snapshot in chosen if snapshot.position <= t]
    if not chosen:
        raise InputError(f"there is no snapshot up to t = {t} in {snapshots}: let a run write some there first")
    shares = weights([(snapshot.position, snapshot.sigma_rel) for snapshot in chosen], t, sigma_rel)
    wanted = by_name(like)
    total = {name: np.zeros(leaf.shape, np.float64) for name, leaf in wanted.items()}
    for snapshot, share in zip(chosen, shares, strict=True):
        _add(total, share, snapshot.path)
    leaves = [jnp.asarray(total[name], leaf.dtype) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _add(total, share, path):
    """total += share * the parameters in the file."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            found = {name.removeprefix(PREFIX): array for name, array in arrays.items()}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}): remove it, and reconstruct from the rest") from error
    if different := total.keys() ^ found.keys():
        name = min(different)
        place = "only in the file" if name in found else "missing in it"
        raise InputError(f"{path} holds other parameters: {name} is {place}")
    for name, value in total.items():
        if found[name].shape != value.shape:
            raise InputError(f"{path}: {name} has shape {found[name].shape} there and {value.shape} in this network")
        value += share * found[name].astype(np.float64)
