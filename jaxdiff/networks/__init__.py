"""Networks in Flax NNX, called on a batch as `net(x, c_noise, cond, key=key)`; they know no diffusion. `functional`
makes one a pure function and a pytree of parameters."""

from jaxdiff.networks.attention import SelfAttention
from jaxdiff.networks.blocks import Film, ResBlock
from jaxdiff.networks.embeddings import Conditioning, fourier
from jaxdiff.networks.functional import count, functional
from jaxdiff.networks.mlp import MLP
from jaxdiff.networks.unet import UNet

__all__ = ["MLP", "Conditioning", "Film", "ResBlock", "SelfAttention", "UNet", "count", "fourier", "functional"]
