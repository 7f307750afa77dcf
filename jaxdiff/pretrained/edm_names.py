"""Between EDM's checkpoints (Karras et al. 2022) and our networks: names, layouts, and the options of a structure.

A checkpoint calls a weight "model.enc.16x16_block0.conv0.weight"; ours is at ("enc", "16x16_block0", "conv0",
"kernel"). Convolutions go from (out, in, height, width) to (height, width, in, out), matrices from (out, in) to (in,
out), and a 1 x 1 convolution is a matrix. The outputs of qkv go from the order (head, channel, {q, k, v}) to ({q, k,
v}, head, channel), so that each of the three is one slice. A checkpoint also holds the resampling filters, which our
networks have in their structure: they are compared with it and left out."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import PyTree

from jaxdiff.errors import InputError
from jaxdiff.networks.edm.adm import DhariwalUNet
from jaxdiff.networks.edm.encoder_decoder import EncoderDecoder
from jaxdiff.networks.edm.layers import Frequencies
from jaxdiff.networks.edm.song_unet import RESIDUAL, SKIP, SongUNet, positional, random_fourier
from jaxdiff.networks.functional import functional

__all__ = ["arrays_from_params", "load", "network_from_kwargs", "params_from_arrays"]

Path = tuple[Any, ...]
POINTWISE = ("skip", "qkv", "proj")  # 1 x 1 convolutions in a checkpoint, matrices here


def load(net: nnx.Module, arrays: Mapping[str, Any]) -> nnx.Module:
    """A network like `net` (which may be abstract) with the weights and buffers of a checkpoint.

    `arrays` maps the checkpoint's names to arrays. Raises InputError naming what is missing, unknown or of another
    shape, and a resampling filter that is not the network's."""
    graph, state = nnx.split(net)
    flat = dict(nnx.to_flat_state(state))
    names = {_name(path): path for path in flat}
    _check(net, {name: _their_shape(path, flat[path].shape) for name, path in names.items()}, arrays)
    for name, path in names.items():
        old = flat[path]
        value = _ours(path, np.asarray(arrays[name]), old.shape)
        flat[path] = old.replace(jnp.asarray(value, old.dtype))
    return nnx.merge(graph, nnx.from_flat_state(flat))


def params_from_arrays(net: nnx.Module, arrays: Mapping[str, Any]) -> PyTree:
    """The parameters of `functional(load(net, arrays))`, for the `apply` of `functional(net)`.

    NCSN++'s random frequencies are no parameters: where the checkpoint's differ from those of `net`, this raises
    InputError, and `load` is the way."""
    loaded = load(net, arrays)
    for path, leaf in nnx.to_flat_state(nnx.state(loaded, Frequencies)):
        own = dict(nnx.to_flat_state(nnx.state(net, Frequencies)))[path].get_value()
        if isinstance(own, jax.ShapeDtypeStruct) or not np.array_equal(own, leaf.get_value()):
            raise InputError(
                f"the checkpoint's {_name(path)} is no parameter and differs from the network's: take the network "
                "itself from load(net, arrays), then functional(...)"
            )
    return functional(loaded)[1]


def arrays_from_params(net: nnx.Module, params: PyTree | None = None) -> dict[str, np.ndarray]:
    """The inverse of `load`: `params` (those of `net` unless given), the buffers of `net` and its resampling filters
    by a checkpoint's names, in its layouts."""
    arrays = {}
    for path, leaf in nnx.to_flat_state(nnx.state(net)):
        value = leaf.get_value()
        if params is not None and isinstance(leaf, nnx.Param):
            value = params
            for part in path:
                value = value[str(part)]
        arrays[_name(path)] = _theirs(path, np.asarray(value))
    return arrays | _filters(net)


def _name(path: Path) -> str:
    *parts, last = map(str, path)
    return ".".join(["model", *parts, {"kernel": "weight", "scale": "weight"}.get(last, last)])


def _pointwise(path: Path) -> bool:
    return path[-1] == "kernel" and (path[-2] in POINTWISE or str(path[-2]).endswith("aux_skip"))


