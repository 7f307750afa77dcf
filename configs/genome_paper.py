"""Long DNA at the size of Schiff et al. (2024), Species10: a bidirectional state-space network on windows of 32,768
bases, 30,000 steps of 32. Name your genome:
    --config.data='{"name": "genome", "path": "genome.fna.gz", "length": 32768}'
The paper's labels are species; data.sequences.genomes makes such a set of several files."""

from jaxdiff.recipes.sequences import default


def get_config():
    config = default()
    config.data = {"name": "genome", "path": "genome.fna.gz", "length": 32_768, "skip": True}
    config.process = {"name": "uniform"}
    config.level = "total_noise"
    config.network = {"name": "StateSpace", "width": 256, "depth": 8, "dropout": 0.1, "remat": True}
    config.train.steps = 30_000
    config.train.batch_size = 32
    config.train.learning_rate = 2e-3
    config.train.warmup = 3000 * 32
    config.train.ema_half_life = 6931 * 32  # a decay of .9999 a step
    config.sample.sampler = {"name": "ancestral", "steps": 128}
    config.evaluate.samples = 64
    return config
