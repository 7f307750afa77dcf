"""Small molecules as SMILES, by masking (MDLM), told whether they are drug-like: QED above its .9 quantile in QM9.

The other noise, and the baseline, of the same network:
    --config.process='{"name": "uniform"}' --config.level=total_noise
    --config.model='{"name": "autoregressive"}'
qm9_paper.py has the sizes of Schiff et al. (2024). Needs: pip install --no-deps qm9pack==1.0.3; pip install rdkit"""

from jaxdiff.recipes.sequences import default


def get_config():
    config = default()
    config.data = {"name": "qm9", "label": "qed"}
    config.network = {"name": "TokenDiT", "width": 128, "depth": 4, "heads": 4}
    config.train.steps = 4000
    config.train.batch_size = 128
    config.train.learning_rate = 1e-3
    config.train.warmup = 25_000
    config.train.ema_half_life = 25_000
    config.sample.sampler = {"name": "ancestral", "steps": 32}
    config.evaluate.guidance = (1.0, 2.0, 3.0)
    config.evaluate.label = 1
    return config
