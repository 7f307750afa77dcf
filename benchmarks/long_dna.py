"""Time and memory of the state-space network on long sequences: python benchmarks/long_dna.py

One forward pass of `networks.StateSpace`, 256 channels and 8 blocks (4.78 million parameters), over 8,192, 16,384 and
32,768 tokens, each in a process of its own. Prints the best of some passes in seconds and in seconds of processor time
(which other programs on the machine hardly change), the peak of the process's memory, and how the processor time grows
with the length: 1 is linear. With --train it is the gradient of a loss, the blocks computed again for the backward
pass.

Claim: the selective scan is its recurrence; 32,768 bases in memory and time"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxdiff import networks

LENGTHS = (8192, 16384, 32768)
VOCAB, WIDTH, DEPTH = 12, 256, 8


def measure(length: int, passes: int, train: bool) -> None:
    def build():
        return networks.StateSpace(VOCAB, width=WIDTH, depth=DEPTH, remat=train, rngs=nnx.Rngs(0))

    apply, _ = networks.functional(nnx.eval_shape(build))
    params = jax.jit(lambda: networks.functional(build())[1])()
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, VOCAB, (1, length)), jnp.int32)
    noise = jnp.ones(1)

    def loss(params):
        return -jnp.mean(jax.nn.log_softmax(apply(params, tokens, noise))[..., 0])

    run = jax.jit(jax.grad(loss) if train else lambda params: apply(params, tokens, noise))
    jax.block_until_ready(run(params))  # compiles
    seconds, processor = [], []
    for _ in range(passes):
        start = time.perf_counter(), time.process_time()
        out = jax.block_until_ready(run(params))
        seconds.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(out))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = {"length": length, "seconds": min(seconds), "processor": min(processor), "peak": peak}
    print(json.dumps(found | {"count": networks.count(params)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, help="measure this many tokens in this process")
    parser.add_argument("--passes", type=int, default=2, help="passes after the first, which compiles")
    parser.add_argument("--train", action="store_true", help="the gradient instead of the forward pass")
    options = parser.parse_args()
    if options.length:
        measure(options.length, options.passes, options.train)
        return
    last = None
    for length in LENGTHS:
        command = [sys.executable, __file__, f"--length={length}", f"--passes={options.passes}"]
        done = subprocess.run(command + ["--train"] * options.train, check=True, stdout=subprocess.PIPE, text=True)
        now = json.loads(done.stdout)
        line = f"{length:>6} tokens: {now['seconds']:6.1f} s, {now['processor']:6.1f} s of processor time"
        line += f"; peak memory {now['peak']:.2f} GiB; {now['count'] / 1e6:.2f} million parameters"
        if last:
            growth = math.log(now["processor"] / last["processor"]) / math.log(now["length"] / last["length"])
            line += f"; time grows as length^{growth:.2f}"
        print(line, flush=True)
        last = now


if __name__ == "__main__":
    main()
