"""Does `sample` at 256 steps compile as fast as at 16? It is one scan, so it should. Prints the ratio of the median
compile times, measured in turns so that a busy machine slows both alike.

python benchmarks/compile_time.py [--turns 15]

Claim: compile time of 256 steps against 16"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp

from jaxdiff import denoisers, grids, parameterizations, processes, samplers

SHORT, LONG, WIDTH, DIM = 16, 256, 128, 64


def network(params, x, c_noise, cond):
    """A residual MLP on flat images, told the noise level."""
    h = x @ params["in"] + c_noise[:, None] * params["noise"]
    for w in params["blocks"]:
        h = h + jax.nn.silu(h) @ w
    return h @ params["out"]


def init(key):
    keys = jax.random.split(key, 7)
    shapes = [(DIM, WIDTH), (WIDTH, DIM), (WIDTH,), *[(WIDTH, WIDTH)] * 4]
    w = [jax.random.normal(k, s) / s[0] ** 0.5 for k, s in zip(keys, shapes, strict=True)]
    return {"in": w[0], "out": w[1], "noise": w[2], "blocks": w[3:]}


def compile_seconds(steps):
    """A fresh compilation of EDM's sampler on a batch of 16."""
    jax.clear_caches()
    process = processes.edm()
    make = denoisers.from_network(network, parameterizations.edm(0.5), process)
    stepper, last, ts = samplers.heun(process), samplers.euler(process), grids.karras(process, steps)
    key, params = jax.random.key(0), init(jax.random.key(1))

    @jax.jit
    def run(params, x):
        return jax.vmap(lambda x: samplers.sample(key, stepper, make(params), x, ts, last=last))(x)

    start = time.perf_counter()
    run.lower(params, jnp.ones((16, DIM))).compile()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=15)
    turns = parser.parse_args().turns
    compile_seconds(SHORT), compile_seconds(LONG)  # warm up
    pairs = [(compile_seconds(SHORT), compile_seconds(LONG)) for _ in range(turns)]
    short, long = map(statistics.median, zip(*pairs, strict=True))
    print(f"compile time, median of {turns}: {SHORT} steps {short:.3f} s, {LONG} steps {long:.3f} s")
    print(f"ratio {long / short:.3f} (target: under 1.15)")


if __name__ == "__main__":
    main()
