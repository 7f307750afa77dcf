"""The exact denoiser of 100,000 examples of 784 numbers, for a batch of 64: python benchmarks/empirical_denoiser.py

Every chunk in a process of its own: what the compiled program takes beside its arguments, what the process takes at its
peak beyond what it held before (Linux), the least time of three calls, and the error of one row against NumPy's
enumeration in float64. All differences at once would be batch x n x dim numbers, chunk by chunk they are batch x chunk
x dim at most; a compiler that sums them as it makes them needs less.

Claim: the empirical denoiser's memory is bounded by its chunk"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import oracles, processes

CHUNKS = (256, 1024, 4096, 16_384, 0)
SIGMA = 5.0  # where some hundreds of the examples count


def status(name):
    """A line of /proc/self/status, in MiB."""
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) / 1024


def measure(n: int, dim: int, batch: int, chunk: int) -> None:
    rng = np.random.default_rng(0)
    data = jnp.asarray(2 * rng.random((n, dim), np.float32) - 1)
    x = data[:batch] + SIGMA * jnp.asarray(rng.standard_normal((batch, dim), np.float32))
    process = processes.edm(80.0)
    t = jnp.float32(SIGMA / 80)

    def denoise(oracle, x, t):
        return jax.vmap(lambda x: oracle.denoise(x, t))(x)

    oracle = oracles.empirical(process, data, chunk=chunk or None)
    program = jax.jit(denoise).lower(oracle, x, t).compile()
    temporary = program.memory_analysis().temp_size_in_bytes / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before = status("VmRSS")
    belief = np.asarray(program(oracle, x, t))
    peak = status("VmHWM") - before
    walls, cpus = [], []
    for _ in range(3):
        begin, begin_cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(program(oracle, x, t))
        walls.append(time.perf_counter() - begin)
        cpus.append(time.process_time() - begin_cpu)
    rows, one = np.asarray(data), np.asarray(x[0], np.float64)
    square = np.array([np.sum((one - row) ** 2) for row in rows])
    share = np.exp(-(square - square.min()) / (2 * SIGMA**2))
    exact = (share / share.sum()) @ rows
    mib = 4 * batch * dim / 2**20
    print(
        f"{chunk or 'all at once':>11}: {min(walls):5.2f} s ({min(cpus):.2f} s of CPU); "
        f"program {temporary:7.1f} MiB, process {peak:7.1f} MiB; batch x chunk x dim {mib * (chunk or n):8.1f} MiB; "
        f"error {np.max(abs(belief[0] - exact)):.1e} of {np.max(abs(exact)):.2f}, "
        f"{1 / np.sum((share / share.sum()) ** 2):.0f} examples count",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=784)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--chunk", type=int, help="measure this chunk in this process; 0 is all at once")
    options = parser.parse_args()
    n, dim, batch = options.n, options.dim, options.batch
    if options.chunk is not None:
        measure(n, dim, batch, options.chunk)
        return
    print(
        f"jax {jax.__version__}, {jax.devices()[0].device_kind}; {n:,} x {dim} examples are "
        f"{4 * n * dim / 2**20:.0f} MiB, batch x n x dim {4 * batch * n * dim / 2**30:.1f} GiB"
    )
    for chunk in CHUNKS:
        sizes = [f"--n={n}", f"--dim={dim}", f"--batch={batch}", f"--chunk={chunk}"]
        subprocess.run([sys.executable, __file__, *sizes], check=True)


if __name__ == "__main__":
    main()