def _their_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in a checkpoint of what has `shape` here."""
    if path[-1] != "kernel":
        return tuple(shape)
    *window, inputs, outputs = shape
    return (outputs, inputs, *((1, 1) if _pointwise(path) else window))


def _ours(path: Path, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if path[-2] == "qkv":  # (channels, {q, k, v}, ...) to ({q, k, v}, channels, ...)
        value = value.reshape(-1, 3, *value.shape[1:]).swapaxes(0, 1).reshape(value.shape)
    if path[-1] != "kernel":
        return value
    return np.moveaxis(value, (1, 0), (-2, -1)).reshape(shape)


def _theirs(path: Path, value: np.ndarray) -> np.ndarray:
    shape = _their_shape(path, value.shape)
    if path[-1] == "kernel":
        value = np.moveaxis(value, (-2, -1), (1, 0)).reshape(shape)
    if path[-2] == "qkv":
        value = value.reshape(3, -1, *shape[1:]).swapaxes(0, 1).reshape(shape)
    return np.ascontiguousarray(value)


def _filters(net: nnx.Module) -> dict[str, np.ndarray]:
    """The resampling filters that a checkpoint of `net` holds, one copy for every layer that resamples."""
    found = {}
    for side in ("enc", "dec"):
        for name, layer in getattr(net, side).items():
            if getattr(layer, "resize", None) is not None:
                found |= dict.fromkeys((f"{side}.{name}.conv0", f"{side}.{name}.skip"), layer.resize.taps)
    if isinstance(net, SongUNet):
        for rung in net.rungs[1:]:
            if net.feed is RESIDUAL:
                found[f"enc.{rung}_aux_residual"] = net.taps
            if net.feed is SKIP:
                found[f"enc.{rung}_aux_down"] = net.taps
        for rung in net.rungs[:-1]:
            if net.progressive:
                found[f"dec.{rung}_aux_up"] = net.taps
    return {
        f"model.{name}.resample_filter": np.outer(taps, taps).astype(np.float32)[None, None]
        for name, taps in found.items()
    }


def _check(net: nnx.Module, shapes: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Any]) -> None:
    filters = _filters(net)
    expected = dict(shapes) | {name: value.shape for name, value in filters.items()}
    if missing := sorted(expected.keys() - arrays.keys()):
        raise InputError(f"the checkpoint lacks {_few(missing)}: it is of another structure than this network")
    if extra := sorted(arrays.keys() - expected.keys()):
        raise InputError(f"the checkpoint has {_few(extra)}, which this network does not: another structure")
    wrong = [
        f"{name} {np.shape(arrays[name])} for {shape}"
        for name, shape in expected.items()
        if np.shape(arrays[name]) != shape
    ]
    if wrong:
        raise InputError(f"the checkpoint has shapes other than this network's: {_few(wrong)}")
    for name, value in filters.items():
        if not np.allclose(arrays[name], value, atol=1e-6):
            raise InputError(f"{name} is not the network's resampling filter: give its taps as resample_filter")
    if strange := [name for name in expected if not jnp.issubdtype(np.asarray(arrays[name]).dtype, jnp.floating)]:
        raise InputError(f"the checkpoint has values other than floating-point numbers in {_few(strange)}")


def _few(names: list[str], at_most: int = 8) -> str:
    rest = len(names) - at_most
    return ", ".join(names[:at_most]) + (f" and {rest} more" if rest > 0 else "")


def _one_of(known: Mapping[str, Any]) -> Callable[[Any], Any]:
    def read(value):
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"one of {', '.join(known)}")
        return known[value]

    return read


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < 0:
        raise ValueError("a whole number, not negative")
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise ValueError("a number")
    return float(value)


def _many(read: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def read_all(value):
        if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
            raise ValueError("a list of numbers")
        return tuple(read(v) for v in value)

    return read_all


def _flag(value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError("True or False")
    return bool(value)


NETWORKS: dict[str, type[SongUNet] | type[DhariwalUNet]] = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}
"""What a checkpoint calls its architectures."""
SHARED = {
    "img_resolution": _whole,
    "img_channels": _whole,
    "label_dim": _whole,
    "use_fp16": _flag,
    "model_channels": _whole,
    "channel_mult": _many(_whole),
    "channel_mult_emb": _whole,
    "num_blocks": _whole,
    "attn_resolutions": _many(_whole),
    "dropout": _number,
    "label_dropout": _number,
    "augment_dim": _whole,
}
SONG = {
    "embedding_type": _one_of({"positional": positional, "fourier": random_fourier}),
    "channel_mult_noise": _whole,
    "encoder_type": _one_of({"standard": None, "skip": SKIP, "residual": RESIDUAL}),
    "decoder_type": _one_of({"standard": False, "skip": True}),
    "resample_filter": _many(_number),
}
PRECONDITIONING = ("sigma_min", "sigma_max", "sigma_data", "beta_d", "beta_min", "M", "epsilon_t", "C_1", "C_2")
"""Options that a checkpoint stores beside the network's, of the formula around it."""
DEFAULTS: dict[type, dict[str, Any]] = {
    SongUNet: {"model_channels": 128, "channel_mult": (1, 2, 2, 2), "num_blocks": 4, "attn_resolutions": (16,)},
    DhariwalUNet: {"model_channels": 192, "channel_mult": (1, 2, 3, 4), "num_blocks": 3}
    | {"attn_resolutions": (32, 16, 8)},
}


