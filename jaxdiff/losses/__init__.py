"""How good a denoiser is on one example: loss(key, denoise, x0, t)."""

from jaxdiff.losses import token_rates, weights
from jaxdiff.losses.categorical import bound, cross_entropy, d3pm, flow_matching, score_entropy
from jaxdiff.losses.hybrid import girsanov, hybrid
from jaxdiff.losses.implicit import implicit, sliced
from jaxdiff.losses.matching import matching
from jaxdiff.losses.uncertainty import log_variance, uncertain

__all__ = [
    "bound",
    "cross_entropy",
    "d3pm",
    "flow_matching",
    "girsanov",
    "hybrid",
    "implicit",
    "log_variance",
    "matching",
    "score_entropy",
    "sliced",
    "token_rates",
    "uncertain",
    "weights",
]
