"""The published steps as affine maps, in NumPy, knowing nothing of jaxdiff: on Gaussian data a denoiser is affine, so
each step is x -> A x + b + C z, written here as the papers write it. Also schedules in closed form, the recursion of
the moments, and the two-dimensional Gaussian that it is run on."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

MEAN = np.array([0.7, -0.4])
COV = np.array([[0.5, 0.2], [0.2, 0.3]])
EYE = np.eye(2)


class Affine:
    """x -> A x + b + sum_j C_j z_j with independent standard normal z_j."""

    __array_ufunc__ = None  # a NumPy scalar times this is `__rmul__`

    def __init__(self, A, b, noises=()):
        self.A, self.b, self.noises = A, b, tuple(noises)

    def __add__(self, other):
        # The terms of one step that carry the same noise are the same noise: pad, and add term by term.
        n = max(len(self.noises), len(other.noises))
        pad = [list(v.noises) + [np.zeros((2, 2))] * (n - len(v.noises)) for v in (self, other)]
        return Affine(self.A + other.A, self.b + other.b, [c + d for c, d in zip(*pad, strict=True)])

    def __sub__(self, other):
        return self + (-1.0) * other

    def __rmul__(self, scale):
        matrix = scale * EYE if np.ndim(scale) == 0 else scale
        return Affine(matrix @ self.A, matrix @ self.b, [matrix @ c for c in self.noises])

    def with_noise(self, std):
        """This plus std times a normal draw that nothing has used yet."""
        return Affine(self.A, self.b, (*self.noises, std * EYE))

    def moments(self, mean, cov):
        return self.A @ mean + self.b, self.A @ cov @ self.A.T + sum(c @ c.T for c in self.noises)

    def shared(self):
        """C when every z_j is the same z."""
        return sum(self.noises, np.zeros((2, 2)))


IDENTITY = Affine(EYE, np.zeros(2))


class Published(NamedTuple):
    """alpha, sigma, (f, g^2) and the time of a ratio, each in its paper's closed form."""

    scales: object
    sde: object
    time_of: object


def vp_integral(t):
    return 0.1 * t + 9.95 * t**2


PUBLISHED = {
    "vp": Published(
        lambda t: (np.exp(-vp_integral(t) / 2), np.sqrt(-np.expm1(-vp_integral(t)))),
        lambda t: (-(0.1 + 19.9 * t) / 2, 0.1 + 19.9 * t),
        lambda r: max(np.roots([9.95, 0.1, -np.log1p(r**2)])),
    ),
    "edm": Published(lambda t: (1.0, 80 * t), lambda t: (0.0, 2 * 80**2 * t), lambda r: r / 80),
    "flow": Published(lambda t: (1 - t, t), lambda t: (-1 / (1 - t), 2 * t / (1 - t)), lambda r: r / (1 + r)),
}


def belief(p, x, t):
    """E[x0 | x_t] = m + alpha S (alpha^2 S + sigma^2)^-1 (x - alpha m)."""
    alpha, sigma = p.scales(t)
    gain = alpha * COV @ np.linalg.inv(alpha**2 * COV + sigma**2 * EYE)
    data = gain * x
    return Affine(data.A, data.b + MEAN - gain @ (alpha * MEAN), data.noises)


def law(p, t):
    """Mean and covariance of x_t."""
    alpha, sigma = p.scales(t)
    return alpha * MEAN, alpha**2 * COV + sigma**2 * EYE


def score(p, x, t):
    alpha, sigma = p.scales(t)
    return (1 / sigma**2) * (alpha * belief(p, x, t) - x)


def noise_belief(p, x, t):
    alpha, sigma = p.scales(t)
    return (1 / sigma) * (x - alpha * belief(p, x, t))


def euler(p, x, t, s):
    """Song et al. (2021), eq. 12 with sigma = 0."""
    alpha, sigma = p.scales(s)
    return alpha * belief(p, x, t) + sigma * noise_belief(p, x, t)


