"""The toys that guidance of tokens is measured on, and their exact laws: no draws. Two tokens of three kinds, or one of
four, with two classes; x in row-major order of its tokens."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import beliefs, guidance, oracles
from jaxdiff.numerics import partial


def two_tokens():
    """log p(x0, x1, y), (3, 3, 2)."""
    return np.log(np.random.default_rng(0).dirichlet(0.7 * np.ones(18)).reshape(3, 3, 2))


def one_token():
    """log p(x, y), (4, 2)."""
    return np.log(np.random.default_rng(1).dirichlet(np.ones(8)).reshape(4, 2))


def given(log_joint, label=0):
    """p(x | y)."""
    p = np.exp(log_joint[..., label])
    return p / p.sum()


def power_law(log_joint, gamma, label=0):
    """p(x | y)^gamma p(x)^(1 - gamma), normalised."""
    p = given(log_joint, label) ** gamma * np.exp(log_joint).sum(-1) ** (1 - gamma)
    return p / p.sum()


def denoisers(process, log_joint, meaning=beliefs.LeaveOneOut):
    """(conditional on class 0, unconditional)."""
    oracle = oracles.labelled_table(log_joint)
    return oracle.given(0).denoiser(process, meaning), oracle.unlabelled.denoiser(process, meaning)


def class_0(process, log_joint):
    """The exact classifier log p_t(y = 0 | z)."""
    return guidance.log_prob_of(guidance.on_tokens(oracles.labelled_table(log_joint).classifier(process)), 0)


def laws(kernel, denoise, process, length, counts):
    """The exact law of z_0 after n equal steps from t = 1 to 0, for each n of `counts`, (states,) * length: the
    kernel's transitions are asked for once, and multiplied in NumPy."""
    shape = (process.states,) * length
    z = jnp.stack(jnp.unravel_index(jnp.arange(process.states**length), shape), -1).astype(jnp.int32)
    ts = [np.linspace(1, 0, n + 1) for n in counts]
    ends = jnp.concatenate([t[:-1] for t in ts]), jnp.concatenate([t[1:] for t in ts])
    each = np.exp(np.asarray(_steps(partial(kernel), partial(denoise), z, ends)))  # (steps, z, place, state)
    moves = each[:, :, 0]
    for place in range(1, length):
        moves = (moves[..., None] * each[:, :, place, None]).reshape(*moves.shape[:2], -1)
    start = np.exp(np.asarray(process.log_limit()))
    out, at = [], 0
    for n in counts:
        law = start
        for _ in range(length - 1):
            law = (law[..., None] * start).reshape(-1)
        for move in moves[at : at + n]:
            law = law @ move
        out.append(law.reshape(shape))
        at += n
    return out


@eqx.filter_jit
def _steps(kernel, denoise, z, ends):
    return jax.lax.map(lambda ends: jax.vmap(lambda z: kernel(denoise, z, *ends))(z), ends)


def apart(p, q):
    """Total variation; where one has a mask and the other has not, no data are there."""
    full = np.zeros(np.maximum(p.shape, q.shape))
    full[tuple(map(slice, p.shape))] += p
    full[tuple(map(slice, q.shape))] -= q
    return 0.5 * np.abs(full).sum()


def distances(kernel, denoise, process, log_joint, counts, target):
    """Total variation from `target` of the law after each number of steps."""
    return [apart(law, target) for law in laws(kernel, denoise, process, log_joint.ndim - 1, counts)]


def jump_law(rate, denoise, process, length, n=200, least=1e-9):
    """The law at t = 0 of the chain that jumps, one token at a time, with these rates from noise at alpha = `least`,
    for alpha = 1 - t: Kolmogorov's equation in u = -log alpha by Magnus's fourth-order exponential on Gauss points, the
    steps finer towards the data, where rates are steep."""
    shape = (process.states,) * length
    z = jnp.stack(jnp.unravel_index(jnp.arange(process.states**length), shape), -1).astype(jnp.int32)
    places, kinds = np.arange(length)[:, None], np.arange(process.states)
    moved = np.array([[[_set(x, place, kind) for kind in kinds] for place in places[:, 0]] for x in np.asarray(z)])
    to = np.ravel_multi_index(np.moveaxis(moved, -1, 0), shape)

    def generator(u):
        flow = jnp.exp(-u + jax.vmap(lambda z: rate(denoise, z, -jnp.expm1(-u)))(z))  # dt = -alpha du
        jumps = jnp.zeros((len(z),) * 2).at[jnp.arange(len(z))[:, None, None], to].add(flow)
        return jumps - jnp.diag(jumps.sum(1))

    @jax.jit
    def solve():
        us = -np.log(least) * np.linspace(1, 0, n + 1) ** 4
        h = us[:-1] - us[1:]
        first, second = (jax.vmap(generator)(us[:-1] - h * (0.5 + c * np.sqrt(3) / 6)) for c in (-1, 1))
        h = h[:, None, None]
        # rows are laws: p <- p exp(omega), so the commutator has the other sign than for columns
        omega = h / 2 * (first + second) + np.sqrt(3) / 12 * h**2 * (first @ second - second @ first)
        start = jnp.full(len(z), 1 / len(z))
        return jax.lax.scan(lambda p, step: (p @ step, None), start, jax.vmap(jax.scipy.linalg.expm)(omega))[0]

    return np.asarray(solve()).reshape(shape)


def _set(x, place, kind):
    return [kind if i == place else int(v) for i, v in enumerate(x)]


def brute_step(log_joint, z, t, s, masked=False):
    """p(z_s^l = v, y | z_t) by summing over all x, (length, states, classes), for alpha = 1 - t, in NumPy."""
    joint = np.exp(log_joint)
    vocab, length = joint.shape[0], joint.ndim - 1

    def transition(keep):
        if not masked:
            return keep * np.eye(vocab) + (1 - keep) / vocab
        return np.vstack([np.hstack([keep * np.eye(vocab), np.full((vocab, 1), 1 - keep)]), np.eye(vocab + 1)[-1]])

    start, end = transition(1 - s)[:vocab], transition((1 - t) / (1 - s))
    out = np.zeros((length, len(end), joint.shape[-1]))
    for x in np.ndindex(*joint.shape[:-1]):
        seen = np.prod([(start @ end)[x[m], z[m]] for m in range(length)])
        for place in range(length):
            own = (start @ end)[x[place], z[place]]
            step = start[x[place]] * end[:, z[place]] / own if own > 0 else np.zeros(len(end))
            out[place] += joint[x] * seen * step[:, None]
    return out / out[0].sum()


def brute_classifier(log_joint, z, t, masked=False):
    """p_t(y | z) by summing over all x, (classes,)."""
    joint = np.exp(log_joint)
    vocab = joint.shape[0]
    kept = (1 - t) * np.eye(vocab)
    rows = np.hstack([kept, np.full((vocab, 1), t)]) if masked else kept + t / vocab
    out = np.zeros(joint.shape[-1])
    for x in np.ndindex(*joint.shape[:-1]):
        out += joint[x] * np.prod([rows[a, b] for a, b in zip(x, z, strict=True)])
    return out / out.sum()


class Counted:
    """A function that knows how often a compiled program called it."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *args):
        jax.debug.callback(self._count)
        return self.function(*args)

    def _count(self):
        self.calls += 1
