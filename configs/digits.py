"""Class-conditional EDM on scikit-learn's 8x8 digits: a good model in about two minutes on two cores.

The noise levels are those that `jaxdiff.data.suggest` gives for this set (docs/own-data.md)."""

from jaxdiff.recipes.images import default


def get_config():
    config = default()
    config.data = {"name": "digits"}
    config.process = {"name": "edm", "sigma_max": 40.0}
    config.row = {"name": "edm", "sigma_data": 0.75}
    config.times = {"name": "lognormal_times", "mean": -0.7, "std": 1.2}
    config.network = {
        "name": "UNet",
        "width": 32,
        "multipliers": (1, 2),
        "blocks": 1,
        "attention": (1,),
    }
    config.train.steps = 900
    config.train.learning_rate = 2e-3
    config.train.ema_half_life = 10_000
    config.evaluate.components = 0
    return config
