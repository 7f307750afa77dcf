"""What an image should become is known where it is a sum of cosines that reflect into themselves at the edges: the
moved image is the function at the moved places, and the only error left is linear interpolation's at half a cell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jaxdiff.data.augment import OPERATIONS, pipeline
from jaxdiff.data.warp import SYM6, warp
from jaxdiff.errors import InputError

pytestmark = pytest.mark.claim("augmentation is the identity at p = 0, its labels have the exact moments")


EVERYTHING = dict.fromkeys(OPERATIONS, 1)
GREY = np.ones(3) / np.sqrt(3)


def cosines(height, width, modes=((2, 1, 0.4), (1, 2, 0.3), (0, 2, 0.3))):
    """f(x, y), cells from the centre, even about the outer cells' centres, and the bound h^2/8 (|f_xx| + |f_yy|)."""
    rates = [(np.pi * i / (width - 1), np.pi * j / (height - 1), a) for i, j, a in modes]

    def f(x, y):
        u, v = x + (width - 1) / 2, y + (height - 1) / 2
        return sum(a * np.cos(k * u) * np.cos(m * v) for k, m, a in rates)

    return f, sum(abs(a) * (k * k + m * m) for k, m, a in rates) / 32


def places(height, width):
    return np.meshgrid(np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2)


def picture(f, height, width, dtype=jnp.float32):
    return jnp.asarray(f(*places(height, width))[..., None], dtype)


def only(**chosen):
    return pipeline(1.0, **dict.fromkeys(OPERATIONS, 0) | chosen)


warped = jax.jit(warp, static_argnames="centred")


@jax.jit
def run(augment, key, image):
    return augment(key, image)


