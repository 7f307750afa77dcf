"""English in 27 letters, text8's recipe on a shard of Wikipedia, by masking.

The other noise, and the baseline, of the same network:
    --config.process='{"name": "uniform"}' --config.level=total_noise
    --config.model='{"name": "autoregressive"}'
Any text: --config.data='{"name": "text", "path": "my.txt"}'. Needs: pip install --no-deps gensim==4.4.0"""

from jaxdiff.recipes.sequences import default


def get_config():
    config = default()
    config.data = {"name": "enwiki", "length": 128}
    config.network = {"name": "TokenDiT", "width": 128, "depth": 4, "heads": 4}
    config.train.steps = 4000
    config.train.batch_size = 32
    config.train.learning_rate = 1e-3
    config.train.warmup = 10_000
    config.train.ema_half_life = 6_000
    config.sample.sampler = {"name": "ancestral", "steps": 128}
    config.evaluate.samples = 256
    return config
