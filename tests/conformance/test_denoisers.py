"""A network becomes a denoiser by its row: scaled input, noise embedding, conditioning, dropout key and dtypes, and the
same adapter, loss and sampler carry Flax Linen, Equinox and plain functions."""

import equinox as eqx
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import papers
import pytest
from roster import PROCESSES, ROWS

from jaxdiff import denoisers, grids, losses, oracles, parameterizations, processes, samplers
from jaxdiff.errors import InputError

T = 0.3
X = np.array([0.4, -1.1, 2.0], np.float32)


def recorder(params, x, c_noise, cond, *, key=None):
    """A network that answers with what it saw, through a callback."""
    recorder.seen = {"x": x, "c_noise": c_noise, "cond": cond, "key": key}
    return x


@pytest.mark.parametrize("name", PROCESSES)
def test_the_network_that_knows_the_answer_makes_the_oracle(name, x64):
    """A network that returns the row's target at E[x0 | x_t] and E[eps | x_t] is the exact denoiser, on every row."""
    process, x = PROCESSES[name](), jnp.asarray(X, float)
    oracle = oracles.gaussian(process, [0.5, -0.5, 0.0], [0.3, 0.6, 0.2])
    target_alpha, target_sigma = (float(s) for s in process.scales(T))

    for row_name, row in ROWS.items():

        def apply(params, x_in, c_noise, cond, row=row):
            a, b = row(process, jnp.asarray(T))
            belief = oracle.denoise(x, T)
            return (a * belief + b * (x - target_alpha * belief) / target_sigma)[None]

        got = denoisers.from_network(apply, row, process)(None)(x, T)
        np.testing.assert_allclose(got, oracle.denoise(x, T), rtol=1e-8, atol=1e-10, err_msg=row_name)


@pytest.mark.parametrize("name", PROCESSES)
def test_input_is_scaled_to_unit_variance_and_noise_is_embedded_as_in_edm(name, x64):
    process, x = PROCESSES[name](), jnp.asarray(X, float)
    alpha, sigma = papers.SCHEDULES[name](np.float64(T))
    unit, edm = 1 / np.sqrt(alpha**2 + sigma**2), 1 / np.sqrt(alpha**2 / 4 + sigma**2)
    for row, scale in ((parameterizations.noise, unit), (parameterizations.edm(0.5), edm)):
        denoisers.from_network(recorder, row, process)(None)(x, T)
        np.testing.assert_allclose(recorder.seen["x"], scale * x[None], rtol=1e-9)
        np.testing.assert_allclose(recorder.seen["c_noise"], [np.log(sigma / alpha) / 4], rtol=1e-9)
    for t in (0.0, 1.0):  # a finite number at both ends, held where all is data or all is noise
        c_noise = denoisers.log_ratio(process, t)
        assert abs(c_noise) <= np.log(1e3) / 4 * (1 + 1e-12)


