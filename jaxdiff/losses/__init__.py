"""How good a denoiser is on one example: loss(key, denoise, x0, t)."""

from jaxdiff.losses import weights
from jaxdiff.losses.hybrid import girsanov, hybrid
from jaxdiff.losses.implicit import implicit, sliced
from jaxdiff.losses.matching import matching
from jaxdiff.losses.uncertainty import log_variance, uncertain

__all__ = ["girsanov", "hybrid", "implicit", "log_variance", "matching", "sliced", "uncertain", "weights"]
