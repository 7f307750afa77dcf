"""Checkpoints of discrete diffusion with transformers (Schiff et al. 2024, "UDLM"; Sahoo et al. 2024) as networks.

    net = udlm.load("model.safetensors", config)
    logits = net.logits(tokens, sigma, cond)          # sigma = -log alpha(t); raw outputs over all ids
    network = denoisers.from_token_network(net.apply, processes.uniform(net.vocab), level=denoisers.total_noise)
    denoise = network(net.params, cond)               # the belief about one example, for losses and samplers

A weight called "blocks.0.attn_qkv.weight" is ours at ("blocks", 0, "qkv", "kernel"), its axes swapped; published files
put "backbone." before each name. `config` has

    vocab        ids, special ones and a mask included         n_heads      heads of attention
    length       tokens of the longest sequence                cond_dim     length of the conditioning vector
    hidden_size  channels                                      num_classes  classes besides the null class, or None
    n_blocks     blocks"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PyTree

from jaxdiff.errors import InputError
from jaxdiff.networks import TokenDiT, functional
from jaxdiff.networks.tokens.rotary import frequencies
from jaxdiff.numerics import concrete, require, sealed
from jaxdiff.pretrained.weights import filled, read_arrays

__all__ = ["Pretrained", "from_arrays", "load"]

SIZES = ("vocab", "length", "hidden_size", "n_blocks", "n_heads", "cond_dim")
PREFIX = "backbone."
ROTARY = "rotary_emb.inv_freq"
PARTS = {
    "embed": "vocab_embed",
    "conditioning.hidden": "sigma_map.mlp.0",
    "conditioning.out": "sigma_map.mlp.2",
    "conditioning": "cond_map.embedding_table",
    "qkv": "attn_qkv",
    "out": "attn_out",
    "up": "mlp.0",
    "down": "mlp.2",
    "modulation.read": "adaLN_modulation",
}
"""What a checkpoint calls the parts of a network and of a block."""
ENDS = {"norm": "norm_final", "out": "linear", "modulation.read": "adaLN_modulation"}
"""What it calls the parts of the head."""


class Pretrained(eqx.Module):
    """A trained network: `apply(params, tokens, sigma, cond, key=None)` -> logits, and its parameters.

    `vocab` counts its ids, `length` the tokens of the longest sequence that it was made for, `classes` its classes, 0
    for none; the null class is the one after them."""

    apply: Any
    params: PyTree
    vocab: int = eqx.field(static=True)
    length: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)

    def logits(self, tokens: Any, sigma: Any, cond: Any = None) -> Float[Array, "batch length vocab"]:
        """The network's raw outputs (B, L, vocab) for ids (B, L), sigma = -log alpha a number or one a row, and classes
        (B,) or None for the null class.

        Raises InputError for another shape, ids or classes out of range, and sequences over the length."""
        tokens = _ids("tokens", tokens, self.vocab, "ids")
        if tokens.ndim != 2 or tokens.shape[1] > self.length:
            raise InputError(
                f"tokens have shape {tokens.shape}, expected (batch, length) of at most {self.length} tokens"
            )
        sigma = jnp.asarray(sigma, jnp.float32)
        if sigma.shape not in ((), (1,), (len(tokens),)):
            raise InputError(f"sigma has shape {sigma.shape} for {len(tokens)} rows, expected one number, or one a row")
        if cond is not None:
            if not self.classes:
                raise InputError("this network has no classes but got cond: leave it out")
            cond = _ids("cond", cond, self.classes + 1, "classes, the null class the last")
            if cond.shape != (len(tokens),):
                raise InputError(f"cond has shape {cond.shape} for {len(tokens)} rows, expected one class a row")
        found = _logits(self.apply, self.params, tokens, jnp.broadcast_to(sigma, len(tokens)), cond)
        # Of traced ids nothing was refused yet.
        found = found if concrete(tokens) else sealed(found, (tokens >= 0) & (tokens < self.vocab))
        if cond is None or concrete(cond):
            return found
        return sealed(found, (cond >= 0) & (cond <= self.classes))


@jax.jit
def _logits(apply, params, tokens, sigma, cond):
    return apply(params, tokens, sigma, cond)


def _ids(what, given, count, kind):
    ids = jnp.asarray(given)
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise InputError(f"{what} are {ids.dtype}, expected whole numbers from 0 to {count - 1}")
    message = f"{what} hold a number outside 0 to {count - 1}: there are {count} {kind}"
    return require(ids, (ids >= 0) & (ids < count), message).astype(jnp.int32)


def load(path: str | Path, config: Mapping[str, Any]) -> Pretrained:
    """The network of an .npz or .safetensors file with the names of published checkpoints.

    Raises InputError for a file that is not there or damaged, says of PyTorch's own format how to convert it, and
    otherwise is `from_arrays`."""
    return from_arrays(config, read_arrays(path), what=str(path))


def from_arrays(config: Mapping[str, Any], arrays: Mapping[str, Any], *, what: str = "the arrays") -> Pretrained:
    """The network of a checkpoint from its sizes and its arrays by name, with or without "backbone." before each.

    Raises InputError for an option that is missing, unknown or no size, and one sentence that names the arrays that are
    missing, unknown or of another shape."""
    sizes, classes = _sizes(config)
    if sizes["hidden_size"] % (2 * sizes["n_heads"]):
        raise InputError(
            f"config has hidden_size={sizes['hidden_size']} and n_heads={sizes['n_heads']}: expected heads of an even "
            f"number of channels"
        )
    arrays = {name.removeprefix(PREFIX): np.asarray(value) for name, value in arrays.items()}
    turns = frequencies(sizes["hidden_size"] // sizes["n_heads"], jnp.dtype(jnp.float32))
    if ROTARY in arrays and (arrays[ROTARY].shape != turns.shape or not np.allclose(arrays[ROTARY], turns, rtol=1e-5)):
        raise InputError(f"{what}: {ROTARY} are not the rotary frequencies of base 10000 for {sizes['n_heads']} heads")

    def build():
        return TokenDiT(
            sizes["vocab"],
            width=sizes["hidden_size"],
            depth=sizes["n_blocks"],
            heads=sizes["n_heads"],
            cond_dim=sizes["cond_dim"],
            num_classes=classes or None,
            rngs=nnx.Rngs(0),
        )

    apply, params = functional(filled(build, arrays, _named, left=(ROTARY,), what=what))
    return Pretrained(apply, jax.tree.map(jnp.asarray, params), sizes["vocab"], sizes["length"], classes)


def _sizes(config):
    if unknown := sorted(map(str, config.keys() - {*SIZES, "num_classes"})):
        raise InputError(f"config has {', '.join(unknown)}: expected {', '.join(SIZES)}, num_classes")
    if missing := [name for name in SIZES if name not in config]:
        raise InputError(f"config lacks {', '.join(missing)}, which have no default")
    classes = config.get("num_classes")
    given = {name: config[name] for name in SIZES} | ({} if not classes else {"num_classes": classes})
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise InputError(f"config has {name}={value!r}, expected a whole number of at least 1")
    return {name: int(config[name]) for name in SIZES}, int(classes or 0)


def _named(place):
    *modules, leaf = map(str, place)
    if modules[0] == "blocks":
        inner = ".".join(modules[2:])
        modules = [*modules[:2], PARTS.get(inner, inner)]
    else:
        whole = ".".join(modules)
        modules = ["output_layer", ENDS[whole]] if whole in ENDS else [PARTS[whole]]
    leaf = {"table": "embedding" if modules == ["vocab_embed"] else "weight", "bias": "bias"}.get(leaf, "weight")
    return ".".join([*modules, leaf]), (1, 0) if place[-1] == "kernel" else (0, 1) if place[-1] == "table" else (0,)
