"""Train any objective: state, step, averages, devices, checkpoints, loop. It knows no diffusion.

optimizer = training.clipped(optax.adam(training.ramp(1e-3, 10_000_000, batch)), 1.0)
average = training.ema.half_life(500_000)
state = training.init(key, params, optimizer, ema=average)
step = training.data_parallel(training.make_train_step(objective, optimizer, ema=average))
with training.Checkpoints(directory, config) as checkpoints:
    sinks = [training.progress(100_000), training.jsonl(directory / "log.jsonl")]
        run = training.fit(state, step, batches, steps=100_000, checkpoints=checkpoints, log=sinks)
"""

from jaxdiff.training import ema
from jaxdiff.training.checkpoint import Checkpoints
from jaxdiff.training.loop import Run, fit
from jaxdiff.training.optimizers import clipped, ramp
from jaxdiff.training.run_file import fingerprint
from jaxdiff.training.sharding import data_mesh, data_parallel, pmapped, replicate, split
from jaxdiff.training.sinks import Sink, jsonl, progress, tensorboard
from jaxdiff.training.state import TrainState, init
from jaxdiff.training.step import example_keys, make_gradients, make_train_step, per_example
from jaxdiff.training.stops import DiskFull, NonFiniteLoss, RunStopped

__all__ = [
    "Checkpoints",
    "DiskFull",
    "NonFiniteLoss",
    "Run",
    "RunStopped",
    "Sink",
    "TrainState",
    "clipped",
    "data_mesh",
    "data_parallel",
    "ema",
    "example_keys",
    "fingerprint",
    "fit",
    "init",
    "jsonl",
    "make_gradients",
    "make_train_step",
    "per_example",
    "pmapped",
    "progress",
    "ramp",
    "replicate",
    "split",
    "tensorboard",
]
