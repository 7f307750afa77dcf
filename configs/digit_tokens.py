"""8 x 8 digits as 64 tokens of 17 grey levels, told their class, by masking with some uniform noise (GIDD)."""

from jaxdiff.recipes.sequences import default


def get_config():
    config = default()
    config.data = {"name": "digits"}
    config.held_out = 297
    config.process = {"name": "gidd"}
    config.level = "total_noise"
    config.network = {"name": "TokenDiT", "width": 128, "depth": 3, "heads": 4, "positions": 64}
    config.train.steps = 1500
    config.train.batch_size = 64
    config.train.learning_rate = 1e-3
    config.train.ema_half_life = 10_000
    config.evaluate.samples = 500
    return config
