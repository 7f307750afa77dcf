"""Autoguidance: away from a worse version of oneself (Karras et al. 2024, "Guiding a diffusion model with a bad version
of itself").

The guide knows the same classes but has less capacity or training, so it errs where the denoiser errs, and further: it
spreads its mass wider. D_g + weight (D - D_g) then moves samples to where the denoiser's density exceeds the guide's,
into the data, and not away from other classes. On Gaussians it is a theorem: with the variance V by D and V_g by D_g,
the probability flow from infinite noise ends at the variance V (V / V_g)^(weight - 1)."""

from jaxtyping import Array

from jaxdiff.guidance.free import classifier_free
from jaxdiff.types import Denoiser


def autoguidance(denoise: Denoiser, guide: Denoiser, weight: float | Array) -> Denoiser:
    """D_g + weight (D - D_g): weight 1 is `denoise` alone, more than 1 is away from `guide`.

    The line is that of classifier-free guidance; what differs is the second network: it has its own parameters and the
    same condition. When the weight is known to be 1 or 0 only the one denoiser is called."""
    return classifier_free(denoise, guide, weight)
