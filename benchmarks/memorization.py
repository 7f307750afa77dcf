"""From memorisation to generalisation, measured (docs/memorization.md): python benchmarks/memorization.py

First the linear one-step model, where the answer is known. Then real digits: one network, one budget of training, and
n = 16 to all 1,438 training images; two models on disjoint halves, drawn from the same noise, and several seeds. Prints
the tables and writes docs/figures/memorization.png. What is done stays in --folder and is not done again.

Claim: digits: from remembering to generalising ([docs/memorization.md](docs/memorization.md))"""

import argparse
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxdiff as jd
from jaxdiff import training
from jaxdiff.metrics.estimate import mean
from jaxdiff.numerics.files import write
from jaxdiff.theory import memorization, one_step

NS = (16, 64, 256, 719, 1438)
HIDDEN, DEPTH, STEPS, BATCH, RATE = 256, 2, 2000, 128, 2e-3
SAMPLES, CALLS = 512, 35
SHAPE = (8, 8, 1)
PAIRED = ("correlation", "distance")

PROCESS = jd.processes.edm(sigma_max=40.0)
ROW = jd.parameterizations.edm(0.75)
SAMPLER = jd.samplers.edm(PROCESS, steps=(CALLS + 1) // 2)

# The solvable model ---------------------------------------------------------------------------------------------------

REFERENCE = {20: 0.003, 30: 0.061, 40: 0.435, 80: 0.791}
ORIGINALS = (250, 500, 1000, 2000)


def solvable(runs):
    """P(Delta > 0), by n and the number of fresh draws that stand for the law; "n" is as many as there are in train."""
    model, ns, found = one_step.model(20), tuple(REFERENCE), {}
    for count in ORIGINALS:
        found[f"{count:,}"] = one_step.memorized(jax.random.key(0), model, ns, runs=runs, originals=count)
    found["n"] = [one_step.memorized(jax.random.key(1), model, (n,), runs=runs, originals=n)[0] for n in ns]
    return {count: [(e.value, e.stderr) for e in row] for count, row in found.items()}


def show_solvable(found, runs):
    print(f"\nThe solvable model, d = 20: P(Delta > 0) of {runs:,} training sets\n")
    rows = [(count, *(f"{p:.3f} +- {e:.3f}" for p, e in row)) for count, row in found.items()]
    show(("fresh draws", *(f"n = {n}" for n in REFERENCE)), [*rows, ("the reference", *REFERENCE.values())])
    print("\nIts variance per dimension, and medians of its divergences\n")
    model, rows = one_step.model(20), []
    for n in (10, 20, 25, 30, 40, 80, 1000):
        _, fits = one_step.fits(jax.random.key(n), model, n, runs)
        covs = jax.vmap(one_step.law, (None, 0))(model, fits)[1]
        traces = mean(np.trace(covs, axis1=1, axis2=2) / model.dim)
        away = [np.median(v) for v in jax.vmap(one_step.divergences, (None, 0))(model, fits)]
        exact = float(one_step.expected_trace(model, n))
        rows.append((n, f"{exact:.4f}", traces, *(f"{v:.4g}" for v in away)))
    end = [float(v) for v in one_step.limit(model)]
    rows.append(("infinity", f"{end[0]:.4f}", "", f"{end[1]:.4g}", f"{end[2]:.4g}", ""))
    show(("n", "exact mean", "mean of the runs", "KL(generated, true)", "KL(true, generated)", "Hellinger^2"), rows)


def show(header, rows):
    """A table in Markdown."""
    for row in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


# Real digits ----------------------------------------------------------------------------------------------------------

OPTIMIZER = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))
AVERAGE = training.ema.half_life(20 * BATCH)
LOSS = jd.losses.matching(PROCESS, ROW)


def new_network(seed):
    net = jd.networks.MLP(SHAPE, hidden=HIDDEN, depth=DEPTH, rngs=nnx.Rngs(seed))
    apply, params = jd.networks.functional(net)
    return jd.denoisers.from_network(apply, ROW, PROCESS), params