def test_karras_denoiser_is_c_skip_x_plus_c_out_f(x64):
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), on the EDM process with F a known function."""
    process, x = processes.edm(), jnp.asarray(X, float)

    def network(params, x, c_noise, cond):
        return jnp.sin(x) + c_noise[:, None]

    denoise = denoisers.from_network(network, parameterizations.edm(0.5), process)(None)
    for sigma in (0.002, 0.5, 7.0, 80.0):
        c_skip, c_out, c_in, c_noise = papers.preconditioning(sigma)
        exact = c_skip * x + c_out * (np.sin(c_in * x) + c_noise)
        np.testing.assert_allclose(denoise(x, sigma / 80), exact, rtol=1e-9)


def test_scale_and_embedding_can_be_chosen():
    process = processes.vp()
    network = denoisers.from_network(
        recorder, ROWS["noise"], process, c_in=lambda p, t: jnp.asarray(2.0), c_noise=lambda p, t: 999 * t
    )
    network(None)(jnp.asarray(X), T)
    np.testing.assert_allclose(recorder.seen["x"], 2 * X[None])
    np.testing.assert_allclose(recorder.seen["c_noise"], [999 * T], rtol=1e-6)


def test_conditioning_goes_to_each_example_and_the_key_only_when_given(key):
    network = denoisers.from_network(recorder, ROWS["data"], processes.vp())
    network(None, {"label": 3, "mask": jnp.zeros((2, 2))})(jnp.asarray(X), T)
    shapes = jax.tree.map(jnp.shape, recorder.seen["cond"])
    assert (shapes, recorder.seen["key"]) == ({"label": (1,), "mask": (1, 2, 2)}, None)
    network(None, key=key)(jnp.asarray(X), T)
    assert recorder.seen["key"] is key
    assert recorder.seen["cond"] is None

    def strict(params, x, c_noise, cond):  # a network that has no word for a key
        return x * cond[:, None]

    network = denoisers.from_network(strict, ROWS["data"], processes.vp(), c_in=lambda p, t: jnp.ones_like(t))
    labels, xs = jnp.array([1.0, 2.0, -3.0]), jnp.ones((3, 2))
    got = jax.vmap(lambda x, label: network(None, label)(x, T))(xs, labels)
    np.testing.assert_allclose(got, labels[:, None] * xs, rtol=1e-6)
    np.testing.assert_array_equal(jax.vmap(lambda x, c: network.bind(None)(c)(x, T))(xs, labels), got)
    with pytest.raises(TypeError, match="key"):
        network(None, 1.0, key=key)(jnp.asarray(X), T)


def test_the_network_runs_in_its_parameters_dtype_and_the_state_keeps_its_own(x64):
    def network(params, x, c_noise, cond):
        assert {x.dtype, c_noise.dtype} == {params["w"].dtype}
        return params["w"] * x

    for row in ROWS.values():
        net = denoisers.from_network(network, row, processes.cosine())
        for params in (jnp.float32, jnp.bfloat16, jnp.float64):
            for state in (jnp.float64, jnp.float32):
                x = jnp.asarray(X, state)
                got = jax.eval_shape(net({"w": jnp.asarray(0.5, params), "steps": jnp.asarray(3)}), x, T)
                assert got.dtype == state
    # A float64 state keeps its bits beside a float32 network: x itself passes by c_skip, not through the network.
    x = jnp.array([1.0 + 1e-12])
    silent = denoisers.from_network(network, parameterizations.noise, processes.ve())({"w": jnp.float32(0.0)})
    assert silent(x, T)[0] - 1 > 0.9e-12


@pytest.mark.parametrize(
    "answer", [lambda x: x[0], lambda x: x[:, :2], lambda x: (x, x), lambda x: x.sum(), lambda x: 1]
)
def test_a_network_that_returns_another_shape_is_refused(answer):
    network = denoisers.from_network(lambda p, x, c, cond: answer(x), ROWS["noise"], processes.vp())
    with pytest.raises(InputError, match=r"the network returned .* expected an array of its input's shape \(1, 3\)"):
        network(None)(jnp.asarray(X), T)


def test_a_denoiser_made_anew_compiles_nothing():
    traces = 0

    def apply(params, x, c_noise, cond):
        return params * x

    @jax.jit
    def call(denoise, view, x, t):
        nonlocal traces
        traces += 1
        return denoise(x, t), view(x, t)

    for scale in (0.5, 0.7):
        process = processes.vp(0.1, 20.0 * scale)
        denoise = denoisers.from_network(apply, parameterizations.edm(scale), process)(jnp.asarray(scale))
        call(denoise, denoisers.score(process, denoise), jnp.asarray(X), T)
    assert traces == 1

    inner = 0

    @jax.jit
    def program(params, x):
        """Makes the network and its denoiser inside: one trace however often it runs."""
        nonlocal inner
        inner += 1
        process = processes.vp()
        denoise = denoisers.from_network(apply, parameterizations.edm(0.5), process)(params)
        ts = grids.karras(process, 4)
        return samplers.sample(jax.random.key(0), samplers.euler(process), denoise, x, ts)

    for value in (0.1, 0.2):
        program(jnp.asarray(value), jnp.asarray(X))
    assert inner == 1


# Any network library -------------------------------------------------------------------------------------------------


class Linen(flax.linen.Module):
    """Two dense layers, with dropout when there is a key, and a label."""

    @flax.linen.compact
    def __call__(self, x, c_noise, label, train):
        h = jnp.concatenate([x, c_noise[:, None], jax.nn.one_hot(label, 3)], axis=-1)
        h = flax.linen.Dropout(0.5, deterministic=not train)(jax.nn.silu(flax.linen.Dense(16)(h)))
        return flax.linen.Dense(x.shape[-1])(h)


def linen(key):
    module = Linen()
    params = module.init(key, jnp.zeros((1, 2)), jnp.zeros(1), jnp.zeros(1, int), False)

    def apply(params, x, c_noise, cond, *, key=None):
        return module.apply(params, x, c_noise, cond, key is not None, rngs={} if key is None else {"dropout": key})

    return apply, params


class Equinox(eqx.Module):
    """The same by Equinox, whose layers are written for one example."""

    layers: eqx.nn.MLP

    def __call__(self, x, c_noise, label):
        return self.layers(jnp.concatenate([x, c_noise[None], jax.nn.one_hot(label, 3)]))


def equinox(key):
    params, static = eqx.partition(Equinox(eqx.nn.MLP(6, 2, 16, 1, key=key)), eqx.is_inexact_array)

    def apply(params, x, c_noise, cond):
        return jax.vmap(eqx.combine(params, static))(x, c_noise, cond)

    return apply, params


@pytest.mark.parametrize("library", [linen, equinox])
def test_linen_and_equinox_learn_and_sample_through_the_same_door(library, key):
    """The class mean of a point mass, learnt in a few steps, is what the sampler then returns."""
    process, row = processes.edm(sigma_max=10.0), parameterizations.edm(0.5)
    apply, params = library(key)
    network = denoisers.from_network(apply, row, process)
    loss = losses.matching(process, row)
    labels = jnp.arange(96) % 3
    points = jnp.array([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]])
    optimizer = optax.adam(1e-2)

    def mean_loss(params, key):
        time_key, noise_key = jax.random.split(key)
        t = grids.lognormal_times(time_key, process, 96, mean=-0.5).t
        keys = jax.random.split(noise_key, 96)
        each = jax.vmap(lambda k, label, t: loss(k, network(params, label), points[label], t))
        return jnp.mean(each(keys, labels, t))

    @jax.jit
    def train(params, key):
        def step(state, key):
            params, memory = state
            value, slope = jax.value_and_grad(mean_loss)(params, key)
            with jax.numpy_dtype_promotion("standard"):  # Adam mixes its count with floats
                updates, memory = optimizer.update(slope, memory)
            return (optax.apply_updates(params, updates), memory), value

        (params, _), values = jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key, 300))
        return params, values

    params, values = train(params, key)
    assert values[-20:].mean() < 0.5 * values[:20].mean()
    walk = samplers.euler(process)
    ts = grids.karras(process, 4)
    x = jax.vmap(lambda k: process.prior(k, (2,)))(jax.random.split(key, 3))
    each = jax.vmap(lambda x, label: samplers.sample(key, walk, network(params, label), x, ts))
    np.testing.assert_allclose(each(x, jnp.arange(3)), points, atol=0.2)


def test_dropout_is_on_with_a_key_and_off_without(key):
    apply, params = linen(key)
    network = denoisers.from_network(apply, parameterizations.edm(0.5), processes.vp())
    x, one, two = jnp.asarray(X[:2]), *jax.random.split(key)
    still = network(params, 1)(x, T)
    np.testing.assert_array_equal(still, network(params, 1)(x, T))
    wet = [network(params, 1, key=k)(x, T) for k in (one, two)]
    assert not np.allclose(wet[0], wet[1])
    assert not np.allclose(wet[0], still)
