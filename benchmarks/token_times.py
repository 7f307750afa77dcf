"""What a law of training times does to the variance of a bound on tokens: python benchmarks/token_times.py

One time a draw, 1e5 draws, on sequences of 24 tokens of a Markov chain with their exact belief: mean and standard
deviation of weight x bound over [1e-3, 1], for masks and uniform noise on two schedules. The means agree by theory;
where the deviation is large they are known less well."""

import argparse

import jax
import numpy as np

from jaxdiff import alphas, grids, losses, oracles, processes

LAWS = {
    "t": grids.uniform_times,
    "1 - alpha": grids.rest_times,
    "log(1 - alpha)": grids.log_rest_times,
    "log t": grids.log_times,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=100_000)
    n = parser.parse_args().draws
    rng = np.random.default_rng(0)
    oracle = oracles.chain(rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), 3), 24)
    for make in (processes.absorbing, processes.uniform):
        for alpha in (alphas.linear(), alphas.cosine_squared()):
            process = make(3, alpha)
            loss, denoise = losses.bound(process), oracle.denoiser(process)

            @jax.jit
            def costs(key, t, loss=loss, denoise=denoise):
                data_key, key = jax.random.split(key)
                pairs = jax.random.split(key, n), oracle.sample(data_key, n), t
                return jax.lax.map(lambda pair: loss(pair[0], denoise, pair[1], pair[2]), pairs, batch_size=5000)

            for i, (name, law) in enumerate(LAWS.items()):
                time_key, key = jax.random.split(jax.random.key(i))
                keys = jax.random.split(time_key, n)
                t, weight = jax.vmap(lambda k, law=law, process=process: law(k, process, 1, low=1e-3))(keys)
                values = np.asarray(weight[:, 0] * costs(key, t[:, 0]), float)
                print(
                    f"{make.__name__:<10} {type(alpha).__name__:<7} uniform in {name:<15} mean {values.mean():6.2f}, "
                    f"standard deviation {values.std():6.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
