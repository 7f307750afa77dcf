"""The smallest experiment that is one: it trains in seconds, and what it draws is noise."""

from jaxdiff.recipes.images import default


def get_config():
    config = default()
    config.network = {"name": "MLP", "hidden": 8, "depth": 1}
    config.train.steps = 20
    config.train.batch_size = 16
    config.train.save_every = 10
    config.train.log_every = 5
    config.sample.sampler = {"name": "edm", "steps": 3}
    config.evaluate.samples = 16
    config.evaluate.components = 6
    config.evaluate.curve = (3,)
    return config
