"""Steer the belief (Denoiser -> Denoiser), and every sampler follows; or, of tokens, what is drawn from it (Kernel ->
Kernel, rate -> rate, an autoregressive step -> step)."""

from jaxdiff.guidance.auto import autoguidance
from jaxdiff.guidance.autoregressive import fudge, pplm, tempered_step
from jaxdiff.guidance.classifier import classifier_based, from_classifier, log_prob_of, on_tokens
from jaxdiff.guidance.discrete import tempered, tempered_belief
from jaxdiff.guidance.free import classifier_free, interval
from jaxdiff.guidance.plug_and_play import nos
from jaxdiff.guidance.rates import classifier_rate, tempered_rate
from jaxdiff.guidance.threshold import clip, threshold

__all__ = [
    "autoguidance",
    "classifier_based",
    "classifier_free",
    "classifier_rate",
    "clip",
    "from_classifier",
    "fudge",
    "interval",
    "log_prob_of",
    "nos",
    "on_tokens",
    "pplm",
    "tempered",
    "tempered_belief",
    "tempered_rate",
    "tempered_step",
    "threshold",
]
