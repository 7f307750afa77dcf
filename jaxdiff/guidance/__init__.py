"""Denoiser -> Denoiser: steer the belief, and every sampler follows."""

from jaxdiff.guidance.auto import autoguidance
from jaxdiff.guidance.free import classifier_free, interval
from jaxdiff.guidance.threshold import clip, threshold

__all__ = ["autoguidance", "classifier_free", "clip", "interval", "threshold"]
