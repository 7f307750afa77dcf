"""The published networks of tests/golden, with the options that their checkpoints store."""

import functools
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent.parent / "golden"

SHARED = {"img_resolution": 16, "img_channels": 3, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [8]}
SONG = {"model_type": "SongUNet", "model_channels": 16, "decoder_type": "standard"}
OPTIONS = {
    "ddpmpp": SHARED
    | SONG
    | {"label_dim": 4, "augment_dim": 9, "embedding_type": "positional", "encoder_type": "standard"}
    | {"channel_mult_noise": 1, "resample_filter": [1, 1]},
    "ncsnpp": SHARED
    | SONG
    | {"label_dim": 0, "embedding_type": "fourier", "encoder_type": "residual"}
    | {"channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1]},
    "adm": SHARED | {"label_dim": 4, "model_type": "DhariwalUNet", "model_channels": 32},
}


@functools.cache
def golden(name):
    """(weights by name, everything else with channels last)."""
    with np.load(GOLDEN / f"edm_{name}.npz") as file:
        arrays = dict(file)
    weights = {key[2:]: value for key, value in arrays.items() if key.startswith("w/")}
    rest = {key: value for key, value in arrays.items() if not key.startswith("w/")}
    return weights, {key: value.transpose(0, 2, 3, 1) if value.ndim == 4 else value for key, value in rest.items()}
