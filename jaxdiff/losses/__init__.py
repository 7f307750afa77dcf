"""How good a denoiser is on one example: loss(key, denoise, x0, t)."""

from jaxdiff.losses import weights
from jaxdiff.losses.matching import matching

__all__ = ["matching", "weights"]
