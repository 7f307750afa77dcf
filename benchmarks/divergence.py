"""What the divergence of the flow costs: one denoiser call together with v' J v by jvp, beside one denoiser call; the
same by vjp; and all of the trace, the exact divergence, on a small input. A U-Net (28 x 28 x 1, width 32), a batch, in
turns, so that a busy machine slows all alike.

With --prior, what the default prior of a likelihood costs: log q with the exact law at t = 1 in the prior's place less
log q with the process's own prior, in nats. That is log q_1 - log prior at the latent, whose law under data is q_1, so
no flow is solved: its mean is KL(q_1 | prior). The data are a two-dimensional mixture.

python benchmarks/divergence.py [--turns 11] [--batch 8] | --prior

Claim: a call with its divergence costs under three calls; with --prior, the price of the default prior"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
from flax import nnx

from jaxdiff import denoisers, networks, oracles, parameterizations, processes
from jaxdiff.numerics import divergence

PROCESSES = ("vp", "subvp", "ve", "edm", "brownian", "cosine", "flow", "logsnr", "iddpm")


def denoiser(size):
    net = networks.UNet(1, width=32, multipliers=(1, 2), blocks=1, groups=8, rngs=nnx.Rngs(0))
    apply, params = networks.functional(net)
    process = processes.edm()
    denoise = denoisers.from_network(apply, parameterizations.edm(0.5), process)(params)
    return denoise, (size, size, 1), networks.count(params)


def ways(denoise, shape):
    """name -> function of (x, key) of one example."""

    def call(x, t):
        return denoise(x, t)

    def by_jvp(x, t):
        probes = divergence.rademacher(jax.random.key(0), shape, x.dtype)
        return divergence.hutchinson(lambda x: denoise(x, t), x, probes)

    def by_vjp(x, t):
        (v,) = divergence.rademacher(jax.random.key(0), shape, x.dtype)
        y, pull = jax.vjp(lambda x: denoise(x, t), x)
        return y, jnp.sum(v * pull(v)[0])

    def exact(x, t):
        return divergence.exact(lambda x: denoise(x, t), x)

    return {"call": call, "jvp": by_jvp, "vjp": by_vjp, "exact": exact}


def in_turns(functions, x, t, turns):
    seconds = {name: [] for name in functions}
    for turn in range(turns + 1):
        for name, function in functions.items():
            begin = time.perf_counter()
            jax.block_until_ready(function(x, t))
            if turn:  # the first compiles
                seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(turns, batch):
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, median of {turns} in turns")
    for size, names in ((28, ("call", "jvp", "vjp")), (8, ("call", "jvp", "vjp", "exact"))):
        denoise, shape, parameters = denoiser(size)
        functions = {name: jax.jit(jax.vmap(f)) for name, f in ways(denoise, shape).items() if name in names}
        x = jax.random.normal(jax.random.key(1), (batch, *shape))
        found = in_turns(functions, x, jnp.full(batch, 0.02), turns)
        print(f"{batch} images of {size} x {size}, U-Net of {parameters:,} parameters")
        for name, value in found.items():
            target = " (target: under 3)" if name == "jvp" else ""
            print(f"  {name:<6} {1e3 * value:8.1f} ms, {value / found['call']:6.2f} calls{target}")


def prior_price():
    jax.config.update("jax_enable_x64", True)
    n = 1_000_000
    weights, means = [0.3, 0.7], [[-1.0, 0.5], [1.2, -0.3]]
    covs = [[[0.05, 0.02], [0.02, 0.1]], [[0.2, -0.1], [-0.1, 0.15]]]

    @jax.jit
    def price(key, oracle):
        process, data_key = oracle.process, jax.random.fold_in(key, 1)
        z = process.perturb(key, oracle.sample(data_key, n), 1.0)
        gaps = jax.vmap(lambda z: oracle.log_prob(z, 1.0) - process.log_prior(z))(z)
        return gaps.mean(), gaps.std() / n**0.5, jnp.sqrt((gaps**2).mean())

    print(f"nats, {n:,} draws          mean (KL)   standard error   root mean square of one example")
    for name in PROCESSES:
        oracle = oracles.mixture(getattr(processes, name)(), weights, means, covs)
        mean, error, spread = price(jax.random.key(0), oracle)
        print(f"{name:<24} {mean:11.2e} {error:16.1e} {spread:16.2e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--prior", action="store_true")
    options = parser.parse_args()
    prior_price() if options.prior else measure(options.turns, options.batch)


if __name__ == "__main__":
    main()
