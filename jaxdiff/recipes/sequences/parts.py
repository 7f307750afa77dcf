"""What the three kinds of model of sequences make of a network: its methods as functions of its parameters."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax

from jaxdiff import denoisers, networks
from jaxdiff.errors import InputError
from jaxdiff.networks.streams import counted
from jaxdiff.recipes.sequences import names
from jaxdiff.runs.resolve import resolve, takes


def maker(config: Mapping[str, Any], **given: Any) -> Callable[..., Any]:
    """() -> the network that the config names, with what is `given` and its own first parameters."""

    def make(rngs=None):
        rngs = counted(config["seed"]) if rngs is None else rngs
        return resolve("network", names.NETWORKS, config["network"], **given, rngs=rngs)

    return make


def methods(make: Callable[[], Any]) -> Callable[[str], Any]:
    """A network's methods by name, each a function of its parameters."""

    @cache
    def part(method):
        return jax.jit(lambda: networks.functional(make(), method)[0])()

    return part


def nothing(make: Callable[[], Any], say: Callable[[Any, int], Any]) -> Callable[[int], Any]:
    """(length) -> what a network remembers of no token: it says so itself, and is thrown away."""

    @cache
    def empty(length):
        with jax.ensure_compile_time_eval():  # also where a sampler is being compiled
            return jax.jit(lambda: say(make(), length))()

    return empty


def row(label: Any) -> Any:
    """A label with a batch axis, or None."""
    return None if label is None else jax.numpy.asarray(label)[None]


def level(config: Mapping[str, Any]) -> Any:
    """What the network hears of the time; None for nothing."""
    return denoisers.total_noise if config["level"] == "total_noise" else None


def check_reads_text(config: Mapping[str, Any]) -> None:
    """InputError for a network that reads whole images, where it should read token by token."""
    network = config["network"]
    if network["name"] in names.NETWORKS and not takes(names.NETWORKS, network, "causal"):
        raise InputError(
            f"config.network {network['name']} reads whole images, and a diffusion of them alone; take TokenDiT or "
            "StateSpace for this model"
        )
