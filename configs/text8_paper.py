"""text8 at the size of Sahoo et al. (2024) and Schiff et al. (2024): a transformer of 92 million parameters, a million
steps of 512 windows of 256 letters.

    --config.data='{"name": "text", "path": "text8", "length": 256}' reads the file itself."""

from jaxdiff.recipes.sequences import default


def get_config():
    config = default()
    config.data = {"name": "enwiki", "length": 256}
    config.network = {"name": "TokenDiT", "width": 768, "depth": 12, "heads": 12, "cond_dim": 128, "dropout": 0.1}
    config.train.steps = 1_000_000
    config.train.batch_size = 512
    config.train.learning_rate = 3e-4
    config.train.warmup = 2500 * 512
    config.train.ema_half_life = 6931 * 512  # a decay of .9999 a step
    config.sample.sampler = {"name": "ancestral", "steps": 256}
    return config
