"""A network with weights as a feature function: images (N, H, W, C) -> features (N, F), in batches of one size and, for
what is left, of the next power of two, so that few programs serve every N."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.tree_util import Partial

from jaxdiff.errors import InputError
from jaxdiff.metrics import named
from jaxdiff.numerics import chunks


def feature_network(name: str, net: nnx.Module, prepare: Callable[[np.ndarray], np.ndarray], batch: int) -> Any:
    """A feature function `name` that calls `net` on `prepare`d float32 images, `batch` at a time."""
    graph, state = nnx.split(net)
    run = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
    return named(name, Partial(_features, Partial(run, jax.tree.map(jnp.asarray, state)), prepare, batch))


def _features(run, prepare, batch, images):
    images = np.asarray(images)

    def features(places, rows):
        return run(prepare(np.asarray(rows)))

    left = len(images) % batch or min(len(images), batch)
    whole, size = len(images) - left, 1 << (left - 1).bit_length()
    parts = list(chunks.each(features, whole, images[:whole], chunk=batch)) if whole else []
    return np.concatenate([*parts, chunks.over(features, left, images[whole:], chunk=min(batch, size))])


def colours(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W, 1 or 3), floats in [-1, 1] or uint8 grey levels 0..255, as float32 in [-1, 1] (N, H, W, 3)."""
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise InputError(f"images have shape {images.shape}; expected (N, H, W, C) of 1 or 3 channels; convert them")
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise InputError(f"images are {images.dtype}; expected floats in [-1, 1] or uint8 grey levels; convert them")
    x = images.astype(np.float32)
    x = x / np.float32(127.5) - 1 if images.dtype == np.uint8 else np.clip(x, -1, 1)
    return np.broadcast_to(x, (*x.shape[:-1], 3))


def grey_levels(images: np.ndarray) -> np.ndarray:
    """The same images in 0..255, rounded to whole levels as if they had been saved: float32 (N, H, W, 3)."""
    return np.rint((colours(images) + 1) * np.float32(127.5))
