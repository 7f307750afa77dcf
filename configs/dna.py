"""Regulatory DNA of 200 bases, told its cell type (DNA-Diffusion's 47,872 sequences of ENCODE), by uniform noise.

Needs: pip install --no-deps dnadiffusion==0.0.0.dev0"""

from jaxdiff.recipes.sequences import default


def get_config():
    config = default()
    config.data = {"name": "dna_diffusion"}
    config.process = {"name": "uniform"}
    config.level = "total_noise"
    config.network = {"name": "TokenDiT", "width": 128, "depth": 4, "heads": 4}
    config.train.steps = 4000
    config.train.batch_size = 32
    config.train.learning_rate = 1e-3
    config.train.warmup = 10_000
    config.train.ema_half_life = 10_000
    config.sample.sampler = {"name": "ancestral", "steps": 64}
    config.sample.guidance = 2.0
    return config
