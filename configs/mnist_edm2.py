"""EDM2 (Karras et al. 2024) in small, on 5,000 MNIST digits at 14 x 14: magnitude-preserving layers, learned
uncertainty, several averages along the way. Afterwards another average, or a weaker model as a guide:

jaxdiff sample --workdir=runs/edm2 --ema_width=0.07
jaxdiff sample --workdir=runs/edm2 --guide=runs/edm2-small --guidance=2"""

from jaxdiff.recipes.images import default


def get_config():
    config = default()
    config.data = {"name": "mnist_5k", "shrink": 2}
    config.network = {"name": "edm2", "width": 16, "multipliers": (1, 2), "blocks": 1, "attention": (7,), "head": 16}
    config.times = {"name": "lognormal_times", "mean": -0.4, "std": 1.0}
    config.uncertainty = True
    config.train.steps = 4000
    config.train.batch_size = 64
    config.train.learning_rate = 1e-2
    config.train.warmup = 10_000
    config.train.flat = 1000
    config.train.project = True
    config.train.ema_widths = (0.05, 0.1)
    config.train.snapshot_every = 32_000
    config.evaluate.curve = ()
    return config
