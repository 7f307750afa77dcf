"""How likely data are: the log-density of the probability flow, variational bounds on it, and bits per dimension."""

from jaxdiff.likelihood import decoders, dequantize
from jaxdiff.likelihood.augmented import augmented
from jaxdiff.likelihood.bits import Bits, bits, bits_per_dim
from jaxdiff.likelihood.bound import Bound, bound
from jaxdiff.likelihood.elbo import elbo
from jaxdiff.likelihood.flow import FlowLikelihood, FlowSample, Solve, Trace, flow_log_prob, flow_norm, flow_sample
from jaxdiff.likelihood.plug_in import Gap, plug_in, plug_in_bound, plug_in_elbo, score_gap
from jaxdiff.likelihood.tokens import TokenBits, bits_per_token, nelbo
from jaxdiff.likelihood.truncation import entropy, truncate
from jaxdiff.likelihood.vdm import vdm, vdm_loss, vdm_objective

__all__ = [
    "Bits",
    "Bound",
    "FlowLikelihood",
    "FlowSample",
    "Gap",
    "Solve",
    "TokenBits",
    "Trace",
    "augmented",
    "bits",
    "bits_per_dim",
    "bits_per_token",
    "bound",
    "decoders",
    "dequantize",
    "elbo",
    "entropy",
    "flow_log_prob",
    "flow_norm",
    "flow_sample",
    "nelbo",
    "plug_in",
    "plug_in_bound",
    "plug_in_elbo",
    "score_gap",
    "truncate",
    "vdm",
    "vdm_loss",
    "vdm_objective",
]
