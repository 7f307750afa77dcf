"""What the demo's model can do, beside what it costs: python benchmarks/digits_quality.py --workdir=runs/digits

From one network and the same starting noise: EDM at 35 denoiser calls, Heun at 256 steps, and DDPM's ancestral sampling
at 1,000 steps; the Frechet distance of each to the training set with its floor at equal sample counts, and how often a
3-nearest-neighbour classifier of real digits sees the class that was asked for."""

import argparse
import time

from jaxdiff import metrics
from jaxdiff.recipes.images import load, samples

RUNS = {
    "EDM, 18 steps (35 calls)": {"name": "edm", "steps": 18},
    "Heun, 256 steps (511 calls)": {"name": "edm", "steps": 256},
    "DDPM ancestral, 1,000 steps": {"name": "ancestral", "steps": 1000},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", default="runs/digits")
    parser.add_argument("--n", type=int, default=1000)
    options = parser.parse_args()
    experiment, params, step = load(options.workdir)
    train, held_out = experiment.train, experiment.held_out
    print(f"step {step}, {options.n} samples each, {len(train)} training and {len(held_out)} held-out images")
    whole = metrics.moments(metrics.pixels()(train.to_model()))
    distances = {}
    for name, sampler in RUNS.items():
        begin = time.perf_counter()
        pixels, labels = samples(experiment, params, options.n, seed=7, sampler=sampler)
        seconds = time.perf_counter() - begin
        x = type(train)("samples", pixels, levels=train.levels).to_model()
        distances[name] = metrics.frechet_distance(metrics.moments(metrics.pixels()(x)), whole)
        agreement = metrics.class_agreement(
            metrics.pixels()(x), labels, metrics.pixels()(train.to_model()), train.labels
        )
        print(f"{name:<30} Frechet {distances[name]:.4f}   class agreement {agreement:.3f}   {seconds:.0f} s")
    first, second, *_ = distances.values()
    print(f"ratio of the Frechet distances, 35 calls to 511: {first / second:.3f}")
    real = metrics.class_agreement(
        metrics.pixels()(held_out.to_model()), held_out.labels, metrics.pixels()(train.to_model()), train.labels
    )
    print(f"the classifier on {len(held_out)} held-out real digits: {real:.3f}")
    x = metrics.pixels()(held_out.to_model())
    print(f"Frechet distance of the {len(held_out)} held-out digits: {metrics.frechet_distance(metrics.moments(x), whole):.4f}")


if __name__ == "__main__":
    main()