def network_from_kwargs(
    init_kwargs: Mapping[str, Any], *, out_channels: int | None = None, rngs: nnx.Rngs
) -> EncoderDecoder:
    """The network of the options that a checkpoint stores (img_resolution, img_channels, model_type, ...).

    Options of the preconditioning are passed over. `out_channels` is the number of outputs where it is not that of the
    image (iDDPM has twice as many). Raises InputError for an unknown or missing option, and for a value that is none
    of it."""
    kind = init_kwargs.get("model_type")
    if kind not in NETWORKS:
        raise InputError(f"init_kwargs['model_type'] is {kind!r}, expected one of {', '.join(NETWORKS)}")
    make = NETWORKS[kind]
    known = SHARED | (SONG if make is SongUNet else {})
    given = {key: value for key, value in init_kwargs.items() if key not in ("model_type", *PRECONDITIONING)}
    if unknown := sorted(map(str, given.keys() - known.keys())):
        raise InputError(f"init_kwargs has {', '.join(unknown)}: a {kind} knows {', '.join(known)}")
    if missing := [key for key in ("img_resolution", "img_channels") if key not in given]:
        raise InputError(f"init_kwargs lacks {', '.join(missing)}, which have no default")
    read = {key: _read(key, known[key], value) for key, value in (DEFAULTS[make] | given).items()}
    width, multipliers, size = read["model_channels"], read["channel_mult"], read["img_resolution"]
    options = {
        "width": width,
        "multipliers": multipliers,
        "blocks": read["num_blocks"],
        "attention": [at for at in read["attn_resolutions"] if at in {size >> i for i in range(len(multipliers))}],
        "features": width * read.get("channel_mult_emb", 4),
        "num_classes": read.get("label_dim", 0) or None,
        "augment": read.get("augment_dim", 0),
        "dropout": read.get("dropout", 0.1),
        "label_dropout": read.get("label_dropout", 0.0),
        "dtype": jnp.float16 if read.get("use_fp16", False) else jnp.float32,
    }
    if make is SongUNet:
        options |= {
            "noise": read.get("embedding_type", positional),
            "noise_features": width * read.get("channel_mult_noise", 1),
            "feed": read.get("encoder_type"),
            "progressive": read.get("decoder_type", False),
            "taps": read.get("resample_filter", (1, 1)),
        }
    return make(read["img_channels"], size, out_channels=out_channels, **options, rngs=rngs)


def _read(key: str, read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise InputError(f"init_kwargs[{key!r}] is {value!r}, expected {error}") from None
