"""A small real run, used by the tests in their own process and, as a script, in one that they kill: an autoencoder of
noisy digits. `python digits_run.py DIRECTORY STEPS DELAY` trains, or carries on, and writes the final parameters
beside the run."""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from jaxdiff import training

BATCH = 16
CONFIG = {"width": 24, "lr": 3e-3, "layers": ["encode", "decode"]}
IMAGES = (load_digits().data / 16).astype(np.float32)


def batches(position):
    index = position + np.arange(BATCH)
    return {"index": index, "x": IMAGES[index * 7919 % len(IMAGES)]}


def loss(params, key, example):
    noisy = example["x"] + 0.3 * jax.random.normal(key, example["x"].shape)
    hidden = jnp.tanh(noisy @ params["encode"] + params["bias"])
    return jnp.sum((hidden @ params["decode"] - example["x"]) ** 2)


objective = training.per_example(loss)


def stratified(params, key, batch):
    """The batch-level form: one offset for all, the noise level of an example by its rank in the global batch."""
    offset = jax.random.uniform(key)
    level = (offset + (batch["index"] % BATCH).astype(jnp.float32) / BATCH) % 1.0
    keys = training.example_keys(key, batch)

    def one(key, level, x):
        noisy = x + level * jax.random.normal(key, x.shape)
        return jnp.sum((jnp.tanh(noisy @ params["encode"] + params["bias"]) @ params["decode"] - x) ** 2)

    return jax.vmap(one)(keys, level, batch["x"])


def parameters(key, width=24):
    one, two = jax.random.split(key)
    return {
        "encode": jax.random.normal(one, (64, width)) / 8,
        "bias": jnp.zeros(width),
        "decode": jax.random.normal(two, (width, 64)) / np.float32(np.sqrt(width)),
    }


def parts(key, **options):
    optimizer = training.clipped(optax.adam(training.ramp(CONFIG["lr"], 160, BATCH)), 5.0)
    average = training.ema.half_life(200)
    state = training.init(key, parameters(jax.random.key(0)), optimizer, ema=average)
    return state, training.make_train_step(objective, optimizer, ema=average, **options)


def train(directory, steps, *, save_every=5, delay=0.0, log=(), batches=batches):
    def slow(position):
        time.sleep(delay)
        return batches(position)

    state, step = parts(jax.random.key(1))
    with training.Checkpoints(directory, CONFIG) as checkpoints:
        return training.fit(
            state,
            training.data_parallel(step),
            slow,
            steps=steps,
            checkpoints=checkpoints,
            save_every=save_every,
            log=log,
            log_every=7,
        )


def leaves(state):
    """Every leaf of a state as NumPy, keys as their data, by name."""
    pairs = jax.tree_util.tree_leaves_with_path(state)
    is_key = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for _, leaf in pairs]
    arrays = [jax.random.key_data(leaf) if key else leaf for (_, leaf), key in zip(pairs, is_key, strict=True)]
    return {jax.tree_util.keystr(path): np.asarray(array) for (path, _), array in zip(pairs, arrays, strict=True)}


def same_bits(one, two):
    one, two = leaves(one), leaves(two)
    return one.keys() == two.keys() and all(one[k].tobytes() == two[k].tobytes() for k in one)


if __name__ == "__main__":
    directory, steps, delay = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    try:
        run = train(directory, steps, delay=delay, log=[training.jsonl(directory / "log.jsonl")])
    except training.RunStopped as stop:
        sys.exit(f"{type(stop).__name__}: {stop}")
    np.savez(directory / "final.npz", **leaves(run.state))
    print(run.status)