def bridge(p, t, s):
    """p(x_s | x_t, x0) by Bayes' rule: the precisions add. Weights of x_t and x0, variance."""
    (alpha, sigma), (alpha_s, sigma_s) = p.scales(t), p.scales(s)
    if sigma_s == 0:
        return 0.0, 1.0 * alpha_s, 0.0
    a = alpha / alpha_s
    v = sigma**2 - a**2 * sigma_s**2
    variance = 1 / (1 / sigma_s**2 + a**2 / v)
    return variance * a / v, variance * alpha_s / sigma_s**2, variance


def ancestral(p, x, t, s):
    weight, weight0, variance = bridge(p, t, s)
    return (weight * x + weight0 * belief(p, x, t)).with_noise(np.sqrt(variance))


def ddpm(p, x, t, s):
    """Ho et al. (2020), eqs. 7 and 11, in their abar and beta: for the variance-preserving process."""
    abar, abar_s = p.scales(t)[0] ** 2, p.scales(s)[0] ** 2
    beta = 1 - abar / abar_s
    mean = (np.sqrt(abar_s) * beta / (1 - abar)) * belief(p, x, t) + (np.sqrt(1 - beta) * (1 - abar_s) / (1 - abar)) * x
    return mean.with_noise(np.sqrt((1 - abar_s) / (1 - abar) * beta))


def ddim(eta):
    def step(p, x, t, s):
        alpha, sigma = p.scales(s)
        fresh = eta * np.sqrt(bridge(p, t, s)[2])
        mean = alpha * belief(p, x, t) + np.sqrt(max(sigma**2 - fresh**2, 0)) * noise_belief(p, x, t)
        return mean.with_noise(fresh)

    return step


def reverse_sde(eta):
    """Euler-Maruyama on dx = (f x - (1 + eta^2) / 2 g^2 score) dt + eta g dW."""

    def step(p, x, t, s):
        f, g2 = p.sde(t)
        mean = x - (t - s) * (f * x - ((1 + eta**2) / 2 * g2) * score(p, x, t))
        return mean.with_noise(eta * np.sqrt(g2 * (t - s)))

    return step


def heun(p, x, t, s):
    """The trapezium rule on dx = D d(alpha) + eps d(sigma); on EDM it is Karras et al.'s x + h (d + d') / 2."""
    (alpha, sigma), (alpha_s, sigma_s) = p.scales(t), p.scales(s)
    guess = euler(p, x, t, s)
    data = belief(p, x, t) + belief(p, guess, s)
    noise = noise_belief(p, x, t) + noise_belief(p, guess, s)
    return x + ((alpha_s - alpha) / 2) * data + ((sigma_s - sigma) / 2) * noise


def churn(inner, amount, low=0.0, high=np.inf, noise_scale=1.0):
    """Karras et al. (2022), Alg. 2 with a scaling: their levels are sigma / alpha, their scaling alpha."""

    def step(p, x, t, s):
        alpha, sigma = p.scales(t)
        level = sigma / alpha if alpha > 0 else np.inf
        up = min(p.time_of((1 + amount) * level), 1.0) if low <= level <= high and alpha > 0 else t
        alpha_up, sigma_up = p.scales(up)
        if up > t:
            fresh = alpha_up * np.sqrt((sigma_up / alpha_up) ** 2 - level**2)
            x = ((alpha_up / alpha) * x).with_noise(noise_scale * fresh)
        return inner(p, x, up, s)

    return step


def langevin(inner, snr, steps):
    """x + e score + sqrt(2 e) z (Song et al. 2021, Alg. 5), e = 2 (snr sigma)^2."""

    def step(p, x, t, s):
        x = inner(p, x, t, s)
        sigma = p.scales(s)[1]
        e = 2 * (snr * sigma) ** 2
        for _ in range(steps):
            x = x + e * score(p, x, s) if e > 0 else x
            x = x.with_noise(np.sqrt(2 * e))
        return x

    return step


def walk(p, step, ts, mean, cov, *, first=None, last=None):
    """Moments after each step of the grid has acted."""
    for i, (t, s) in enumerate(pairwise(ts)):
        now = first if first and i == 0 else last if last and i == len(ts) - 2 else step
        mean, cov = now(p, IDENTITY, t, s).moments(mean, cov)
    return mean, cov
