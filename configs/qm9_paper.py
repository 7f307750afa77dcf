"""QM9 at the size of Schiff et al. (2024), appendix: a transformer of 92 million parameters, 25,000 steps of 2,048.

It wants an accelerator, and the uniform noise of the paper:
    --config.process='{"name": "uniform"}' --config.level=total_noise"""

from jaxdiff.recipes.sequences import default


def get_config():
    config = default()
    config.data = {"name": "qm9", "label": "qed"}
    config.network = {"name": "TokenDiT", "width": 768, "depth": 12, "heads": 12, "cond_dim": 128, "dropout": 0.1}
    config.train.steps = 25_000
    config.train.batch_size = 2048
    config.train.learning_rate = 3e-4
    config.train.warmup = 1000 * 2048
    config.train.ema_half_life = 6931 * 2048  # a decay of .9999 a step
    config.sample.sampler = {"name": "ancestral", "steps": 32}
    config.evaluate.guidance = (1.0, 2.0, 3.0, 4.0, 5.0)
    config.evaluate.label = 1
    return config