def rotation(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def test_the_taps_are_the_wavelet():
    """Orthogonal to even shifts and six vanishing moments: Daubechies' equations, which have 12 taps as few solutions;
    the least asymmetric has the centre of mass nearest the middle."""
    for n in range(6):
        np.testing.assert_allclose(SYM6[2 * n :] @ SYM6[: 12 - 2 * n], n == 0, atol=1e-12)
        np.testing.assert_allclose((-1.0) ** np.arange(12) * SYM6 @ (np.arange(12) / 11) ** n, 0, atol=1e-11)
    np.testing.assert_allclose(SYM6.sum(), np.sqrt(2), rtol=1e-12)
    assert abs(SYM6 @ np.arange(12) / SYM6.sum() - 5.5) < 0.41  # the other solutions lie 0.8 and more away


@pytest.mark.parametrize("shape", [(32, 32, 3), (31, 31, 1), (16, 24, 2), (1, 4, 1)])
def test_without_probability_nothing_is_changed(shape, key):
    image = jax.random.normal(key, shape)
    moved, labels = run(pipeline(0.0), key, image)
    np.testing.assert_allclose(moved, image, atol=2e-6)  # 1e-4 is demanded
    np.testing.assert_array_equal(labels, np.zeros(9))
    assert (moved.dtype, labels.dtype) == (image.dtype, image.dtype)


def test_mirrors_and_quarter_turns_are_exact(key):
    image = jax.random.normal(key, (6, 6, 2))
    flips, turns = only(xflip=1, yflip=1), only(rotate_int=1)
    seen = set()
    for k in jax.random.split(key, 24):
        moved, (x, y) = run(flips, k, image)
        expected = np.asarray(image)[:: -1 if y else 1, :: -1 if x else 1]
        np.testing.assert_array_equal(moved, expected)
        turned, bits = run(turns, k, image)
        quarters = {(0, 0): 0, (1, 0): 1, (1, 1): 2, (0, 1): 3}[tuple(int(b) for b in bits)]
        np.testing.assert_array_equal(turned, np.rot90(image, quarters))
        seen |= {(int(x), int(y)), quarters}
    assert seen == {(0, 0), (0, 1), (1, 0), (1, 1), 0, 1, 2, 3}
    oblong = jax.random.normal(key, (3, 8, 1))
    moved, _ = pipeline(1.0, xflip=1, yflip=0, scale=0, rotate=0, aniso=0, translate=0)(jax.random.key(3), oblong)
    assert moved.shape == oblong.shape


@pytest.mark.parametrize("shape", [(16, 16, 1), (15, 20, 2)])
def test_whole_cells_move_exactly_and_reflect(shape, key):
    image = jax.random.normal(key, shape)
    moved = warped(image, jnp.eye(2), jnp.array([3.0, -2.0]))
    np.testing.assert_allclose(moved[:-2, 3:], image[2:, :-3], atol=2e-6)
    by_cells, w = run(only(translate_int=1), key, image)
    right, down = (int(np.round(0.125 * n * v)) for n, v in zip(shape[1::-1], w, strict=True))
    padded = np.pad(image, [(4, 4), (4, 4), (0, 0)], mode="reflect")
    assert (right, down) != (0, 0)
    np.testing.assert_array_equal(by_cells, padded[4 - down :, 4 - right :][: shape[0], : shape[1]])


@pytest.mark.parametrize("size", [32, 33])
def test_quarter_turns_of_a_smooth_image(size):
    f, bound = cosines(size, size)
    image = picture(f, size, size)
    for quarters in (1, 2, 3):
        turn = jnp.asarray(rotation(quarters * np.pi / 2), jnp.float32)
        moved = warped(image, turn, jnp.zeros(2))
        np.testing.assert_allclose(moved, np.rot90(image, quarters), atol=1.2 * bound)
        # The published delay of 1/4 cell, where the taps have 0.2009: turned about a point off the centre.
        published = warped(image, turn, jnp.zeros(2), centred=False)
        q = np.einsum("ij,jhw->ihw", turn, np.stack(places(size, size)) + 0.0491) - 0.0491
        np.testing.assert_allclose(published[..., 0], f(*q), atol=1.2 * bound)
        assert np.abs(published - moved).max() > 2 * bound


@pytest.mark.parametrize(
    ("chosen", "height", "width"),
    [
        (("scale",), 33, 47),
        (("rotate",), 32, 32),
        (("aniso",), 32, 32),
        (("translate",), 33, 47),
        (("scale", "rotate", "aniso", "translate"), 33, 47),
        (("xflip", "yflip", "scale", "rotate", "aniso", "translate"), 32, 32),
        (("xflip", "yflip", "scale", "rotate", "aniso", "translate"), 33, 47),
    ],
)
def test_labels_say_what_was_done(chosen, height, width, key):
    """From the labels alone: q = F S(1/s) R(a) R(-r) S(1/z, z) R(r) (p - t), and it is f(q). The labels of aniso
    don't tell (w, r) from (-w, r + pi), which stretch across each other, so the better of the two must fit."""
    f, bound = cosines(height, width)
    image, augment = picture(f, height, width), only(**dict.fromkeys(chosen, 1))
    images, labels = jax.jit(jax.vmap(augment, (0, None)))(jax.random.split(key, 12), image)
    p = np.stack(places(height, width))
    for moved, row in zip(np.asarray(images)[..., 0], np.asarray(labels, np.float64), strict=True):
        told = dict.fromkeys(pipeline().labels, 0.0) | dict(zip(augment.labels, row, strict=True))
        r, w = np.arctan2(told["aniso_sin"], told["aniso_cos"]), np.hypot(told["aniso_sin"], told["aniso_cos"])
        angle = np.arctan2(told["rotate_sin"], told["rotate_cos_less_1"] + 1)
        shift = 0.125 * np.array([width * told["translate_x"], height * told["translate_y"]])
        flip = np.diag([1 - 2 * told["xflip"], 1 - 2 * told["yflip"]])
        errors = []
        for sign in (1, -1):
            squeeze = rotation(-r) @ np.diag([2 ** (-0.2 * sign * w), 2 ** (0.2 * sign * w)]) @ rotation(r)
            linear = flip * 2 ** (-0.2 * told["scale"]) @ rotation(angle) @ squeeze
            q = np.einsum("ij,jhw->ihw", linear, p - shift[:, None, None])
            known = (np.abs(q[0]) < 1.5 * width - 6) & (np.abs(q[1]) < 1.5 * height - 6)  # beyond are zeros
            assert known.mean() > 0.8
            errors.append(np.abs(moved - f(*q))[known].max())
        assert min(errors) < 1.2 * bound, (errors, bound)


def test_label_moments_are_the_exact_ones(key):
    """Means, second moments and those of pairs, each against its exact value within five standard errors, known from
    the exact fourth moment."""
    n, p = 40_000, 0.12
    draw = jax.jit(jax.vmap(lambda k: pipeline(p)(k, jnp.zeros((8, 8, 1)))[1]))
    labels = np.asarray(draw(jax.random.split(key, n)), np.float64)
    names = pipeline().labels
    coin, rare = (0.5, 0.5, 0.5), (p / 2, p / 2, p / 2)
    normal = (0.0, p, 3 * p)
    exact = {  # E x, E x^2, E x^4
        "xflip": coin,
        "yflip": rare,
        "scale": normal,
        "rotate_cos_less_1": (-p, 1.5 * p, 35 / 8 * p),  # E (1 - cos)^4 = 35/8
        "rotate_sin": (0.0, p / 2, 3 / 8 * p),
        "aniso_cos": (0.0, 0.75 * p, 3 * p * (0.5 + 0.5 * 3 / 8)),
        "aniso_sin": (0.0, 0.25 * p, 3 * p * 0.5 * 3 / 8),
        "translate_x": normal,
        "translate_y": normal,
    }
    assert list(exact) == list(names)
    for name, (one, two, four) in exact.items():
        x = labels[:, names.index(name)]
        assert abs(x.mean() - one) < 5 * np.sqrt((two - one**2) / n), name
        assert abs((x**2).mean() - two) < 5 * np.sqrt((four - two**2) / n), name
    np.testing.assert_allclose(
        [exact[k][1] ** 0.5 for k in ("scale", "translate_x", "aniso_sin")], [0.346, 0.346, 0.173], atol=5e-4
    )

    # Labels of one operation share its gate; those of two operations are independent.
    together = {
        ("translate_x", "translate_y"): (p, 9 * p),
        ("rotate_cos_less_1", "rotate_sin"): (5 / 8 * p, None),  # E (1 - cos)^2 sin^2 = 5/8
        ("aniso_cos", "aniso_sin"): (3 * p * 0.5 / 8, None),
    }
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            product = labels[:, i] ** 2 * labels[:, names.index(b)] ** 2
            expected = together.get((a, b), (exact[a][1] * exact[b][1], None))[0]
            assert abs(product.mean() - expected) < 5 * product.std() / np.sqrt(n), (a, b)
            first = labels[:, i] * labels[:, names.index(b)]
            mean = exact[a][0] * exact[b][0]
            assert abs(first.mean() - mean) < 5 * first.std() / np.sqrt(n), (a, b)


def test_xflip_tosses_its_coin_for_every_image(key):
    keys = jax.random.split(key, 2000)
    draw = jax.jit(lambda p: jax.vmap(lambda k: pipeline(p)(k, jnp.zeros((8, 8, 1)))[1])(keys))
    for p, half in ((0.0, 0.0), (0.12, 0.5), (1.0, 0.5)):
        assert abs(float(draw(jnp.float32(p))[:, 0].mean()) - half) <= 5 * half / np.sqrt(2000)


def test_colours_are_the_matrices_of_their_labels(key):
    """Householder's reflection, the exponential of a cross product, and a stretch, applied in order."""
    names = ("brightness", "contrast", "lumaflip", "hue", "saturation")
    augment = only(**dict.fromkeys(names, 1))
    image = jax.random.normal(key, (3, 4, 3))
    vv = np.outer(GREY, GREY)
    cross = np.cross(np.eye(3), GREY)  # cross @ x = GREY x x
    for k in jax.random.split(key, 8):
        moved, labels = run(augment, k, image)
        brightness, contrast, flip, cos, sin, saturation = np.asarray(labels, np.float64)
        matrix = (
            (vv + (np.eye(3) - vv) * 2**saturation)
            @ scipy.linalg.expm(np.arctan2(sin, cos + 1) * cross)
            @ (np.eye(3) - 2 * flip * vv)
            * 2 ** (0.5 * contrast)
        )
        np.testing.assert_allclose(moved, (image + 0.2 * brightness) @ matrix.T, rtol=2e-5, atol=2e-5)
        grey, told = run(augment, k, image[..., :1])
        np.testing.assert_array_equal(told, labels)
        coloured, _ = run(augment, k, jnp.repeat(image[..., :1], 3, -1))
        np.testing.assert_allclose(jnp.repeat(grey, 3, -1), coloured, rtol=2e-5, atol=2e-5)


def test_order_and_number_of_labels():
    assert pipeline().labels == (
        *("xflip", "yflip", "scale", "rotate_cos_less_1", "rotate_sin"),
        *("aniso_cos", "aniso_sin", "translate_x", "translate_y"),
    )
    assert len(pipeline(0.1, **EVERYTHING).labels) == 19
    assert pipeline(0.1, xflip=0).labels == pipeline().labels[1:]


def test_a_batch_is_its_examples_and_nothing_compiles_twice(key):
    traces = []

    @jax.jit
    def batch(augment, keys, images):
        traces.append(1)
        return jax.vmap(augment)(keys, images)

    keys, images = jax.random.split(key, 3), jax.random.normal(key, (3, 8, 8, 3))
    many, labels = batch(pipeline(0.9, **EVERYTHING), keys, images)
    one = [run(pipeline(0.9, **EVERYTHING), k, x) for k, x in zip(keys, images, strict=True)]
    np.testing.assert_allclose(many, np.stack([x for x, _ in one]), atol=2e-5)
    np.testing.assert_allclose(labels, np.stack([y for _, y in one]), atol=1e-6)
    batch(pipeline(jnp.float32(0.2), **EVERYTHING), keys, images)
    batch(pipeline(0.3, **EVERYTHING | {"scale": 0.5}), keys, images)
    assert len(traces) == 1


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_results_have_the_dtype_of_the_image(dtype, key, x64):
    f, _ = cosines(16, 16)
    image = picture(f, 16, 16, dtype)
    moved, labels = run(pipeline(0.5), key, image)
    assert (moved.dtype, labels.dtype) == (dtype, dtype)
    rounding = 2 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(
        np.float64(run(pipeline(0.0), key, image)[0]), np.float64(image), atol=max(rounding, 1e-12)
    )


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: pipeline(1.2), r"the augmentation's p is 1\.2, expected a probability"),
        (lambda: pipeline(float("nan")), "p is nan"),
        (lambda: pipeline(0.1, scale=-1), "augmentation got scale=-1, expected a multiple of p"),
        (lambda: only(), "every operation of the augmentation is 0"),
        (
            lambda: only(rotate_int=1)(jax.random.key(0), jnp.zeros((4, 6, 1))),
            "rotate_int turns square images, got 4 x 6",
        ),
        (lambda: only(hue=1)(jax.random.key(0), jnp.zeros((4, 4, 2))), "need 1 or 3 channels, got 2"),
    ],
)
def test_mistakes(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()
