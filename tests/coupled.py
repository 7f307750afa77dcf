"""Linear SDEs of coupled copies in NumPy, knowing nothing of jaxdiff: their matrices as published, and the moments of
X_t given x0 = 1 by the moment equations m' = beta A m, S' = beta (A S + S A' + G G')."""

from typing import NamedTuple

import numpy as np
from scipy.integrate import solve_ivp


class Law(NamedTuple):
    """dX = beta A X dt + sqrt(beta) G dW from X_0 ~ N((1, 0, ...), start)."""

    A: np.ndarray
    G: np.ndarray
    start: np.ndarray
    beta: object

    def transition(self, s, t):
        """F of E[X_t | X_s] = F X_s."""
        k = len(self.A)
        slope = lambda u, y: self.beta(u) * (self.A @ y.reshape(k, k)).reshape(-1)  # noqa: E731
        found = solve_ivp(slope, (s, t), np.eye(k).reshape(-1), method="DOP853", rtol=1e-12, atol=1e-15)
        return found.y[:, -1].reshape(k, k)

    def moments(self, times):
        """(m, S) at each of `times`, which rise from 0 or above."""
        k = len(self.A)

        def slope(t, y):
            m, S = y[:k], y[k:].reshape(k, k)
            return self.beta(t) * np.concatenate(
                [self.A @ m, (self.A @ S + S @ self.A.T + self.G @ self.G.T).reshape(-1)]
            )

        y0 = np.concatenate([np.eye(k)[0], self.start.reshape(-1)])
        found = solve_ivp(slope, (0, times[-1]), y0, method="DOP853", rtol=1e-12, atol=1e-15, t_eval=times).y
        return found[:k].T, found[k:].T.reshape(-1, k, k)


def langevin(friction=1.0, mass=0.25, beta=4.0, velocity=0.04):
    """Dockhorn et al. (2022), eq. 5: dx = v / M, dv = -x - Gamma v / M, and sqrt(2 Gamma) dW on the velocity."""
    A = np.array([[0, 1 / mass], [-1, -friction / mass]])
    G = np.diag([0, np.sqrt(2 * friction)])
    return Law(A, G, np.diag([0, velocity * mass]), lambda t: beta)


def published(t, mass=0.25, beta=4.0, velocity=0.04):
    """(m, S) of critical damping in the closed form of Dockhorn et al. (2022), App. B.1, for x0 = 1, v0 ~ N(0, velocity
    M)."""
    G, b, v = 2 * np.sqrt(mass), beta * t, velocity * mass
    x = 4 * b / G
    m = np.exp(-x / 2) * np.array([2 * b / G + 1, -b])
    xx = np.exp(x) - 1 - x - 8 * b**2 / G**2 + 16 * b**2 / G**4 * v
    xv = 4 * b / G**2 * v + 4 * b**2 / G - 8 * b**2 / G**3 * v
    vv = G**2 / 4 * (np.exp(x) - 1) + b * G + v * (1 + 4 * b**2 / G**2 - 4 * b / G) - 2 * b**2
    return m, np.exp(-x) * np.array([[xx, xv], [xv, vv]])


_rng = np.random.default_rng(7)
_mix, _noise = _rng.normal(size=(3, 3)), _rng.normal(size=(3, 3))

LAWS = {
    "critical": langevin(),
    "critical, heavy": langevin(friction=4.0, mass=4.0, beta=6.0, velocity=1.0),
    "underdamped": langevin(friction=0.3),
    "overdamped, from rest": langevin(friction=3.0, velocity=0.0),
    # Each copy pulls on the next, and all are noisy; beta rises.
    "three": Law(_mix - 2.5 * np.eye(3), (_noise + _noise.T) / 2, np.diag([0.0, 0.3, 0.0]), lambda t: 0.1 + 3.9 * t),
    # Third order: noise reaches the data through two integrals.
    "chain": Law(
        np.array([[0.0, 1, 0], [-1, 0, 2], [0, -2, -3]]), np.diag([0, 0, np.sqrt(6)]), np.zeros((3, 3)), lambda t: 3.0
    ),
}
