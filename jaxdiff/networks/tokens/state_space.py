"""A selective state-space network for long sequences, in both directions (Gu & Dao 2023; Caduceus: Schiff et al. 2024):

    h <- h + gate * drop(mixer(modulate(norm(h), shift, scale)))

The mixer reads x and z off its input, runs x through a short convolution and a selective scan from the left, and with
other weights from the right, and projects (left + right) silu(z) back; both directions share the two projections, which
are most of the weights. The input is added in every block, with conditioning or without. Time and memory are linear in
the length.

A causal network has the left direction alone, and its cache does not grow: the last inputs of each convolution and the
state of each scan."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Int

from jaxdiff.errors import InputError
from jaxdiff.networks.layers import linear
from jaxdiff.networks.tokens.backbone import TokenBackbone
from jaxdiff.networks.tokens.layers import Modulation, TokenNorm, exact, modulate
from jaxdiff.networks.tokens.selective_scan import CHUNK, selective_scan

SLOWEST, FASTEST = 1e-3, 1e-1  # steps dt at first, log-uniform: memories of 10 to 1000 tokens at A = -1


class StateSpace(TokenBackbone):
    """A state-space network tokens (B, L) or probabilities (B, L, states), c_noise (B,), labels (B,) -> logits
    (B, L, vocab) for sequences of any length."""

    def __init__(
        self,
        vocab: int,
        *,
        states: int | None = None,
        width: int = 256,
        depth: int = 8,
        state: int = 16,
        taps: int = 4,
        expand: int = 2,
        cond_dim: int = 128,
        num_classes: int | None = None,
        time_conditioned: bool | None = None,
        causal: bool = False,
        dropout: float = 0.0,
        remat: bool = False,
        chunk: int = CHUNK,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Channels inside a block are `expand` times `width`; each keeps `state` numbers and convolves `taps` tokens.
        `states` counts the ids that it reads (`vocab` unless given, vocab + 1 with a mask); `time_conditioned` is true
        unless it is causal; `remat` keeps only the blocks' inputs for the backward pass; `chunk` is the number of
        tokens that a scan takes at once: more are faster on an accelerator, and take more memory."""
        if min(depth, state, taps, expand) < 1:
            raise InputError(
                f"StateSpace with depth={depth}, state={state}, taps={taps}, expand={expand}: expected positive numbers"
            )
        kind = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        super().__init__(
            vocab,
            states=states,
            width=width,
            cond_dim=cond_dim,
            num_classes=num_classes,
            time_conditioned=not causal if time_conditioned is None else time_conditioned,
            causal=causal,
            centre=False,
            bias=False,
            dropout=dropout,
            remat=remat,
            **kind,
        )
        shape = {"inner": expand * width, "state": state, "taps": taps, "causal": causal, "chunk": chunk}
        shape |= {"features": self.features, "dropout": dropout}
        self.blocks = nnx.List([_Block(width, **shape, **kind) for _ in range(depth)])


class _Block(nnx.Module):
    def __init__(
        self,
        width: int,
        *,
        inner: int,
        state: int,
        taps: int,
        causal: bool,
        chunk: int,
        features: int | None,
        dropout: float,
        **kind,
    ):
        self.norm = TokenNorm(width, centre=False, **kind)
        self.into = linear(width, 2 * inner, use_bias=False, **kind)
        self.out = linear(inner, width, use_bias=False, **kind)
        shape = {"rank": math.ceil(width / 16), "state": state, "taps": taps, "chunk": chunk}
        self.left = _Scan(inner, **shape, **kind)
        self.right = None if causal else _Scan(inner, **shape, **kind)
        self.drop = nnx.Dropout(dropout)
        self.modulation = Modulation(features, width, 3, **kind)

    def __call__(self, h: Array, c: Array | None, mask: Array | None, key: Array | None) -> Array:
        shift, scale, gate = self.modulation(c)
        x, z = jnp.split(self.into(modulate(self.norm(h), shift, scale)), 2, axis=-1)
        read = self.left(x, mask)
        if self.right is not None:
            reverse = None if mask is None else jnp.flip(mask, 1)
            read = read + jnp.flip(self.right(jnp.flip(x, 1), reverse), 1)
        return h + gate * self.drop(self.out(read * jax.nn.silu(z)), deterministic=key is None, rngs=key)

    def memory(self, batch: int, length: int) -> tuple[Array, Array]:
        """The last inputs of the convolution and the state of the scan, before any token; they serve any length."""
        return self.left.memory(batch)

    def step(
        self, h: Array, memory: tuple[Array, Array], c: Array | None, position: Int[Array, ""]
    ) -> tuple[Array, tuple[Array, Array]]:
        """One more token h (B, 1, width); the memory is the convolution's last inputs and the scan's state."""
        shift, scale, gate = self.modulation(c)
        x, z = jnp.split(self.into(modulate(self.norm(h), shift, scale)), 2, axis=-1)
        read, memory = self.left.step(x, memory)
        return h + gate * self.out(read * jax.nn.silu(z)), memory


