"""Denoiser -> Denoiser: steer the belief, and every sampler follows."""

from jaxdiff.guidance.free import classifier_free, interval

__all__ = ["classifier_free", "interval"]
