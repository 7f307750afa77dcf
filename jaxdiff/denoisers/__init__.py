"""A denoiser says what it believes of the clean data: denoise(x, t) -> belief. Here a network becomes one."""

from jaxdiff.denoisers.gaussian import (
    Network,
    from_network,
    log_ratio,
    noise,
    recast,
    score,
    unit_scale,
    velocity,
)
from jaxdiff.denoisers.tokens import TokenDenoiser, TokenNetwork, from_token_network, total_noise

__all__ = [
    "Network",
    "TokenDenoiser",
    "TokenNetwork",
    "from_network",
    "from_token_network",
    "log_ratio",
    "noise",
    "recast",
    "score",
    "total_noise",
    "unit_scale",
    "velocity",
]