class _Scan(nnx.Module):
    """Convolve each channel over the last `taps` tokens, then scan with steps and directions read off the result."""

    def __init__(self, channels: int, *, rank: int, state: int, taps: int, chunk: int, **kind):
        self.channels, self.rank, self.state, self.taps, self.chunk = channels, rank, state, taps, chunk
        self.dtype = jnp.dtype(kind["dtype"])
        param_dtype, rngs = kind["param_dtype"], kind["rngs"]
        draw = nnx.initializers.uniform(2 / math.sqrt(taps))  # U(-1, 1) / sqrt(taps), PyTorch's, after the shift
        kernel = draw(rngs.params(), (taps, channels), param_dtype) - 1 / math.sqrt(taps)
        self.kernel, self.bias = nnx.Param(kernel), nnx.Param(jnp.zeros(channels, param_dtype))
        self.read = linear(channels, rank + 2 * state, use_bias=False, **kind)
        span = math.log(FASTEST / SLOWEST)
        dt = SLOWEST * jnp.exp(nnx.initializers.uniform(span)(rngs.params(), (channels,), param_dtype))
        steps = nnx.initializers.constant(dt + jnp.log(-jnp.expm1(-dt)))  # softplus^-1
        self.spread = nnx.Linear(rank, channels, bias_init=steps, **kind)
        rates = jnp.arange(1, state + 1, dtype=param_dtype)[:, None]
        self.log_rate = nnx.Param(jnp.broadcast_to(jnp.log(rates), (state, channels)))
        self.skip = nnx.Param(jnp.ones(channels, param_dtype))

    def __call__(self, x: Array, mask: Array | None) -> Array:
        if mask is not None:
            x = jnp.where(mask[..., None], x, 0)
        past, state = self.memory(len(x))
        return self._scan(jnp.concatenate([past, x], 1), state, mask)[0]

    def memory(self, batch: int) -> tuple[Array, Array]:
        window, state = (batch, self.taps - 1, self.channels), (batch, self.state, self.channels)
        return jnp.zeros(window, self.dtype), jnp.zeros(state, exact(self.dtype))

    def step(self, x: Array, memory: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        past, state = memory
        x = jnp.concatenate([past, x], 1)
        y, state = self._scan(x, state, None)
        return y, (x[:, 1:], state)

    def _scan(self, x, state, mask):
        """x (B, taps - 1 + L, E), the tokens before first -> y (B, L, E) and the state after."""
        length, kernel = x.shape[1] - self.taps + 1, self.kernel[...].astype(x.dtype)
        x = sum((x[:, i : i + length] * kernel[i] for i in range(self.taps)), self.bias[...].astype(x.dtype))
        x = jax.nn.silu(x)
        low, into, out = jnp.split(self.read(x), [self.rank, self.rank + self.state], axis=-1)
        wide = exact(self.dtype)
        x, dt, into, out = (a.astype(wide) for a in (x, self.spread(low), into, out))
        dt = jax.nn.softplus(dt)
        if mask is not None:
            dt = jnp.where(mask[..., None], dt, 0)  # padding leaves the state as it is
        y, state = selective_scan(x, dt, -jnp.exp(self.log_rate[...].astype(wide)), into, out, state, chunk=self.chunk)
        return (y + self.skip[...].astype(wide) * x).astype(self.dtype), state
