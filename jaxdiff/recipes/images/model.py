"""The network of an image experiment, and the model that it becomes: what a config says of drawing, without data."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxdiff import denoisers, grids, likelihood, networks, processes
from jaxdiff.domains import Pixels
from jaxdiff.errors import InputError
from jaxdiff.networks.streams import counted
from jaxdiff.recipes.images import names
from jaxdiff.runs.denoised import Denoised
from jaxdiff.runs.model import AS_TRAINED, Asked, Plan, Request
from jaxdiff.runs.resolve import option, resolve

CHUNK = 32  # images whose likelihood is computed at a time


class Architecture(NamedTuple):
    """A network, what makes it a denoiser, and its first parameters: its own, or {"net": ..., "u": ..., "process":
    ...} where the size of its loss or the process is learned beside it.

    `null` is the label that hides a class; None for data without classes."""

    network: denoisers.Network
    parameters: Callable[[], Any]
    null: int | None
    uncertainty: Any
    learns: bool

    def trained(self, params: Any) -> tuple[denoisers.Network, Any]:
        """(the network with the process that was learned, its own parameters)."""
        if self.uncertainty is None and not self.learns:
            return self.network, params
        process = params.get("process", self.network.process)
        return eqx.tree_at(lambda n: n.process, self.network, process), params["net"]


def architecture(config: Mapping[str, Any], domain: Pixels) -> Architecture:
    """The network of a complete config for images of `domain`; InputError for parts that do not fit each other."""
    seed, classes = config["seed"], len(domain.classes) or None
    process = resolve("process", names.PROCESSES, config["process"], seed=seed)
    learns = config["process"]["name"] == "learned"
    row = resolve("row", names.ROWS, config["row"])
    c_in = resolve("c_in", names.C_IN, config["c_in"], row=row)
    c_noise = resolve("c_noise", names.C_NOISE, config["c_noise"])
    augment = resolve("augment", names.AUGMENTATIONS, config["augment"])
    told = 0 if augment is None else len(augment.labels)
    if told and option(names.NETWORKS, config["network"], "augment") is None:
        raise InputError(
            f"config.augment moves the images, and the network {config['network']['name']} cannot be told so: it would "
            "draw moved ones; take one with augmentation labels, such as ddpmpp"
        )
    height, _, channels = domain.shape
    given = {"channels": channels, "shape": domain.shape, "size": height, "num_classes": classes, "augment": told}

    def make():
        return networks.functional(resolve("network", names.NETWORKS, config["network"], **given, rngs=counted(seed)))

    def make_uncertainty():
        return networks.functional(networks.LogVariance(rngs=counted(seed)))

    def parameters():
        params = make()[1]
        beside = {"u": make_uncertainty()[1]} if config["uncertainty"] else {}
        beside |= {"process": process} if learns else {}
        return {"net": params} | beside if beside else params

    network = denoisers.from_network(jax.jit(lambda: make()[0])(), row, process, c_in=c_in, c_noise=c_noise)
    uncertainty = jax.jit(lambda: make_uncertainty()[0])() if config["uncertainty"] else None
    return Architecture(network, parameters, classes, uncertainty, learns)


class Model(NamedTuple):
    """A trained network of images: what draws, and says how likely it finds them."""

    config: Mapping[str, Any]
    network: denoisers.Network
    params: Any
    null: int | None
    denoised: Denoised

    @property
    def domain(self) -> Pixels:
        """What it draws."""
        return self.denoised.domain

    @property
    def process(self) -> processes.Gaussian:
        """What noise does, as it was learned where it was."""
        return self.network.process

    def plan(self, request: Request = AS_TRAINED) -> Plan:
        """A drawing, as `Denoised.plan`."""
        return self.denoised.plan(request)

    def denoiser(self, label: Any) -> Any:
        """The belief about one image of a class."""
        return self.denoised.denoiser(label)

    def bits(self, held_out: Any, settings: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Bits per dimension of whole grey levels: at most, by the variational bound of the reverse SDE (`elbo`), and
        by the density of the probability flow at t0 in its place (`flow`).

        Below t0 by the discrete decoder, or, for a model that was trained on dequantised images, of such by the
        Gaussian one. A figure with failed solves is None."""
        x, cond = held_out.to_model(), held_out.labels if self.domain.classes else None
        rows = {}
        found, spread = log_probs(self, settings)
        for name, log_prob in found.items():
            row = rows[name] = likelihood.bits_per_dim(
                asked.key,
                log_prob,
                x,
                dequantize=spread,
                draws=asked.draws,
                cond=cond,
                chunk=CHUNK,
                resume=asked.resume(name),
                progress=asked.progress(name),
            )
            failed = f"; {row.failed} of {row.each.size} solves failed" if row.failed else ""
            asked.say(f"{name}: {row.mean:.4f} bits/dim, 95 % interval {row.low:.4f} to {row.high:.4f}{failed}")
        figures = {
            name: {"mean": row.mean, "interval": [row.low, row.high], "terms": row.terms, "failed": row.failed}
            for name, row in rows.items()
        }
        difference = rows["elbo"].each.mean(1) - rows["flow"].each.mean(1)
        return {
            "levels": self.domain.levels,
            "dequantized": spread is not None,
            "bits": figures,
            "elbo_minus_flow": paired(difference),
        }


def model(config: Mapping[str, Any], made: Architecture, params: Any, domain: Pixels) -> Model:
    """The model of averaged parameters."""
    network, params = made.trained(params)
    without: Any = f"{domain.name} has no classes" if made.null is None else "it was trained with label_dropout=0"
    if made.null is not None and config["label_dropout"]:
        without = network(params, jnp.int32(made.null))
    denoised = Denoised(domain, network.process, network.bind(params), without, config["sample"])
    return Model(config, network, params, made.null, denoised)


def log_probs(model: Model, settings: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """({name: log_prob(key, x, label) of one image}, the dequantiser of the images or None), for `bits_per_dim`."""
    process, levels = model.process, model.domain.levels
    spread = likelihood.dequantize.uniform(levels) if model.config["dequantize"] else None
    decoder = likelihood.decoders.discrete(levels) if spread is None else likelihood.decoders.gaussian()
    solve = likelihood.Solve(rtol=settings["rtol"], atol=settings["atol"])
    trace = likelihood.Trace(settings["divergence"], settings["probes"])

    def elbo(key, x, label):
        options = {"times": grids.importance_times, "n_times": settings["times"], "draws": 1}
        return likelihood.elbo(key, process, model.denoiser(label), x, decoder=decoder, **options).terms

    def flow(key, x, label):
        noise_key, key = jax.random.split(key)
        denoise = model.denoiser(label)
        z, terms = likelihood.truncate(noise_key, process, denoise, x, decoder)
        found = likelihood.flow_log_prob(key, process, denoise, z, solve=solve, trace=trace)
        return terms | {"flow": found.log_prob}

    return {"elbo": elbo, "flow": flow}, spread


def paired(difference: Any) -> dict[str, float]:
    """The mean of differences of the same images, and its standard error."""
    n = len(difference)
    error = float(difference.std(ddof=1)) / n**0.5 if n > 1 else float("nan")
    return {"mean": float(difference.mean()), "stderr": error}
