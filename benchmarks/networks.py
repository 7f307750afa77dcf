"""Is the network as fast as the same arithmetic in PyTorch? One DDPM++ (32 x 32 x 3, width 32, multipliers (2, 2, 2),
two blocks a level, attention at 16; 2,207,235 parameters), batch 16, on the CPU, in both, with the same weights: the
outputs are asserted equal, then forward, and forward with the gradient of every parameter, are timed in turns, so that
a busy machine slows both alike. Prints the median milliseconds and the ratio. With one thread it is pinned to one core
and counts processor time, which other programs on the machine hardly change; PyTorch's threads wait for each other, so
on a busy machine their wall time says nothing.

python benchmarks/networks.py [--turns 15] [--threads 2]      (needs `pip install torch`, no dependency of jaxdiff)

Claim: DDPM++ beside the same network in PyTorch (with torch installed)"""

import argparse
import math
import os
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxdiff.networks import count, ddpmpp, functional
from jaxdiff.pretrained import edm_names

try:
    import torch
    from torch.nn import functional as F
except ImportError:
    sys.exit("this benchmark compares with PyTorch, which is not installed: pip install torch")

SIZE, CHANNELS, WIDTH, LEVELS, BLOCKS, BATCH, PARAMETERS = 32, 3, 32, 3, 2, 16, 2_207_235
ROOT_HALF = math.sqrt(0.5)


class Mirror:
    """The same network in PyTorch, a function of the checkpoint's weights `w`."""

    def __init__(self, arrays):
        self.w = {
            name.removeprefix("model."): torch.tensor(value, requires_grad=True)
            for name, value in arrays.items()
            if not name.endswith("resample_filter")
        }

    def layer(self, name):
        return self.w[f"{name}.weight"], self.w[f"{name}.bias"]

    def norm(self, name, x):
        return F.group_norm(x, min(32, x.shape[1] // 4), *self.layer(name), eps=1e-6)

    def conv(self, name, x):
        weight, bias = self.layer(name)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    def block(self, name, x, emb):
        def resize(x):
            if name.endswith("_down"):
                return F.avg_pool2d(x, 2)
            return F.interpolate(x, scale_factor=2, mode="nearest") if name.endswith("_up") else x

        h = self.conv(f"{name}.conv0", resize(F.silu(self.norm(f"{name}.norm0", x))))
        h = h + F.linear(emb, *self.layer(f"{name}.affine"))[:, :, None, None]
        h = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", h)))
        x = resize(x)
        x = (h + (self.conv(f"{name}.skip", x) if f"{name}.skip.weight" in self.w else x)) * ROOT_HALF
        if f"{name}.qkv.weight" not in self.w:
            return x
        qkv = self.conv(f"{name}.qkv", self.norm(f"{name}.norm2", x))
        q, k, v = qkv.reshape(x.shape[0], x.shape[1], 3, -1).permute(2, 0, 3, 1)  # (3, batch, cells, channels)
        read = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return (x + self.conv(f"{name}.proj", read)) * ROOT_HALF

    def __call__(self, x, c_noise):
        half = WIDTH // 2
        angles = c_noise[:, None] * 10000 ** -(torch.arange(half) / (half - 1))
        emb = torch.cat([angles.sin(), angles.cos()], dim=1)
        for name in ("map_layer0", "map_layer1"):
            emb = F.silu(F.linear(emb, *self.layer(name)))
        h = self.conv(f"enc.{SIZE}x{SIZE}_conv", x)
        kept, rungs = [h], [f"{SIZE >> level}x{SIZE >> level}" for level in range(LEVELS)]
        for rung in rungs:
            for name in ("down",) * (rung != rungs[0]) + ("block0", "block1"):
                kept.append(h := self.block(f"enc.{rung}_{name}", h, emb))
        for rung in reversed(rungs):
            for name in ("in0", "in1") if rung == rungs[-1] else ("up",):
                h = self.block(f"dec.{rung}_{name}", h, emb)
            for i in range(BLOCKS + 1):
                h = self.block(f"dec.{rung}_block{i}", torch.cat([h, kept.pop()], dim=1), emb)
        return self.conv(f"dec.{rungs[0]}_aux_conv", F.silu(self.norm(f"dec.{rungs[0]}_aux_norm", h)))


def seconds(run, clock):
    start = clock()
    run()
    return clock() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-options.threads :])  # XLA takes as many threads as cores
    clock = time.process_time if options.threads == 1 else time.perf_counter

    net = ddpmpp(CHANNELS, SIZE, width=WIDTH, multipliers=(2,) * LEVELS, blocks=BLOCKS, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    apply, params = functional(net)
    assert count(params) == PARAMETERS, count(params)
    # What starts near zero would hide a difference.
    params = jax.tree.map(lambda p: p + 0.05 * rng.standard_normal(p.shape).astype(p.dtype), params)
    x = rng.standard_normal((BATCH, SIZE, SIZE, CHANNELS)).astype(np.float32)
    c_noise = np.linspace(-1.5, 1.0, BATCH, dtype=np.float32)

    mirror = Mirror(edm_names.arrays_from_params(net, params))
    x_torch, c_torch = torch.tensor(np.moveaxis(x, -1, 1).copy()), torch.tensor(c_noise)
    x, c_noise = jnp.asarray(x), jnp.asarray(c_noise)
    forward = jax.jit(apply).lower(params, x, c_noise, None).compile()
    gradient = jax.jit(jax.value_and_grad(lambda params: jnp.sum(apply(params, x, c_noise, None) ** 2)))
    gradient = gradient.lower(params).compile()

    def torch_forward():
        with torch.no_grad():
            return mirror(x_torch, c_torch)

    def torch_gradient():
        loss = (mirror(x_torch, c_torch) ** 2).sum()
        return loss, torch.autograd.grad(loss, list(mirror.w.values()))

    ours, theirs = np.moveaxis(np.asarray(forward(params, x, c_noise, None)), -1, 1), torch_forward().numpy()
    assert np.abs(ours - theirs).max() < 1e-4, np.abs(ours - theirs).max()
    got = edm_names.arrays_from_params(net, gradient(params)[1])
    for name, value in zip(mirror.w, torch_gradient()[1], strict=True):
        miss = np.linalg.norm(got[f"model.{name}"] - value.numpy()) / (1e-3 + np.linalg.norm(value.numpy()))
        assert miss < 1e-3, (name, miss)

    print(f"jax {jax.__version__}, torch {torch.__version__}, {options.threads} threads; outputs and gradients agree")
    runs = {
        "forward": (lambda: jax.block_until_ready(forward(params, x, c_noise, None)), torch_forward),
        "forward + backward": (lambda: jax.block_until_ready(gradient(params)), torch_gradient),
    }
    for name, pair in runs.items():
        for run in pair * 2:  # warm up
            run()
        ours, theirs = zip(*[[seconds(run, clock) for run in pair] for _ in range(options.turns)], strict=True)
        a, b = 1e3 * statistics.median(ours), 1e3 * statistics.median(theirs)
        print(
            f"{name:18s}  jaxdiff {a:7.1f} ms   torch {b:7.1f} ms   ratio {a / b:.2f}   "
            f"(fastest {1e3 * min(ours):.1f} and {1e3 * min(theirs):.1f}: {min(ours) / min(theirs):.2f})"
        )


if __name__ == "__main__":
    main()
