"""Where the sampling error comes from, and what a fitted grid gains: python benchmarks/error_budget.py

On a mixture on the line, where the law of a sampler is known without drawing from it. First the exact score, and a
score that is wrong around one noise level: published grids beside `grids.optimal`, which knows the error profile. Then
one small network trained to several qualities, on the mixture and on the same at a tenth of its size: the three terms
of the bound and the exact KL by grid and number of steps.

Prints tables and writes docs/figures/error-budget.png; three minutes of processor time.

Claim: a fitted grid beats Karras's; which grid suits which network ([docs/error-budget.md](docs/error-budget.md))"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxdiff as jd
from jaxdiff.theory import error_budget, line_law, walks

LOW, HIGH = 0.02, 20.0
PROCESS = jd.processes.edm(HIGH)
GRIDS = {
    "polynomial": jd.grids.karras,
    "exponential": jd.grids.logsnr,
    "linear": lambda process, n, sigma_min: jnp.append(jnp.linspace(1.0, sigma_min / HIGH, n), 0.0),
    "VP": lambda process, n, sigma_min: jd.grids.vp(process, n, sigma_min=sigma_min, sigma_max=HIGH),
}
STEPS = (8, 16, 32)
QUALITIES = (50, 300, 6000)
SCALES = (1.0, 0.1)


def mixture(scale):
    return jd.oracles.mixture(PROCESS, [0.3, 0.7], [[-scale], [1.2 * scale]], scale**2 * np.array([0.05, 0.2]))


def wrong_around(oracle, level):
    """The exact belief, with the noise off by sqrt(2) sin(2 x) at `level`, and by less an e-fold away."""

    def denoise(x, t):
        sigma = PROCESS.scales(t)[1]
        wrong = jnp.exp(-0.5 * (jnp.log(sigma / level) / 0.4) ** 2)
        return oracle.denoise(x, t) - 2**0.5 * sigma * wrong * jnp.sin(2 * x)

    return denoise


def fitted(oracle, denoise, walk=walks.SCORE):
    """A grid of the profile of data and network, at any number of steps."""
    profile = error_budget.profile(
        jax.random.key(0), oracle, np.geomspace(LOW, HIGH, 61), denoise=denoise, draws=8192, chunk=1024
    )
    cost = error_budget.step_cost(PROCESS, profile, walk)
    return lambda process, n, sigma_min: jd.grids.optimal(process, n, cost, sigma_min=sigma_min, sigma_max=HIGH)


def measured(oracle, denoise, grid, n, walk=walks.SCORE):
    """(budget, exact KL) of n steps from HIGH to LOW."""
    ts = grid(PROCESS, n + 1, sigma_min=LOW)[:-1]
    budget = error_budget.monte_carlo(jax.random.key(1), oracle, ts, denoise=denoise, walk=walk, draws=2048, chunk=1024)
    return budget, line_law.kl(oracle, denoise, ts, walk=walk, fine=3.0)


def gain():
    """Fitted and published grids on a score that is right, and on one that is wrong around one level."""
    oracle = mixture(1.0)
    scores = {"exact": oracle.denoise, "wrong around .1": wrong_around(oracle, 0.1)}
    scores |= {"wrong around .3": wrong_around(oracle, 0.3), "wrong around 1": wrong_around(oracle, 1.0)}
    print("| score | steps | | " + " | ".join([*GRIDS, "fitted"]) + " | fitted over polynomial |")
    print("|---|---|---|" + "---|" * (len(GRIDS) + 2))
    found = {}
    for score, denoise in scores.items():
        every = GRIDS | {"fitted": fitted(oracle, denoise)}
        for n in STEPS:
            row = {name: measured(oracle, denoise, grid, n) for name, grid in every.items()}
            bounds, kls = [float(b.bound) for b, _ in row.values()], [kl for _, kl in row.values()]
            for what, values in (("bound", bounds), ("exact KL", kls)):
                shown = " | ".join(f"{value:.4f}" for value in values)
                print(f"| {score} | {n} | {what} | {shown} | {values[-1] / values[0]:.2f} |", flush=True)
            found[score, n] = dict(zip(every, zip(bounds, kls, strict=True), strict=True))
    return found


def trained(scale):
    """The denoisers of one network at the numbers of training steps QUALITIES."""
    oracle, row = mixture(scale), jd.parameterizations.edm(scale)
    loss = jd.losses.matching(PROCESS, row)
    apply, params = jd.networks.functional(jd.networks.MLP((1,), hidden=64, rngs=nnx.Rngs(0)))
    network = jd.denoisers.from_network(apply, row, PROCESS)
    optimizer = optax.adam(2e-3)

    def objective(params, key, x0, t):
        return loss(key, network(params), x0.astype(t.dtype), t)

    @jax.jit
    def steps(params, state, keys):
        def step(carry, key):
            params, state = carry
            data_key, time_key, key = jax.random.split(key, 3)
            x0 = oracle.sample(data_key, 256)
            t = jd.grids.ve_times(time_key, PROCESS, 256, sigma_min=LOW, sigma_max=HIGH).t
            keys = jax.random.split(key, 256)
            gradient = jax.grad(lambda p: jax.vmap(objective, (None, 0, 0, 0))(p, keys, x0, t).mean())(params)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), keys)[0]

    state, done, found = optimizer.init(params), 0, {}
    for quality in QUALITIES:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(2), done), quality - done)
        for begin in range(0, len(keys), 50):
            params, state = steps(params, state, keys[begin : begin + 50])
        found[quality], done = network(params), quality
    return oracle, found


def study():
    """{(scale, quality, n): {grid: (E_I, E_D, E_S, bound, KL)}}."""
    print("\n| data std | trained for | steps | grid | E_I | E_D | E_S | bound | exact KL |\n|" + "---|" * 9)
    found = {}
    for scale in SCALES:
        oracle, denoisers = trained(scale)
        for quality, denoise in denoisers.items():
            for n in STEPS:
                row = {}
                for name, grid in GRIDS.items():
                    budget, kl = measured(oracle, denoise, grid, n)
                    terms = budget.initialisation, budget.discretisation.sum(), budget.score.sum(), budget.bound, kl
                    row[name] = tuple(map(float, terms))
                    shown = " | ".join(f"{value:.4f}" for value in row[name])
                    print(f"| {1.08 * scale:.2g} | {quality} | {n} | {name} | {shown} |", flush=True)
                found[scale, quality, n] = row
    # What the claim is about, in one table.
    print("\n| data std | trained for | steps | least E_S | least E_D | least bound | least exact KL |\n|" + "---|" * 7)
    for (scale, quality, n), row in found.items():
        least = [min(row, key=lambda name: row[name][i]) for i in (2, 1, 3, 4)]
        print(f"| {1.08 * scale:.2g} | {quality} | {n} | " + " | ".join(least) + " |")
    return found


def picture(found, file):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.6), layout="constrained")
    axes = figure.subplots(len(SCALES), len(QUALITIES), sharex=True, sharey="row")
    for i, scale in enumerate(SCALES):
        for j, quality in enumerate(QUALITIES):
            axis = axes[i][j]
            for k, name in enumerate(GRIDS):
                rows = [found[scale, quality, n][name] for n in STEPS]
                axis.loglog(STEPS, [row[3] for row in rows], color=f"C{k}", linestyle="--", marker="o", markersize=3)
                axis.loglog(STEPS, [row[4] for row in rows], color=f"C{k}", marker="o", markersize=3, label=name)
            axis.set_title(f"data std {1.08 * scale:.2g}, {quality} training steps", fontsize=9)
            axis.set_xticks(STEPS, [str(n) for n in STEPS])
            axis.minorticks_off()
            if i == len(SCALES) - 1:
                axis.set_xlabel("sampling steps")
        axes[i][0].set_ylabel("nats")
    axes[0][0].legend(fontsize=8, title="KL solid, bound dashed", title_fontsize=8)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, default=Path(__file__).parent.parent / "docs")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    gain()
    picture(study(), options.docs / "figures" / "error-budget.png")


if __name__ == "__main__":
    main()
