"""Networks in Flax NNX, called on a batch as `net(x, c_noise, cond, key=key)`; they know no diffusion. `functional`
makes one a pure function and a pytree of parameters."""

from jaxdiff.networks.attention import SelfAttention
from jaxdiff.networks.blocks import Film, ResBlock
from jaxdiff.networks.edm.adm import DhariwalUNet, adm
from jaxdiff.networks.edm.edm2 import EDM2, edm2
from jaxdiff.networks.edm.edm2 import PRESETS as EDM2_PRESETS
from jaxdiff.networks.edm.magnitude import LogVariance, project
from jaxdiff.networks.edm.song_unet import SongUNet, ddpmpp, ncsnpp
from jaxdiff.networks.embeddings import Conditioning, fourier
from jaxdiff.networks.fourier_features import fourier_features
from jaxdiff.networks.functional import count, functional
from jaxdiff.networks.mlp import MLP
from jaxdiff.networks.tokens.classifiers import HiddenClassifier, TokenClassifier
from jaxdiff.networks.tokens.dit import TokenDiT
from jaxdiff.networks.tokens.state_space import StateSpace
from jaxdiff.networks.tokens.truncated_logistic import TruncatedLogistic
from jaxdiff.networks.unet import UNet

__all__ = [
    "EDM2",
    "EDM2_PRESETS",
    "MLP",
    "Conditioning",
    "DhariwalUNet",
    "Film",
    "HiddenClassifier",
    "LogVariance",
    "ResBlock",
    "SelfAttention",
    "SongUNet",
    "StateSpace",
    "TokenClassifier",
    "TokenDiT",
    "TruncatedLogistic",
    "UNet",
    "adm",
    "count",
    "ddpmpp",
    "edm2",
    "fourier",
    "fourier_features",
    "functional",
    "ncsnpp",
    "project",
]
