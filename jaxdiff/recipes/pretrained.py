"""Another project's trained network as a folder to draw from.

folder/config.json    the network's class and options, as its own file stores them
folder/weights.npz    its parameters and buffers, by its own names and in its own layout"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxdiff import data, guidance, processes
from jaxdiff.errors import InputError
from jaxdiff.pretrained import edm, edm_pickle
from jaxdiff.recipes.images import drawing, names
from jaxdiff.recipes.images.statistics import judge
from jaxdiff.recipes.progress import counter
from jaxdiff.recipes.resolve import resolve, takes
from jaxdiff.recipes.workdir import npz, recall, remember, write
from jaxdiff.samplers import Sampler, draw

KINDS: dict[str, Callable[[Path], edm_pickle.Checkpoint]] = {"edm": edm_pickle.load}
"""Whose files can be read, by which function."""
SIGMA_MAX = 80.0
"""Where sampling starts: EDM's own, which all networks of these classes know."""
LEVELS = 256


def convert(kind: str, file: str | Path, folder: str | Path) -> Path:
    """Read a network's file and write it as a folder; the network is built once, so what cannot be is refused here.

    Raises InputError for an unknown kind, a file that is none of it, and a folder that is not empty."""
    folder = Path(folder)
    if kind not in KINDS:
        raise InputError(f"there is no kind {kind!r} of networks; it is one of {', '.join(KINDS)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already and not empty; give a new folder")
    found = KINDS[kind](Path(file))
    edm.from_arrays(*found)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "weights.npz", npz(found.arrays))
    remember(
        folder,
        {
            "recipe": "pretrained",
            "kind": kind,
            "class_name": found.class_name,
            "init_kwargs": found.init_kwargs,
            "sample": {"sampler": {"name": "edm", "steps": 18}, "guidance": 1.0},
        },
    )
    return folder


def load(workdir: str | Path) -> tuple[edm.Pretrained, dict[str, Any]]:
    """(network, config) of a folder that `convert` wrote; InputError for another one."""
    config = recall(workdir)
    try:
        with np.load(Path(workdir) / "weights.npz", allow_pickle=False) as arrays:
            return edm.from_arrays(config["class_name"], config["init_kwargs"], dict(arrays)), config
    except (OSError, KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{workdir} holds no whole network ({error}); run `jaxdiff convert` again") from error


def sample(
    workdir: str | Path,
    out: str | Path | None = None,
    *,
    n: int = 64,
    labels: Sequence[int] | None = None,
    sampler: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    guide: str | Path | None = None,
    ema_width: float | None = None,
    seed: int = 0,
) -> Path:
    """Draw n images into a .png or .npz file, as `recipes.images.sample` does; `guide` is another such folder."""
    workdir = Path(workdir)
    if ema_width is not None:
        raise InputError(f"ema_width is {ema_width}, but a converted network has one average alone: leave it out")
    out = drawing.checked_output(workdir, out, n)
    net, config = load(workdir)
    asked = None if labels is None else np.resize(np.asarray(labels), n)
    cond = drawing.checked_labels(asked, net.classes, n, str(workdir))
    spec = drawing.chosen_sampler(config["sample"]["sampler"], sampler, steps)
    weight = drawing.checked_guidance(config["sample"]["guidance"] if guidance is None else guidance)
    weaker = None if guide is None else load(guide)[0]
    if weaker is not None and (weaker.shape, weaker.classes) != (net.shape, net.classes):
        raise InputError(f"the guide {guide} draws other images than {workdir}: give a network of the same shape")
    progress = counter(f"{spec['name']} from {workdir}:")
    options = {"cond": cond, "spec": spec, "weight": weight, "guide": weaker, "seed": seed, "progress": progress}
    x = samples(net, n, config, **options)
    return drawing.save(out, data.to_pixels(x, LEVELS), LEVELS, cond, net.classes if labels is None else len(labels))


def samples(
    net: edm.Pretrained,
    n: int,
    config: dict[str, Any],
    *,
    cond: np.ndarray | None,
    spec: dict[str, Any],
    weight: float = 1.0,
    guide: edm.Pretrained | None = None,
    seed: int = 0,
    progress: Any = None,
) -> np.ndarray:
    """n images in [-1, 1], by the sampler of `spec` from sigma = 80 down, guided away from `guide` or from no class.

    Raises InputError for guidance of a network that was never trained without its classes."""
    walked = net.on(processes.edm(SIGMA_MAX))
    made = walk(net, spec)
    if weight == 1:
        denoise = walked.make_denoise()
    elif guide is not None:
        denoise = Partial(_autoguided, walked, guide.on(walked.process), jnp.float32(weight))
    elif not net.classes or not config["init_kwargs"].get("label_dropout"):
        raise InputError(
            f"guidance is {weight}, but this network was not trained without classes (label_dropout): leave it at 1"
        )
    else:
        denoise = Partial(_guided, walked, jnp.float32(weight))
    return draw(jax.random.key(seed), n, denoise, made, net.shape, cond=cond, progress=progress)


def walk(net: edm.Pretrained, spec: dict[str, Any]) -> Sampler:
    """The sampler of `spec` from sigma = 80 down to the lowest noise level that the network's own process has."""
    alpha, sigma = net.process.scales(0.0)
    lowest = float(sigma / alpha)
    held = {"sigma_min": lowest} if lowest > 0 and takes(names.SAMPLERS, spec, "sigma_min") else {}
    return resolve("sample.sampler", names.SAMPLERS, held | spec)(processes.edm(SIGMA_MAX))


def _autoguided(net, weaker, weight, label):
    return guidance.autoguidance(net.denoiser(label), weaker.denoiser(label), weight)


def _guided(net, weight, label):
    return guidance.classifier_free(net.denoiser(label), net.denoiser(), weight)


def compare(
    workdir: str | Path,
    reference: str | Path,
    *,
    features: str = "pixels",
    n: int | None = None,
    seeds: int = 1,
    seed: int = 1,
    say: Callable[[str], Any] = print,
) -> dict[str, Any]:
    """The Frechet distance of the network's samples to the statistics in `reference`, as `recipes.images.compare`."""
    net, config = load(workdir)
    count = 10_000 if n is None else n
    spec, cond = config["sample"]["sampler"], drawing.checked_labels(None, net.classes, count, str(workdir))

    def pictures(s):
        x = samples(net, count, config, cond=cond, spec=spec, seed=s, progress=counter(f"seed {s}:"))
        return data.to_pixels(x, LEVELS)

    model = {"network": str(workdir)}
    chosen: dict[str, Any] = {"shape": net.shape, "features": features, "seeds": seeds, "seed": seed, "say": say}
    return judge(workdir, reference, model, pictures, count, LEVELS, **chosen)