@jax.jit
def train(key, network, params, images, n):
    """The averaged parameters after STEPS batches drawn from the first `n` of `images`: one program for every n."""
    rows_key, key = jax.random.split(key)

    def one(params, key, example):
        time_key, noise_key = jax.random.split(key)
        t = jd.grids.lognormal_times(time_key, PROCESS, 1, mean=-0.7).t[0]
        return LOSS(noise_key, network(params), example["x"], t)

    step = training.make_train_step(training.per_example(one), OPTIMIZER, ema=AVERAGE)

    def body(state, i):
        rows = jax.random.randint(jax.random.fold_in(rows_key, i), (BATCH,), 0, n)
        index = state.position + jnp.arange(BATCH, dtype=jnp.uint32)
        state, seen = step(state, {"index": index, "x": images[rows]})
        return state, seen["loss"]

    state, losses = jax.lax.scan(body, training.init(key, params, OPTIMIZER, ema=AVERAGE), jnp.arange(STEPS))
    return state.ema, losses


def flat(x):
    return np.asarray(x).reshape(len(x), -1)


def generate(noise_key, seed, images):
    """SAMPLES digits of a network of its own, trained on these images alone."""
    padded = np.zeros((max(NS), *SHAPE), np.float32)
    padded[: len(images)] = images
    network, params = new_network(seed)
    params, _ = train(jax.random.key(seed), network, params, padded, jnp.int32(len(images)))
    return flat(jd.samplers.draw(noise_key, SAMPLES, network.bind(params), SAMPLER, SHAPE))


def one_seed(n, seed, train_images, held_out):
    """One model of n = all images, or two of disjoint n, from the same noise."""
    order = np.random.default_rng(seed).permutation(len(train_images))
    parts = [order[:n], order[n : 2 * n]] if 2 * n <= len(order) else [order[:n]]
    noise_key = jax.random.key(10_000 + seed)
    drawn = [generate(noise_key, 100 * seed + i, train_images[rows]) for i, rows in enumerate(parts)]
    rows = [
        memorization.summary(x, flat(train_images[rows]), flat(held_out)) for x, rows in zip(drawn, parts, strict=True)
    ]
    found = {name: [row[name] for row in rows] for name in rows[0]}
    if len(drawn) == 2:
        two = memorization.agreement(*drawn)
        found |= {"correlation": two.correlation.value, "distance": two.distance.value / two.unpaired}
    return found


def ends(train_images, held_out):
    """What the extremes get: the empirical denoiser of all images, and held-out digits in the place of samples."""
    oracle = jd.oracles.empirical(PROCESS, train_images)
    samples = flat(jd.samplers.draw(jax.random.key(5), SAMPLES, lambda _: oracle.denoise, SAMPLER, SHAPE))
    half = flat(held_out)[::2], flat(held_out)[1::2]
    return {
        "the empirical denoiser, n = 1438": memorization.summary(samples, flat(train_images), flat(held_out)),
        "real held-out digits, n = 1438": memorization.summary(half[0], flat(train_images), half[1]),
    }


def over(found, n, name):
    """The mean over seeds, with its standard error; a seed's value is the mean of its models."""
    return mean([np.mean(found[f"{n}/{seed}"][name]) for seed in seeds(found, n)])


def seeds(found, n):
    return sorted(int(key.split("/")[1]) for key in found if key.startswith(f"{n}/"))


