"""Draw many samples: each depends on its key and index alone, in chunks of one compiled program.

Every chunk has the same size, the last one padded, so `n` changes neither the program nor a sample's bits, and device
memory does not grow with it. The number of steps is data, so that a sampler is one program at any budget."""

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxdiff.errors import InputError
from jaxdiff.numerics import chunks, partial
from jaxdiff.processes.categorical import Categorical, check_tokens
from jaxdiff.samplers.recipes import Sampler
from jaxdiff.types import Noise, PRNGKey


def draw(
    key: PRNGKey,
    n: int,
    make_denoise: Callable[..., Any],
    sampler: Sampler,
    shape_like: Any,
    *,
    cond: PyTree[Any] = None,
    x0: PyTree[Any] = None,
    start: int = 0,
    chunk: int | None = None,
    noise: Noise = jax.random.normal,
    progress: Callable[[int, int], Any] | None = None,
) -> PyTree[np.ndarray]:
    """`n` samples as NumPy arrays (n, ...), sample i from fold_in(key, start + i).

    `make_denoise(cond)` gives one example's denoiser from that example's row of `cond`, whose leaves lead with n
    (`from_network(...).bind(params)` is such a function). `shape_like` is one example: a shape, an array, a
    `jax.ShapeDtypeStruct`, or a tree of the last two; tokens are int32 whatever it says. With `x0`, n examples, each
    starts from its own data noised to the sampler's first time (`sampler.begin(level)` chooses it). `chunk` examples
    run at a time (by default as many as make 4 million numbers, for tokens those of a belief, at most 128); samples are
    the same bits for every n, and for every `start` that is a multiple of `chunk`. `progress(done, n)` is called after
    each chunk. Raises InputError for a bad n, start or chunk, a cond or x0 that does not lead with n, an x0 with what
    is no token, or tokens that start where data are left, and from no x0."""
    options = {"cond": cond, "x0": x0, "start": start, "chunk": chunk, "noise": noise, "progress": progress}
    return chunks.joined(list(draw_chunks(key, n, make_denoise, sampler, shape_like, **options)))


def draw_chunks(
    key: PRNGKey,
    n: int,
    make_denoise: Callable[..., Any],
    sampler: Sampler,
    shape_like: Any,
    *,
    cond: PyTree[Any] = None,
    x0: PyTree[Any] = None,
    start: int = 0,
    chunk: int | None = None,
    noise: Noise = jax.random.normal,
    progress: Callable[[int, int], Any] | None = None,
) -> Iterator[PyTree[np.ndarray]]:
    """What `draw` returns, chunk by chunk, for samples that need not be in memory together."""
    if n < 1:
        raise InputError(f"draw got n={n} samples, expected at least 1")
    if start < 0 or (chunk is not None and chunk < 1):
        raise InputError(f"draw got start={start} and chunk={chunk}, expected start >= 0 and chunk >= 1 (or None)")
    chunks.leading(n, "sample", cond=cond, x0=x0)
    like = sampler.like(shape_like)
    if x0 is None:
        jax.eval_shape(lambda key: sampler.start(key, like), key)  # refuses a first time at which noise has no law
    if x0 is not None and (found := jax.tree.map(lambda leaf: np.shape(leaf)[1:], x0)) != (
        wanted := jax.tree.map(lambda leaf: leaf.shape, like)
    ):
        raise InputError(f"x0 has examples of shape {found}, expected {wanted}, the shape that is drawn")
    if x0 is not None and isinstance(sampler.process, Categorical):
        x0 = np.asarray(check_tokens(sampler.process, x0))
    # A belief has as many numbers as the state, or for tokens as many a token as there are states.
    size = sum(leaf.size for leaf in jax.tree.leaves(like)) * getattr(sampler.process, "states", 1)
    chunk = chunk or chunks.fitting(size)
    sampler = sampler.checked()
    count = jnp.int32(len(sampler.ts) - 1)
    sampler = eqx.tree_at(lambda sampler: sampler.ts, sampler, _with_room(sampler.ts))
    fixed = partial(make_denoise), sampler, _Like(like), partial(noise), count
    return _chunks(key, n, fixed, (cond, x0), start, chunk, progress)


def _with_room(ts):
    """The times, the last repeated to 257, or else to a power of two and one: one program for any number of steps."""
    room = max(256, 1 << (len(ts) - 2).bit_length())
    return jnp.pad(ts, (0, room + 1 - len(ts)), mode="edge")


def _chunks(key, n, fixed, rows, start, chunk, progress):
    pending, waiting = None, 0
    for begin in range(0, n, chunk):
        places = np.minimum(np.arange(begin, begin + chunk), n - 1)
        given = jax.tree.map(lambda leaf, places=places: jnp.asarray(np.asarray(leaf)[places]), rows)
        indices = jnp.arange(begin, begin + chunk, dtype=jnp.uint32) + np.uint32(start)
        batch = _chunk(key, indices, fixed, given)
        # Fetch the chunk before this one while the device computes.
        if pending is not None:
            yield jax.device_get(pending)
        pending, waiting = batch, n - begin
        if progress is not None:
            progress(begin, n)
    last = jax.device_get(pending)
    if progress is not None:
        progress(n, n)
    yield jax.tree.map(lambda leaf: leaf[:waiting], last)


class _Like(eqx.Module):
    """The shape of one example, static for the compiled chunk."""

    like: Any = eqx.field(static=True)

    def __init__(self, like):
        leaves, form = jax.tree.flatten(like)
        self.like = tuple((leaf.shape, leaf.dtype) for leaf in leaves), form

    def structs(self):
        leaves, form = self.like
        return jax.tree.unflatten(form, [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in leaves])


@eqx.filter_jit
def _chunk(key, indices, fixed, rows):
    make_denoise, sampler, like, noise, count = fixed

    def one(index, rows):
        cond, x0 = rows
        start_key, walk_key = jax.random.split(jax.random.fold_in(key, index))
        if x0 is None:
            x = sampler.start(start_key, like.structs())
        else:
            data = jax.tree.map(lambda leaf, struct: leaf.astype(struct.dtype), x0, like.structs())
            x = sampler.renoise(start_key, data)
        return sampler.run(walk_key, make_denoise(cond), x, noise, count)

    return jax.vmap(one)(indices, rows)
