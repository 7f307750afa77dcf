"""Memory of one step of a loss on tokens, as the compiled program counts it: python benchmarks/token_loss_memory.py

The value and the gradient of each loss on one sequence with respect to its logits, a vocabulary of 30,522 (BERT's) and
1,024 tokens: temporary memory beyond the logits and their gradient, in bytes and in arrays of the logits' size. A
product of vocabulary x length x length would be 1,024 such arrays. With --time, it is run, too.

Claim: no V x L x L array at V = 30,522, L = 1,024 (prints the peak)"""

import argparse
import time

import jax
import jax.numpy as jnp

from jaxdiff import beliefs, losses, processes

LOSSES = {
    "bound, absorbing (MDLM)": (losses.bound, processes.absorbing, beliefs.LeaveOneOut),
    "bound, uniform (UDLM)": (losses.bound, processes.uniform, beliefs.LeaveOneOut),
    "bound, uniform, of a posterior": (losses.bound, processes.uniform, beliefs.Posterior),
    "bound, hybrid": (losses.bound, processes.hybrid, beliefs.LeaveOneOut),
    "score entropy, uniform (SEDD)": (losses.score_entropy, processes.uniform, beliefs.LeaveOneOut),
    "d3pm, uniform, T = 1000": (lambda p: losses.d3pm(p, 1000), processes.uniform, beliefs.LeaveOneOut),
    "cross entropy, uniform": (losses.cross_entropy, processes.uniform, beliefs.Posterior),
    "flow matching, uniform": (losses.flow_matching, processes.uniform, beliefs.Posterior),
}


def step(loss, meaning):
    """(logits, key, x0, t) -> (loss, gradient)."""
    return jax.jit(jax.value_and_grad(lambda logits, key, x0, t: loss(key, lambda z, t: meaning(logits), x0, t)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, default=30_522)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--time", action="store_true", help="run each, too")
    options = parser.parse_args()
    vocab, length = options.vocab, options.length
    size = 4 * vocab * length
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}; V = {vocab:,}, L = {length:,}")
    print(f"logits {size / 2**20:.0f} MiB; vocabulary x length x length would be {size * length / 2**30:.0f} GiB")
    for name, (make, process, meaning) in LOSSES.items():
        program = step(make(process(vocab)), meaning)
        shapes = jax.ShapeDtypeStruct((length, vocab), jnp.float32), jax.random.key(0)
        shapes += jax.ShapeDtypeStruct((length,), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)
        compiled = program.lower(*shapes).compile()
        temporary = compiled.memory_analysis().temp_size_in_bytes
        line = f"{name:<32} {temporary / 2**20:8.1f} MiB beyond logits and gradient, {temporary / size:5.2f} arrays"
        if options.time:
            key = jax.random.key(0)
            x0 = jax.random.randint(key, (length,), 0, vocab, jnp.int32)
            arguments = jax.random.normal(key, (length, vocab)), key, x0, jnp.asarray(0.5)
            jax.block_until_ready(compiled(*arguments))
            begin = time.perf_counter()
            value, slope = jax.block_until_ready(compiled(*arguments))
            line += f", {time.perf_counter() - begin:6.2f} s, loss {value:.4g}, gradient {jnp.linalg.norm(slope):.3g}"
        print(line)


if __name__ == "__main__":
    main()
