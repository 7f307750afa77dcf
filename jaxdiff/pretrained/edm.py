"""EDM's checkpoints (Karras et al. 2022) as jaxdiff's own parts: network, parameters, preconditioning, process.

    net = edm.load("edm-cifar10-32x32-cond-vp.pkl")
    x0 = net.denoise_sigma(x, sigma, labels)                                    # D(x; sigma), a batch
    images = samplers.draw(key, 64, net.make_denoise(), samplers.edm(net.process), net.shape, cond=classes)

The four classes are the four preconditionings of their Table 1. A network is a function of the noise level alone, so
it runs on any process: `net.on(processes.edm())` is the same network for samplers that walk from sigma = 80."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from jaxdiff import preconditioning, processes
from jaxdiff.denoisers import Network
from jaxdiff.errors import InputError
from jaxdiff.networks import functional
from jaxdiff.networks.streams import counted
from jaxdiff.pretrained import edm_names, edm_pickle
from jaxdiff.types import Denoiser

__all__ = ["CLASSES", "Pretrained", "from_arrays", "load"]


def _edm(options):
    return preconditioning.edm(options.get("sigma_data", 0.5)), processes.edm()


def _vp(options):
    slope, low, steps = (options.get(k, d) for k, d in (("beta_d", 19.9), ("beta_min", 0.1), ("M", 1000)))
    betas = {"beta_min": low, "beta_max": low + slope}
    return preconditioning.vp(**betas, steps=steps), processes.vp(**betas)


def _ve(options):
    return preconditioning.ve(), processes.ve(options.get("sigma_min", 0.02), options.get("sigma_max", 100.0))


def _iddpm(options):
    chain = {"steps": options.get("M", 1000), "c1": options.get("C_1", 0.001), "c2": options.get("C_2", 0.008)}
    return preconditioning.iddpm(**chain), processes.iddpm(**chain)


CLASSES = {"EDMPrecond": _edm, "VPPrecond": _vp, "VEPrecond": _ve, "iDDPMPrecond": _iddpm}
"""What a checkpoint calls its preconditioning, and what that is here."""


class Pretrained(eqx.Module):
    """A trained network with all that samplers, likelihoods and guidance need of it.

    `shape` is one image's (H, W, C), values in [-1, 1]; `classes` and `augment` count the labels that it takes, 0 for
    none."""

    network: Network
    params: PyTree
    shape: tuple[int, int, int] = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    augment: int = eqx.field(static=True)

    @property
    def process(self) -> processes.Gaussian:
        """The process that the network was trained on."""
        return self.network.process

    def on(self, process: processes.Gaussian) -> "Pretrained":
        """The same network on another process: it hears the noise level sigma / alpha alone."""
        return eqx.tree_at(lambda p: p.network.process, self, process)

    def denoiser(self, label: Any = None) -> Denoiser:
        """The belief about one image, of a class (an int, or a row of weights) or of none."""
        return self.network(self.params, None if label is None else {"label": label})

    def make_denoise(self) -> Any:
        """label -> Denoiser, the form that `samplers.draw` maps over `cond=labels`."""
        return Partial(_labelled, self)

    def denoise_sigma(
        self,
        x: Any,
        sigma: Any,
        labels: Any = None,
        augment_labels: Any = None,
    ) -> Float[Array, "batch height width channels"]:
        """D(x; sigma) for x = x0 + sigma n, in float32.

        `sigma` is a number or one an image; `labels` are classes (B,) or rows of weights (B, classes); without them the
        network is asked without a class. `augment_labels` (B, augment) are those of an augmented image, 0 for none.
        Raises InputError for another shape."""
        x = jnp.asarray(x, jnp.float32)
        if x.ndim != 4 or x.shape[-1] != self.shape[-1]:
            raise InputError(f"x has shape {x.shape}, expected (batch, height, width, {self.shape[-1]}), channels last")
        sigma = jnp.asarray(sigma, jnp.float32)
        if sigma.shape not in ((), (1,), (len(x),)):
            raise InputError(f"sigma has shape {sigma.shape} for {len(x)} images, expected one number, or one an image")
        cond = {}
        if labels is not None:
            rows = jnp.asarray(labels)
            floating = jnp.issubdtype(rows.dtype, jnp.floating)
            wanted = (len(x), self.classes) if floating else (len(x),)
            if not self.classes or rows.shape != wanted:
                has = f"expected {wanted}" if self.classes else "and this network has no classes: leave them out"
                raise InputError(f"labels have shape {rows.shape}, {has}")
            cond["label"] = rows.astype(jnp.float32 if floating else jnp.int32)
        if augment_labels is not None:
            rows = jnp.asarray(augment_labels, jnp.float32)
            if not self.augment or rows.shape != (len(x), self.augment):
                has = f"expected {(len(x), self.augment)}" if self.augment else "and this network takes none"
                raise InputError(f"augment_labels have shape {rows.shape}, {has}")
            cond["augment"] = rows
        return _denoise(self.on(UNIT), x, jnp.broadcast_to(sigma, len(x)), cond or None)


UNIT = processes.edm(1.0)
"""Where t is the noise level itself."""


@eqx.filter_jit
def _denoise(net, x, sigma, cond):
    def one(x, sigma, cond):
        return net.network(net.params, cond)(x, sigma)

    return jax.vmap(one)(x, sigma, cond)


def _labelled(net, label):
    return net.denoiser(label)


def load(path: str | Path) -> Pretrained:
    """The averaged network of an EDM file (.pkl), read without running anything in it, or of a folder that `jaxdiff
    convert` wrote.

    Raises InputError for what is neither, is damaged, or is not of the structure that it claims."""
    return from_arrays(*edm_pickle.load(path))


def from_arrays(class_name: str, init_kwargs: Mapping[str, Any], arrays: Mapping[str, Any]) -> Pretrained:
    """The network of a checkpoint from what the checkpoint stores: its class, its options, its parameters by name.

    `class_name` is one of EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond; `init_kwargs` are img_resolution,
    img_channels, label_dim, model_type and so on; `arrays` have the checkpoint's names and layouts. Raises InputError
    for an unknown class or option, and names the weights that are missing, unknown or of another shape."""
    if class_name not in CLASSES:
        raise InputError(f"the checkpoint's class is {class_name!r}, expected one of {', '.join(CLASSES)}")
    made, process = CLASSES[class_name](init_kwargs)
    arrays, outputs = dict(arrays), None
    if class_name == "iDDPMPrecond":
        outputs = 2 * int(init_kwargs.get("img_channels", 0)) or None
        _check_levels(arrays.pop("u", None), process)

    def build():
        return edm_names.network_from_kwargs(init_kwargs, out_channels=outputs, rngs=counted(0))

    apply, params = functional(edm_names.load(nnx.eval_shape(build), arrays))
    if outputs is not None:
        apply = Partial(_means, apply)
    size, channels, classes, augment = (
        int(init_kwargs.get(option, 0)) for option in ("img_resolution", "img_channels", "label_dim", "augment_dim")
    )
    return Pretrained(made.network(apply, process), params, (size, size, channels), classes, augment)


def _means(apply, params, x, c_noise, cond=None, *, key=None):
    """The first half of the channels: improved DDPM's networks give variances in the second."""
    return apply(params, x, c_noise, cond, key=key)[..., : x.shape[-1]]


def _check_levels(u, process):
    alpha, sigma = process.scales(np.linspace(1, 0, process.schedule.steps + 1))
    # A checkpoint's table is made in float32, off by up to 5e-4.
    if u is None or np.shape(u) != sigma.shape or not np.allclose(u[:-1], (sigma / alpha)[:-1], rtol=2e-3):
        raise InputError(
            "the checkpoint's noise levels u are not those of its M, C_1 and C_2: its options are not its own"
        )
