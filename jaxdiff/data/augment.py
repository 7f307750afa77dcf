"""Augmentation that does not leak: each image is moved at random, and the network is told how by a vector of labels, so
that with labels of zero it draws images that were not moved (Karras et al. 2022, appendix F.2; 2020, appendix B).

    xflip, yflip   mirrored by a coin                                        label: the coin
    scale          by s = 2^(.2 w), w ~ N(0, 1)                              w
    rotate         by the angle a, uniform                                   cos a - 1, sin a
    aniso          by s along an axis at angle r and 1/s across it,          w cos r, w sin r
                   r uniform, or 0 with probability 1/2
    translate      by .125 w of the width and the height                     w_x, w_y

Each happens with probability min(1, multiple * p), and where it does not its labels are 0. Mirroring is exact, the rest
is one affine map (`warp`): the place p of the result shows the place q of the image,

    q = S(1/s) R(a) R(-r) S(1/s', s') R(r) (p - translation).

Moves by whole cells, done before the map, and changes of colour, done after it, are off at first. Everything hangs on
the one example's key: `jax.vmap(augment)(keys, images)` does a batch; only which operations there are is static."""

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.data.warp import exact, warp
from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, concrete
from jaxdiff.types import PRNGKey


class Augmentation(eqx.Module):
    """`augment(key, image)` -> (image, labels) of one image; `pipeline` makes it."""

    p: Float[Array, ""] = eqx.field(converter=as_array)
    multiples: dict[str, Float[Array, ""]]
    centred: bool = eqx.field(static=True)

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of each label: as many as the network's augmentation input is wide."""
        return tuple(label for name in OPERATIONS if name in self.multiples for label in OPERATIONS[name].labels)

    def __call__(
        self, key: PRNGKey, image: Float[Array, "height width channels"]
    ) -> tuple[Float[Array, "height width channels"], Float[Array, " labels"]]:
        """One image (H, W, C) of any size moved as `key` says, and its labels, both in the image's dtype.

        Raises InputError for quarter turns of oblongs, and colour changes of other than 1 or 3 channels."""
        height, width, channels = image.shape
        x = image.astype(exact(image.dtype))
        labels, effects = [], {}
        for i, (name, operation) in enumerate(OPERATIONS.items()):
            if name in self.multiples:
                happens, values = jax.random.split(jax.random.fold_in(key, i))
                chance = jnp.minimum(1.0, self.multiples[name].astype(x.dtype) * self.p.astype(x.dtype))
                told, effects[name] = operation.draw(values, jax.random.bernoulli(happens, chance).astype(x.dtype))
                labels += told

        def some(*names):
            return [effects[name] for name in names if name in effects]

        if some("rotate_int") and height != width:
            raise InputError(f"rotate_int turns square images, got {height} x {width}; leave it at 0 for these")
        if some(*COLOURS) and channels not in (1, 3):
            raise InputError(f"changes of colour need 1 or 3 channels, got {channels}; leave them at 0 for these")
        for move in some("xflip", "yflip", "rotate_int", "translate_int"):
            x = move(x)
        if some("scale", "rotate", "aniso", "translate"):
            linear = reduce(_product, some("scale", "rotate", "aniso"), jnp.eye(2, dtype=x.dtype))
            shift = sum(some("translate"), jnp.zeros(2, x.dtype)) * jnp.asarray([width, height], x.dtype)
            x = warp(x, linear, shift, centred=self.centred)
        for change in some(*COLOURS):
            x = change(x)
        return x.astype(image.dtype), jnp.stack(labels).astype(image.dtype)


def pipeline(
    p: Any = 0.12,
    *,
    xflip: Any = 1e8,
    yflip: Any = 1,
    scale: Any = 1,
    rotate: Any = 1,
    aniso: Any = 1,
    translate: Any = 1,
    rotate_int: Any = 0,
    translate_int: Any = 0,
    brightness: Any = 0,
    contrast: Any = 0,
    lumaflip: Any = 0,
    hue: Any = 0,
    saturation: Any = 0,
    centred: bool = True,
) -> Augmentation:
    """EDM's augmentation: each operation's value is its multiple of `p`; one at 0 is left out, with its labels.

    As it stands its 9 labels are those of the published networks, in their order; all operations together have 19. The
    multiple of `xflip` makes it toss its coin for every image unless p is 0. `p` and multiples may be traced. `centred`
    is `warp`'s. Raises InputError for a p outside [0, 1], a negative multiple, or no operation at all."""
    given = dict(locals())
    multiples = {name: given[name] for name in OPERATIONS}
    if concrete(p) and not 0 <= p <= 1:
        raise InputError(f"the augmentation's p is {p}, expected a probability in [0, 1]; give one such as 0.12")
    for name, multiple in multiples.items():
        if concrete(multiple) and not 0 <= multiple < math.inf:
            raise InputError(f"augmentation got {name}={multiple}, expected a multiple of p; give 0 for none, or 1")
    chosen = {name: as_array(value) for name, value in multiples.items() if not concrete(value) or value > 0}
    if not chosen:
        raise InputError("every operation of the augmentation is 0; give one of them 1, or do not augment")
    return Augmentation(p, chosen, centred)


# Operations: (key, on) -> (labels, effect), `on` 1 where it happens and 0 where it does not. The effect of what is
# warped is a matrix or a vector, of all else a function of the image. ------------------------------------------------


def _flip(axis, key, on):
    coin = on * jax.random.bernoulli(key).astype(on.dtype)
    return [coin], lambda x: jnp.where(coin > 0, jnp.flip(x, axis), x)


