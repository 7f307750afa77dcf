"""What sampling costs beyond its network calls: python benchmarks/sampler_overhead.py

An 18-step Heun run (35 denoiser calls) of DDPM++ (2,207,235 parameters, 32 x 32 x 3, batch 16) beside a scan of 35 bare
calls of the same network on the same batch, in turns, in one process. Prints the ratio of medians and of minima.

Claim: what a sampler costs beyond its network calls"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxdiff import networks, preconditioning, processes, samplers

BATCH, CALLS = 16, 35


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    net = networks.ddpmpp(3, 32, width=32, multipliers=(2, 2, 2), blocks=2, attention=(16,), rngs=nnx.Rngs(0))
    apply, params = networks.functional(net)
    assert networks.count(params) == 2_207_235
    process = processes.edm()
    network = preconditioning.edm().network(apply, process)
    sampler = samplers.edm(process, steps=18)
    x = jax.random.normal(jax.random.key(0), (BATCH, 32, 32, 3))
    keys = jax.random.split(jax.random.key(1), BATCH)

    @jax.jit
    def run(params, x):
        def one(key, x):
            return sampler.run(key, network(params), 80 * x, jax.random.normal)

        return jax.vmap(one)(keys, x)

    @jax.jit
    def bare(params, x):
        def call(x, c_noise):
            return apply(params, x, jnp.full(BATCH, c_noise), None), None

        return jax.lax.scan(call, x, jnp.linspace(1.1, -1.5, CALLS))[0]

    times = {run: [], bare: []}
    for turn in range(options.turns + 1):
        for function, seconds in times.items():
            begin = time.perf_counter()
            jax.block_until_ready(function(params, x))
            if turn:  # the first compiles
                seconds.append(time.perf_counter() - begin)
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {options.turns} turns")
    for name, function in (("18 steps of Heun", run), (f"scan of {CALLS} calls", bare)):
        print(f"{name:<20} median {np.median(times[function]):.3f} s, least {min(times[function]):.3f} s")
    for name, summary in (("medians", np.median), ("minima", min)):
        print(f"beyond the calls, by {name}: {100 * (summary(times[run]) / summary(times[bare]) - 1):.1f} %")


if __name__ == "__main__":
    main()