def show_digits(found, extremes, held_out):
    print(f"\nDigits: {STEPS:,} steps of {BATCH} images, {SAMPLES} samples of {CALLS} calls; means over seeds\n")

    def cell(n, name):
        value, stderr, _ = over(found, n, name)
        return f"{value:.3f} +- {stderr:.3f}"

    rows = []
    for n in NS:
        signs = np.concatenate([found[f"{n}/{seed}"]["delta_sign"] for seed in seeds(found, n)])
        row = [n, cell(n, "closer"), f"{n / (n + held_out):.3f}", cell(n, "excess"), cell(n, "copies")]
        row += [f"{over(found, n, 'copies_null').value:.3f}", f"{(signs > 0).sum()} of {len(signs)}"]
        rows.append(row + ([cell(n, name) for name in PAIRED] if 2 * n <= max(NS) else ["", ""]))
    for name, row in extremes.items():
        shown = [f"{row[key]:.3f}" for key in ("closer", "null", "excess", "copies", "copies_null")]
        rows.append([name, *shown, f"{int(row['delta_sign'] > 0)} of 1", "", ""])
    header = "n", "closer to train", "null rate", "excess", "copies", "of held-out digits", "Delta > 0"
    show((*header, "correlation of two models", "distance, paired / unpaired"), rows)


def picture(found):
    """docs/figures/memorization.png, as bytes."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)

    def curve(axis, name, label, color, ns=NS):
        values = [over(found, n, name) for n in ns]
        style = {"marker": "o", "ms": 4, "capsize": 3, "label": label, "color": color}
        axis.errorbar(ns, [v.value for v in values], [v.stderr for v in values], **style)

    std = [np.mean([np.mean(found[f"{n}/{seed}"]["excess_std"]) for seed in seeds(found, n)]) for n in NS]
    left.fill_between(
        NS, [-2 * s for s in std], [2 * s for s in std], color="0.88", label="null, 2 standard deviations"
    )
    left.axhline(0, color="grey", lw=0.8)
    curve(left, "excess", "samples", "C0")
    left.set_title("closer to train than chance\n(1: all of them, 0: the null rate)", fontsize=9)
    curve(middle, "copies", "samples", "C3")
    curve(middle, "copies_null", "held-out digits", "grey")
    middle.set_title("copies: nearest training example within\n1/3 of the second nearest's distance", fontsize=9)
    halves = [n for n in NS if 2 * n <= max(NS)]
    for name, label, color in zip(PAIRED, ("correlation", "distance, paired / unpaired"), ("C2", "C1"), strict=True):
        curve(right, name, label, color, halves)
    right.set_title("two models of disjoint halves,\nthe same noise", fontsize=9)
    for axis in (left, middle, right):
        axis.set_xscale("log")
        axis.set_xticks(NS, [str(n) for n in NS], fontsize=8)
        axis.minorticks_off()
        axis.set_xlabel("training images n")
        axis.legend(fontsize=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/memorization"))
    parser.add_argument("--docs", type=Path, default=Path(__file__).parent.parent / "docs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=1000, help="of the solvable model")
    options = parser.parse_args()
    begin, used = time.perf_counter(), time.process_time()
    options.folder.mkdir(parents=True, exist_ok=True)
    kept = options.folder / "figures.json"
    done = json.loads(kept.read_text()) if kept.is_file() else {}

    def once(name, make):
        if name not in done:
            done[name] = make()
            write(kept, json.dumps(done, indent=1))
        return done[name]

    show_solvable(once(f"solvable, {options.runs} runs", lambda: solvable(options.runs)), options.runs)
    train_images, held_out = (part.to_model() for part in jd.data.digits().split(0.2))
    found = {}
    for seed in range(options.seeds):
        for n in NS:
            name = f"{n}/{seed}"
            found[name] = once(name, lambda n=n, seed=seed: one_seed(n, seed, train_images, held_out))
            print(f"n = {n}, seed {seed}: {found[name]}", flush=True)
    show_digits(found, once("ends", lambda: ends(train_images, held_out)), len(held_out))
    (options.docs / "figures").mkdir(exist_ok=True)
    write(options.docs / "figures" / "memorization.png", picture(found))
    seconds = time.perf_counter() - begin, time.process_time() - used
    print(f"\n{seconds[0] / 60:.1f} minutes, {seconds[1] / 60:.1f} of processor time")


if __name__ == "__main__":
    main()