def _rotate_int(key, on):
    """k quarter turns, `np.rot90(image, k)`: mirrored sideways, mirrored upside down, axes exchanged."""
    k = on * jax.random.randint(key, (), 0, 4).astype(on.dtype)
    sideways, upside = (k == 1) | (k == 2), (k == 2) | (k == 3)

    def turn(x):
        x = jnp.where(sideways, jnp.flip(x, 1), x)
        x = jnp.where(upside, jnp.flip(x, 0), x)
        return jnp.where(sideways != upside, x.transpose(1, 0, 2), x)

    return [sideways.astype(on.dtype), upside.astype(on.dtype)], turn


def _translate_int(key, on, most=0.125):
    """By whole cells, up to .125 of the width and the height, with reflections at the edges; labels before rounding."""
    w = on * jax.random.uniform(key, (2,), on.dtype, -1.0, 1.0)

    def move(x):
        for axis, cells in ((1, steps(x.shape[1], w[0])), (0, steps(x.shape[0], w[1]))):
            size = x.shape[axis]
            place = (jnp.arange(size) - cells) % max(2 * size - 2, 1)  # one period of the image and its reflection
            x = jnp.take(x, size - 1 - jnp.abs(size - 1 - place), axis=axis, mode="clip")
        return x

    def steps(size, w):
        return jnp.round(most * size * w).astype(jnp.int32)

    return [w[0], w[1]], move


def _scale(key, on, octaves=0.2):
    w = on * jax.random.normal(key, (), on.dtype)
    return [w], jnp.exp2(-octaves * w) * jnp.eye(2, dtype=on.dtype)


def _rotate(key, on):
    angle = on * _angle(key, on.dtype)
    return [jnp.cos(angle) - 1, jnp.sin(angle)], _rotation(angle)


def _aniso(key, on, octaves=0.2, oblique=0.5):
    size_key, angle_key, oblique_key = jax.random.split(key, 3)
    w = on * jax.random.normal(size_key, (), on.dtype)
    r = _angle(angle_key, on.dtype) * jax.random.bernoulli(oblique_key, oblique).astype(on.dtype)
    squeeze = jnp.diag(jnp.exp2(octaves * jnp.stack([-w, w])))
    return [w * jnp.cos(r), w * jnp.sin(r)], _product(_product(_rotation(-r), squeeze), _rotation(r))


def _translate(key, on, share=0.125):
    w = on * jax.random.normal(key, (2,), on.dtype)
    return [w[0], w[1]], share * w


def _brightness(key, on, amount=0.2):
    w = on * jax.random.normal(key, (), on.dtype)
    return [w], lambda x: x + amount * w


def _contrast(key, on, octaves=0.5):
    w = on * jax.random.normal(key, (), on.dtype)
    return [w], lambda x: x * jnp.exp2(octaves * w)


def _lumaflip(key, on):
    """Reflect colours in the plane across the grey axis: I - 2 v v^T, v = (1, 1, 1) / sqrt(3)."""
    coin = on * jax.random.bernoulli(key).astype(on.dtype)
    return [coin], lambda x: x - 2 * coin * _grey(x)


def _hue(key, on):
    """Turn colours about the grey axis (Rodrigues): cos a x + sin a (v x x) + (1 - cos a) v v^T x."""
    angle = on * _angle(key, on.dtype)
    cos, sin = jnp.cos(angle), jnp.sin(angle)

    def turn(x):
        across = (jnp.roll(x, 1, -1) - jnp.roll(x, -1, -1)) / math.sqrt(3)
        return cos * x + sin * across + (1 - cos) * _grey(x)

    return [cos - 1, sin], turn


def _saturation(key, on, octaves=1.0):
    """Stretch colours away from the grey axis: v v^T + (I - v v^T) 2^w."""
    w = on * jax.random.normal(key, (), on.dtype)
    return [w], lambda x: _grey(x) + (x - _grey(x)) * jnp.exp2(octaves * w)


class Operation(NamedTuple):
    """What draws an operation, and the names of its labels."""

    draw: Callable[..., Any]
    labels: tuple[str, ...]


OPERATIONS = {
    "xflip": Operation(partial(_flip, 1), ("xflip",)),
    "yflip": Operation(partial(_flip, 0), ("yflip",)),
    "rotate_int": Operation(_rotate_int, ("mirrored_sideways", "mirrored_upside_down")),
    "translate_int": Operation(_translate_int, ("x_cells", "y_cells")),
    "scale": Operation(_scale, ("scale",)),
    "rotate": Operation(_rotate, ("rotate_cos_less_1", "rotate_sin")),
    "aniso": Operation(_aniso, ("aniso_cos", "aniso_sin")),
    "translate": Operation(_translate, ("translate_x", "translate_y")),
    "brightness": Operation(_brightness, ("brightness",)),
    "contrast": Operation(_contrast, ("contrast",)),
    "lumaflip": Operation(_lumaflip, ("lumaflip",)),
    "hue": Operation(_hue, ("hue_cos_less_1", "hue_sin")),
    "saturation": Operation(_saturation, ("saturation",)),
}
"""Every operation, in the order in which they are done and told."""

COLOURS = ("brightness", "contrast", "lumaflip", "hue", "saturation")


def _angle(key, dtype):
    return jax.random.uniform(key, (), dtype, -math.pi, math.pi)


def _rotation(angle):
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])


def _product(a, b):
    return jnp.matmul(a, b, precision="highest")


def _grey(x):
    """v v^T x: the mean over channels."""
    return jnp.broadcast_to(jnp.mean(x, axis=-1, keepdims=True), x.shape)
