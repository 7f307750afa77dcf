"""What a config of this recipe can name, field by field. A new process, loss, network or data set is one word here."""

from collections.abc import Sequence
from typing import Any

import optax

from jaxdiff import alphas, grids, losses, networks, processes
from jaxdiff.errors import InputError
from jaxdiff.recipes.sequences import sources
from jaxdiff.recipes.sequences.samplers import SAMPLERS as SAMPLERS
from jaxdiff.runs.resolve import named


def absorbing(*, vocab: int, alpha: alphas.Alpha) -> processes.Mixing:
    """Masking noise."""
    return processes.absorbing(vocab, alpha)


def uniform(*, vocab: int, alpha: alphas.Alpha) -> processes.Mixing:
    """Uniform noise."""
    return processes.uniform(vocab, alpha)


def hybrid(*, vocab: int, alpha: alphas.Alpha, share: float = 0.1) -> processes.Mixing:
    """Both, in fixed shares."""
    return processes.hybrid(vocab, share, alpha)


def gidd(*, vocab: int, uniform: float = 0.2, power: float = 1.0) -> processes.Mixing:
    """Masking with uniform noise on the way."""
    return processes.gidd(vocab, uniform, power)


def neighbours(*, vocab: int, alpha: alphas.Alpha) -> processes.Chain:
    """A walk between neighbouring levels, for tokens that have an order; `alpha` must end above 0."""
    return processes.ctmc(processes.rates.nearest(vocab), alpha)


def gaussian(*, vocab: int, alpha: alphas.Alpha, width: float) -> processes.Chain:
    """Jumps between levels that are near; `alpha` must end above 0."""
    return processes.ctmc(processes.rates.gaussian(vocab, width), alpha)


def bound(*, noise: Any) -> Any:
    """The process's own variational bound."""
    return losses.bound(noise)


def score_entropy(*, noise: Any) -> Any:
    """SEDD's."""
    return losses.score_entropy(noise)


def cross_entropy(*, noise: Any) -> Any:
    """-log p(x0 | z_t), unweighted."""
    return losses.cross_entropy(noise)


def d3pm(*, noise: Any, steps: int = 1000) -> Any:
    """The bound in discrete time."""
    return losses.d3pm(noise, steps)


def flow_matching(*, noise: Any) -> Any:
    """Discrete flow matching's."""
    return losses.flow_matching(noise)


def truncated_logistic(
    *,
    vocab: int,
    states: int,
    shape: Any,
    num_classes: int | None,
    rngs: Any,
    width: int = 64,
    multipliers: Sequence[int] = (1, 2, 2),
    blocks: int = 2,
    attention: Sequence[int] = (),
    dropout: float = 0.0,
) -> Any:
    """The U-Net of images as tokens, whose logits know the order of levels."""
    if len(shape) != 3:
        raise InputError(
            "config.network is TruncatedLogistic, which reads images: give a config.data such as digits or mnist_5k, "
            "or a network such as TokenDiT"
        )
    options = {"width": width, "multipliers": multipliers, "blocks": blocks, "attention": attention, "dropout": dropout}
    given = {"states": states, "rows": shape, "num_classes": num_classes, "rngs": rngs}
    return networks.TruncatedLogistic(vocab, shape[-1], **given, **options)


_SOURCES = ("qm9", "moses", "smiles", "dna_diffusion", "genome", "enwiki", "kjv", "text", "digits", "mnist_5k")
DATA = named(sources, *_SOURCES)
PROCESSES = {
    "absorbing": absorbing,
    "uniform": uniform,
    "hybrid": hybrid,
    "gidd": gidd,
    "neighbours": neighbours,
    "gaussian": gaussian,
}
ALPHAS = named(
    alphas, *("linear", "log_linear", "polynomial", "cosine", "cosine_squared", "geometric", "constant_rate")
)
LOSSES = {
    "bound": bound,
    "score_entropy": score_entropy,
    "cross_entropy": cross_entropy,
    "d3pm": d3pm,
    "flow_matching": flow_matching,
}
TIMES = named(grids, "uniform_times", "stratified_times", "lattice_times", "log_rest_times")
NETWORKS = named(networks, "TokenDiT", "StateSpace") | {"TruncatedLogistic": truncated_logistic}
OPTIMIZERS = named(optax, "adam", "adamw", "nadam", "radam", "lamb", "lion", "rmsprop", "sgd")
