"""What the papers say, typed from them in NumPy: the schedules, and Table 1 of Karras et al. (2022).

Every function takes real or complex times in [0, 1], so that its derivative is exact by a complex step."""

import numpy as np

STEP = 1e-30


def _vp_integral(t):
    return 0.1 * t + 0.5 * 19.9 * t**2


def vp(t):
    """Song et al. (2021), eq. 33: beta from .1 to 20."""
    b = _vp_integral(t)
    return np.exp(-b / 2), np.sqrt(-np.expm1(-b))


def subvp(t):
    """Song et al. (2021), eq. 29: variance [1 - exp(-B)]^2."""
    b = _vp_integral(t)
    return np.exp(-b / 2), -np.expm1(-b)


def ve(t):
    """Song et al. (2021), appendix C: sigma from .02 to 100, geometric."""
    return np.ones_like(t), 0.02 * (100 / 0.02) ** t


def edm(t):
    """Karras et al. (2022): sigma(t) = t, here on [0, 80] brought to [0, 1]."""
    return np.ones_like(t), 80 * t


def brownian(t):
    """Karras et al. (2022), Table 1, the column VE: sigma^2 = t, here on [0, 100^2] brought to [0, 1]."""
    return np.ones_like(t), 100 * np.sqrt(t)


def cosine(t):
    """Nichol and Dhariwal (2021), eq. 17: abar = f(t) / f(0), f = cos^2((t + s) / (1 + s) pi / 2), s = .008."""

    def f(t):
        return np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2

    abar = f(t) / f(0 * t)
    return np.sqrt(abar), np.sqrt(1 - abar)


def flow(t):
    """Liu et al. (2023): the straight line."""
    return 1 - t, t


def logsnr(t):
    """Kingma et al. (2021): sigma^2 = sigmoid(gamma), gamma from -13.3 to 5."""
    gamma = -13.3 + 18.3 * t
    return 1 / np.sqrt(1 + np.exp(gamma)), 1 / np.sqrt(1 + np.exp(-gamma))


def iddpm_table():
    """Karras et al. (2022), Table 1: u_M = 0, u_(j-1) = sqrt((u_j^2 + 1) / max(abar_(j-1) / abar_j, C1) - 1)."""
    abar = np.sin(0.5 * np.pi * np.arange(1001) / (1000 * 1.008)) ** 2
    u = np.zeros(1001)
    for j in range(1000, 0, -1):
        u[j - 1] = np.sqrt((u[j] ** 2 + 1) / max(abar[j - 1] / abar[j], 0.001) - 1)
    return u


_IDDPM = np.log1p(iddpm_table()[::-1] ** 2)  # B at t = k / 1000


def iddpm(t):
    """Nichol and Dhariwal's chain; between its steps, beta is constant."""
    k = np.minimum(np.floor(np.real(t) * 1000).astype(int), 999)
    b = _IDDPM[k] + (t * 1000 - k) * (_IDDPM[k + 1] - _IDDPM[k])
    return np.exp(-b / 2), np.sqrt(-np.expm1(-b))


SCHEDULES = {
    "vp": vp,
    "subvp": subvp,
    "ve": ve,
    "edm": edm,
    "brownian": brownian,
    "cosine": cosine,
    "flow": flow,
    "logsnr": logsnr,
    "iddpm": iddpm,
}


def slopes(name, t):
    """(alpha', sigma') of the schedule, by a complex step."""
    alpha, sigma = SCHEDULES[name](t + 1j * STEP)
    return np.imag(alpha) / STEP, np.imag(sigma) / STEP


def _beta(t):
    return 0.1 + 19.9 * t


def _vdm(t):
    return 18.3 / (1 + np.exp(13.3 - 18.3 * t))


# (f, g^2) as the papers give them.
SDES = {
    "vp": lambda t: (-_beta(t) / 2, _beta(t)),
    "subvp": lambda t: (-_beta(t) / 2, _beta(t) * (1 - np.exp(-2 * _vp_integral(t)))),
    "ve": lambda t: (0 * t, 2 * np.log(5000) * ve(t)[1] ** 2),
    "edm": lambda t: (0 * t, 2 * 80**2 * t),
    "brownian": lambda t: (0 * t, 100**2 + 0 * t),
    "cosine": lambda t: (
        -np.pi / 2 / 1.008 * np.tan((t + 0.008) / 1.008 * np.pi / 2),
        np.pi / 1.008 * np.tan((t + 0.008) / 1.008 * np.pi / 2),
    ),
    "flow": lambda t: (-1 / (1 - t), 2 * t / (1 - t)),
    "logsnr": lambda t: (-_vdm(t) / 2, _vdm(t)),
}

SIGMA_DATA = 0.5


def preconditioning(sigma):
    """(c_skip, c_out, c_in, c_noise) of EDM, Table 1, at sigma_data = .5."""
    total = sigma**2 + SIGMA_DATA**2
    return SIGMA_DATA**2 / total, sigma * SIGMA_DATA / np.sqrt(total), 1 / np.sqrt(total), np.log(sigma) / 4


# Goldens of Karras et al.'s formulas in float64 (their Table 1 with its constants).
VP_SIGMA_AT_1E_3 = 0.010485992786706403
VP_SIGMA_AT_1 = 152.16697028394634
IDDPM_U = {
    999: 0.006425412771141183,
    998: 0.009350492835615898,
    8: 80.20370184547417,
    1: 641.6623451182552,
    0: 20291.16961002147,
}
