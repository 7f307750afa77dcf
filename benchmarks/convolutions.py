"""Where the time of `benchmarks/networks.py` goes: its 3 x 3 convolutions one by one, forward and both gradients, as
XLA does them, as `networks.convolution.Conv3x3` does them (strips for the kernel's gradient), and in PyTorch.

python benchmarks/convolutions.py      (one core, processor time, least of several; needs `pip install torch`)

Claim: where the time of DDPM++ goes, convolution by convolution (with torch installed)"""

import os
import sys
import time

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.networks.convolution import _convolve

try:
    import torch
    from torch.nn import functional as F
except ImportError:
    sys.exit("this benchmark compares with PyTorch, which is not installed: pip install torch")

BATCH, PADDING = 16, ((1, 1), (1, 1))
SHAPES = ((32, 64, 64), (32, 128, 64), (16, 64, 64), (16, 128, 64), (8, 64, 64), (8, 128, 64))


def least(run, turns=7):
    """Milliseconds of processor time."""
    run()
    found = []
    for _ in range(turns):
        begin = time.process_time()
        run()
        found.append(time.process_time() - begin)
    return 1e3 * min(found)


def plain(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), PADDING, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def ours(x, kernel):
    return _convolve(x, kernel, 1)


def times(size, inputs, outputs):
    rng = np.random.default_rng(0)
    shapes = (BATCH, size, size, inputs), (3, 3, inputs, outputs), (BATCH, size, size, outputs)
    x, kernel, g = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    row = {}
    for name, conv in (("XLA", plain), ("jaxdiff", ours)):
        forward = jax.jit(conv)
        by_x = jax.jit(lambda x, k, g, conv=conv: jax.vjp(lambda x: conv(x, k), x)[1](g))
        by_kernel = jax.jit(lambda x, k, g, conv=conv: jax.vjp(lambda k: conv(x, k), k)[1](g))
        given = tuple(map(jnp.asarray, (x, kernel, g)))
        row[name] = [
            least(lambda f=f, given=given[:n]: jax.block_until_ready(f(*given)))
            for f, n in ((forward, 2), (by_x, 3), (by_kernel, 3))
        ]
    tx, tg = (torch.tensor(np.ascontiguousarray(np.moveaxis(a, -1, 1))) for a in (x, g))
    tk = torch.tensor(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
    with torch.no_grad():
        row["torch"] = [
            least(lambda: F.conv2d(tx, tk, padding=1)),
            least(lambda: torch.nn.grad.conv2d_input(tx.shape, tk, tg, padding=1)),
            least(lambda: torch.nn.grad.conv2d_weight(tx, tk.shape, tg, padding=1)),
        ]
    return row


def main() -> None:
    torch.set_num_threads(1)
    print(f"jax {jax.__version__}, torch {torch.__version__}, batch {BATCH}, milliseconds on one core")
    print(f"{'':<16}" + "".join(f"{what:>28}" for what in ("forward", "gradient by x", "gradient by the kernel")))
    print(f"{'':<16}" + f"{'XLA':>12}{'jaxdiff':>8}{'torch':>8}" * 3)
    for size, inputs, outputs in SHAPES:
        row = times(size, inputs, outputs)
        cells = "".join(f"{row['XLA'][i]:>12.1f}{row['jaxdiff'][i]:>8.1f}{row['torch'][i]:>8.1f}" for i in range(3))
        print(f"{size:>2}^2 {inputs:>4} -> {outputs:<4}" + cells)


if __name__ == "__main__":
    main()
