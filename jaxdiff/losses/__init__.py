"""How good a denoiser is on one example: loss(key, denoise, x0, t)."""

from jaxdiff.losses import weights
from jaxdiff.losses.matching import matching
from jaxdiff.losses.uncertainty import log_variance, uncertain

__all__ = ["log_variance", "matching", "uncertain", "weights"]
