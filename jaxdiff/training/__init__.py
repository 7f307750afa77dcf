"""Train any objective: state, step, averages, devices, checkpoints, loop. It knows no diffusion.

optimizer = training.clipped(optax.adam(training.ramp(1e-3, 10_000_000, batch)), 1.0)
average = training.ema.half_life(500_000)
state = training.init(key, params, optimizer, ema=average)
step = training.data_parallel(training.make_train_step(objective, optimizer, ema=average))
with training.Checkpoints(directory, config) as checkpoints:
    sinks = [training.progress(100_000), training.jsonl(directory / "log.jsonl")]
        run = training.fit(state, step, batches, steps=100_000, checkpoints=checkpoints, log=sinks)

With `ema=training.ema.widths(0.05, 0.10)` and `fit(..., snapshots=training.Snapshots(folder, (0.05, 0.10), every=n))`,
`training.post_hoc.reconstruct(folder, 0.07, like=params)` is the average of any other width, afterwards.
"""

from jaxdiff.training import ema, post_hoc
from jaxdiff.training.checkpoint import Checkpoints
from jaxdiff.training.loop import Run, fit
from jaxdiff.training.optimizers import clipped, inverse_sqrt, mended, ramp
from jaxdiff.training.run_file import fingerprint
from jaxdiff.training.sharding import data_mesh, data_parallel, pmapped, replicate, split
from jaxdiff.training.sinks import Sink, jsonl, progress, tensorboard
from jaxdiff.training.snapshots import Snapshots
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
    "Snapshots",
    "TrainState",
    "clipped",
    "data_mesh",
    "data_parallel",
    "ema",
    "example_keys",
    "fingerprint",
    "fit",
    "init",
    "inverse_sqrt",
    "jsonl",
    "make_gradients",
    "make_train_step",
    "mended",
    "per_example",
    "pmapped",
    "post_hoc",
    "progress",
    "ramp",
    "replicate",
    "split",
    "tensorboard",
]
