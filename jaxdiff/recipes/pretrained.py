"""Another project's trained network as a folder to draw from.

folder/config.json    the network's class and options, as its own file stores them
folder/weights.npz    its parameters and buffers, by its own names and in its own layout"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff import processes
from jaxdiff.domains import Pixels
from jaxdiff.errors import InputError
from jaxdiff.numerics.files import npz, write
from jaxdiff.pretrained import edm, edm_pickle
from jaxdiff.runs.denoised import Denoised
from jaxdiff.runs.folder import recall, remember
from jaxdiff.runs.model import Run
from jaxdiff.runs.statistics import REFERENCE

__all__ = ["MEASURES", "PER", "convert", "load"]

KINDS: dict[str, Callable[[Path], edm_pickle.Checkpoint]] = {"edm": edm_pickle.load}
"""Whose files can be read, by which function."""
SIGMA_MAX = 80.0
"""Where sampling starts: EDM's own, which all networks of these classes know."""
LEVELS = 256

PER = "pixel"
MEASURES = (REFERENCE,)


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


def load(workdir: str | Path, ema_width: float | None = None) -> Run:
    """The run of a folder that `convert` wrote; InputError for another one."""
    workdir = Path(workdir)
    if ema_width is not None:
        raise InputError(f"ema_width is {ema_width}, but a converted network has one average alone: leave it out")
    config = recall(workdir)
    try:
        with np.load(workdir / "weights.npz", allow_pickle=False) as arrays:
            net = edm.from_arrays(config["class_name"], config["init_kwargs"], dict(arrays))
    except (OSError, KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{workdir} holds no whole network ({error}); run `jaxdiff convert` again") from error
    return Run(workdir, config, model(net, config, str(workdir)), None, _no_data, load)


def model(net: edm.Pretrained, config: dict[str, Any], name: str) -> Denoised:
    """The network as a model of images that starts from sigma = 80, down to the lowest noise level that its own
    process has."""
    walked = net.on(processes.edm(SIGMA_MAX))
    alpha, sigma = net.process.scales(0.0)
    hidden = net.classes and config["init_kwargs"].get("label_dropout")
    without = walked.denoiser() if hidden else "it was not trained without classes, by label_dropout"
    domain = Pixels(name, net.shape, LEVELS, tuple(map(str, range(net.classes))))
    return Denoised(domain, walked.process, walked.make_denoise(), without, config["sample"], float(sigma / alpha))


def _no_data():
    raise InputError("a converted network has no data of its own")
