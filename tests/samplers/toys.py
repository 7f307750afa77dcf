"""The toy of two tokens that the discrete samplers are measured on, and the processes on its three tokens."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from scipy import stats

from jaxdiff import alphas, beliefs, oracles, processes

N = 3
LAW = np.random.default_rng(0).dirichlet(0.7 * np.ones(18)).reshape(9, 2).sum(1).reshape(N, N)
"""p(x0, x1)."""
DENOISED = (beliefs.LeaveOneOut, beliefs.Posterior, beliefs.Score)

PROCESSES = {
    "absorbing": lambda alpha=None: processes.absorbing(N, alpha),
    "uniform": lambda alpha=None: processes.uniform(N, alpha),
    "hybrid": lambda alpha=None: processes.hybrid(N, 0.3, alpha),
    # A chain has a pace of its own, and is not yet at its limit at t = 1.
    "ctmc": lambda alpha=None: processes.ctmc(processes.rates.nearest(N), alphas.constant_rate(3.0)),
}


def ORACLE():
    """Made in the test, in its precision."""
    return oracles.table(jnp.log(jnp.asarray(LAW)))


def matrix(process, t, s=None):
    """q(z_t = column | z_s = row)."""
    return np.exp(np.asarray(ahead(process, jnp.asarray(t), s if s is None else jnp.asarray(s)))).T


@eqx.filter_jit
def ahead(process, t, s):
    return process.log_ahead(jnp.arange(process.states), t, s)


def p_value(drawn, law):
    """Of as large a chi-squared, in cells of 5 expected or more; what cannot be must not be drawn."""
    law = np.asarray(law, np.float64)
    counts = np.zeros(law.shape)
    np.add.at(counts, tuple(np.asarray(drawn).T), 1)
    expected = len(drawn) * law / law.sum()
    assert counts[expected < 1e-3].sum() == 0
    large = expected >= 5
    cells = [np.append(a[large], a[~large].sum()) for a in (counts, expected)]
    keep = cells[1] >= 1e-3
    return stats.chisquare(cells[0][keep], cells[1][keep], sum_check=False).pvalue
