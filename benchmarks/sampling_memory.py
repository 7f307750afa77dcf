"""Memory of drawing many images in chunks: python benchmarks/sampling_memory.py

1,000, 3,000 and 10,000 images of 32 x 32 x 3 by 4 steps of Heun through a small network, each in a process of its own,
taken chunk by chunk (`samplers.draw_chunks`) into running moments. Prints the peak of the process's memory beyond what
it had before the first image, and the device's bytes alive at the end.

Claim: memory does not grow with the number of samples"""

import argparse
import resource
import subprocess
import sys

import jax
import numpy as np
from flax import nnx

from jaxdiff import networks, preconditioning, processes, samplers

COUNTS = (1000, 3000, 10_000)


def measure(n: int) -> None:
    shape = (32, 32, 3)
    net = networks.UNet(3, width=16, multipliers=(1, 1), blocks=1, rngs=nnx.Rngs(0))
    apply, params = networks.functional(net)
    process = processes.edm()
    network = preconditioning.edm().network(apply, process)
    sampler, key = samplers.edm(process, steps=4), jax.random.key(0)
    next(samplers.draw_chunks(key, 1, network.bind(params), sampler, shape, chunk=100))  # compiles
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = np.zeros(shape)
    for images in samplers.draw_chunks(key, n, network.bind(params), sampler, shape, chunk=100):
        total += images.sum(0)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    alive = sum(array.nbytes for array in jax.live_arrays())
    print(
        f"{n:>6} images: {(after - before) / 1024:6.1f} MiB beyond the {before / 1024:.0f} MiB before the first chunk; "
        f"{alive / 2**20:.1f} MiB alive on the device at the end; all images are {n * 32 * 32 * 3 * 4 / 2**20:.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, help="measure this many in this process")
    options = parser.parse_args()
    if options.n:
        measure(options.n)
        return
    for n in COUNTS:
        subprocess.run([sys.executable, __file__, f"--n={n}"], check=True)


if __name__ == "__main__":
    main()
