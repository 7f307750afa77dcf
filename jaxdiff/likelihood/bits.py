"""Bits per dimension: how many bits an ideal coder would spend on each element of an example.

bits/dim = -(log p(y) - log q(y | x)) / (D ln 2), with y drawn by a dequantiser where p is a density and x takes whole
levels. A density over the continuum depends on its units: b bits/dim in units of x are b - log2(c) in units of x / c,
which is what the dequantiser's -log q settles."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from jaxdiff.errors import InputError
from jaxdiff.likelihood.dequantize import Dequantizer
from jaxdiff.numerics import as_array, partial
from jaxdiff.numerics.chunks import leading
from jaxdiff.numerics.files import npz, write
from jaxdiff.types import PRNGKey, Scalar, Time


class Bits(NamedTuple):
    """The mean bits/dim of a data set, its confidence interval [low, high], its terms, and every draw.

    `each` is (n, draws): a row an example. The interval is over examples: how far another sample of data from the same
    source would be. `terms` are the means of what log_prob and the dequantiser gave; they add up to the mean. `failed`
    counts the draws without a likelihood (a solver that gave up); if there are any, the mean is NaN, and `each` tells
    which."""

    mean: float
    low: float
    high: float
    terms: dict[str, float]
    failed: int
    each: Float[np.ndarray, "n draws"]


def bits(log_prob: Scalar | Time, dim: int) -> Scalar:
    """-log_prob / (dim ln 2): nats of an example of `dim` elements in bits/dim."""
    return -as_array(log_prob) / (dim * math.log(2))


def bits_per_dim(
    key: PRNGKey,
    log_prob: Callable[..., Any],
    x: Any,
    *,
    dequantize: Dequantizer | None = None,
    draws: int = 1,
    cond: PyTree[Any] = None,
    chunk: int = 32,
    confidence: float = 0.95,
    resume: str | Path | None = None,
    progress: Callable[[int, int], Any] | None = None,
) -> Bits:
    """The bits/dim of the examples `x` (n, ...) under log_prob(key, y, cond), in nats, of one example.

    log_prob returns a number, or a dict of terms that add up to it (`Bound.terms`). `dequantize` (such as
    `dequantize.uniform(256)`) turns levels into a continuum; without one, log_prob is that of x itself: a discrete
    model's log P(x), or a bound on it, and x may be tokens (signed whole numbers). `draws` are averaged an example,
    each with its own dequantisation and key (its own probes). `cond` is a tree of arrays that lead with n; log_prob
    gets its row, or None. `chunk` examples run at a time in one compiled program; a value depends on the key, its
    example's place and its draw alone. With `resume`, an .npz file, what is done is saved after each chunk, and the
    same call goes on from there. `progress(done, n)` is called after each chunk.

    Raises InputError for data that are not finite or none of the dequantiser's levels, a cond that does not lead with
    n, counts below 1, and a resume file of another computation."""
    x = np.asarray(x)
    n = len(x) if x.ndim else 0
    if n < 1 or draws < 1 or chunk < 1 or not 0 < confidence < 1:
        raise InputError(
            f"bits_per_dim got data of shape {x.shape}, draws={draws}, chunk={chunk} and confidence={confidence}, "
            "expected (n, ...) with at least one example, counts of at least 1 and a confidence in (0, 1)"
        )
    tokens = dequantize is None and np.issubdtype(x.dtype, np.signedinteger)
    if not tokens and (not np.issubdtype(x.dtype, np.floating) or not np.isfinite(x).all()):
        raise InputError(f"bits_per_dim got {_described(x)}, expected finite floats in the model's scale")
    leading(n, "example", cond=cond)
    if dequantize is not None:
        dequantize.check(x)
    identity = _identity(key, x, cond, draws, dequantize)
    names, found = _recalled(resume, identity)
    function = partial(log_prob), dequantize
    for begin in range(0, n, chunk):
        end = min(begin + chunk, n)
        if len(found) >= end:
            continue
        places = np.minimum(np.arange(begin, begin + chunk), n - 1)
        rows = jax.tree.map(lambda leaf, places=places: jnp.asarray(np.asarray(leaf)[places]), (x, cond))
        terms = _chunk(key, jnp.asarray(places, jnp.uint32), rows, function, draws)
        names = list(terms)
        nats = np.stack([np.asarray(terms[name], np.float64) for name in names], -1)  # (chunk, draws, terms)
        new = np.asarray(-nats[: end - begin] / (x[0].size * math.log(2)))
        found = np.concatenate([found[:begin], new]) if begin else new
        _remember(resume, identity, names, found)
        if progress is not None:
            progress(end, n)
    return _summary(names, found, confidence)


@eqx.filter_jit
def _chunk(key, places, rows, function, draws):
    log_prob, dequantize = function

    def one(place, x, cond):
        def draw(i):
            noise_key, key_i = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, place), i))
            y, bonus = (x, None) if dequantize is None else dequantize(noise_key, x)
            value = log_prob(key_i, y, cond)
            terms = value if isinstance(value, dict) else {"log_prob": value}
            return terms if bonus is None else terms | {"dequantization": bonus}

        return jax.lax.map(draw, jnp.arange(draws, dtype=jnp.uint32))

    return jax.vmap(one)(places, *rows)


def _summary(names, found, confidence):
    each = found.sum(-1)
    failed = int((~np.isfinite(each)).sum())
    each = np.where(np.isfinite(each), each, np.nan)
    mean = each.mean(1)
    spread = mean.std(ddof=1) / math.sqrt(len(mean)) if len(mean) > 1 else math.nan
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * spread
    middle, terms = float(mean.mean()), dict(zip(names, found.mean((0, 1)).tolist(), strict=True))
    return Bits(middle, middle - reach, middle + reach, terms, failed, each)


def _described(x):
    if not np.issubdtype(x.dtype, np.floating):
        return f"data of dtype {x.dtype}"
    return f"{int((~np.isfinite(x)).sum())} values that are NaN or infinite"


def _identity(key, *what):
    """A fingerprint of everything that the values depend on but the model, whose file the caller names."""
    dequantize = what[-1]
    digest = hashlib.sha256(f"{type(dequantize).__name__} {getattr(dequantize, 'levels', None)}".encode())
    for leaf in jax.tree.leaves((jax.random.key_data(key), *what)):
        array = np.asarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _recalled(resume, identity):
    """(names of the terms, bits/dim (done, draws, terms)) of an earlier call; nothing where there was none."""
    if resume is None or not (path := Path(resume)).exists():
        return [], np.zeros((0, 0, 0))
    try:
        with np.load(path, allow_pickle=False) as saved:
            whose, names, found = str(saved["identity"]), saved["names"].tolist(), np.array(saved["bits"])
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} cannot be read as an unfinished bits_per_dim ({error}); remove it") from error
    if whose != identity:
        raise InputError(
            f"{path} is of another computation (other data, key, draws or dequantiser); remove it or name another file"
        )
    return names, found


def _remember(resume, identity, names, found):
    if resume is None:
        return
    path = Path(resume)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, npz({"identity": identity, "names": names, "bits": found}))
