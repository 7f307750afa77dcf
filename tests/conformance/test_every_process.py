"""Every process keeps the one protocol: it says the shape of its data, starts at any time with the law of perturb,
bridges by Chapman and Kolmogorov, checks a belief, and hands injected noise on; alone, and in a product of each two."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from roster import ANY_PROCESS, KINDS, TOKENS
from scipy import stats

from jaxdiff import beliefs, processes, samplers
from jaxdiff.errors import InputError
from jaxdiff.processes import categorical, meanings

pytestmark = pytest.mark.claim(
    "every process, and a product of each two: starts at any t with the law of perturb, bridges by Chapman and "
    "Kolmogorov, checks beliefs"
)

every_process = pytest.mark.parametrize("name", ANY_PROCESS)
every_pair = pytest.mark.parametrize(("one", "two"), [*itertools.combinations_with_replacement(KINDS, 2)])
numbers = pytest.mark.parametrize("name", [name for name in ANY_PROCESS if name not in TOKENS])
N = 20_000


def nothing(name, shape=(N,)):
    """The data of which nothing is left: 0, and any token."""
    return jnp.full(shape, 1, jnp.int32) if name in TOKENS else jnp.zeros(shape)


def first(name):
    """A time to start at: for tokens the one where no data are left."""
    return 1.0 if name in TOKENS else 0.5


def ones(key, shape, dtype):
    return jnp.ones(shape, dtype)


def zeros(key, shape, dtype):
    return jnp.zeros(shape, dtype)


def same_law(name, x, y):
    """Tokens by chi-squared; numbers by mean and covariance of the copies, within five standard errors of two draws."""
    if name in TOKENS:
        counts = np.stack([np.bincount(np.asarray(z), minlength=TOKENS[name]().states) for z in (x, y)])
        counts = counts[:, counts.sum(0) > 20]
        return counts.shape[1] == 1 or stats.chi2_contingency(counts)[1] > 1e-6
    x, y = (np.asarray(state, np.float64).reshape(-1, N) for state in (x, y))
    (mean, cov), (other, cov_other) = ((state.mean(1), np.atleast_2d(np.cov(state))) for state in (x, y))
    var = np.diag(cov_other)
    near = abs(mean - other) <= 5 * np.sqrt(2 * var / N)
    alike = abs(cov - cov_other) <= 5 * np.sqrt(2 * (np.outer(var, var) + cov_other**2) / N)
    return near.all() and alike.all()


def unrelated(x, y):
    """Draws of one shape share nothing: rank correlation within five standard errors, ties or not."""
    x, y = (np.asarray(state).reshape(-1, N)[0] for state in (x, y))
    return x.std() == 0 or y.std() == 0 or abs(stats.spearmanr(x, y)[0]) < 5 / np.sqrt(N)


@every_process
def test_it_is_a_process_and_says_the_shape_of_its_data(name, key):
    process = ANY_PROCESS[name]()
    assert isinstance(process, processes.Process)
    dtype = jnp.int32 if name in TOKENS else jnp.bfloat16
    for shape_like in (jax.ShapeDtypeStruct((3, 2), jnp.bfloat16), jnp.zeros((3, 2), jnp.bfloat16)):
        assert process.like(shape_like) == jax.ShapeDtypeStruct((3, 2), dtype)
    like = process.like((3, 2))
    assert like == jax.ShapeDtypeStruct((3, 2), jnp.int32 if name in TOKENS else jnp.float32)
    x1, t = process.prior(key, (3, 2)), jnp.float32(1.0)
    np.testing.assert_array_equal(x1, process.prior(key, like, t))
    noisy = jax.eval_shape(lambda: process.perturb(key, jnp.zeros(like.shape, like.dtype), t))
    assert (noisy.shape, noisy.dtype) == (x1.shape, x1.dtype)


@every_process
def test_starting_at_any_t_has_the_law_of_perturb(name, key):
    """prior(t) is the law of perturb(x0, t) where nothing is left of x0: x0 = 0 at any t, and any token at t = 1."""
    process = ANY_PROCESS[name]()
    draw = jax.jit(lambda one, two, t: (process.prior(one, (N,), t), process.perturb(two, nothing(name), t)))
    for t in (1.0,) if name in TOKENS else (1.0, 0.5, 0.03):
        assert same_law(name, *draw(*jax.random.split(jax.random.fold_in(key, int(100 * t))), jnp.float32(t))), t


@numbers
def test_starting_at_any_t_is_perturbing_nothing_to_the_last_bit(name, key):
    process = ANY_PROCESS[name]()
    draw = jax.jit(lambda t: (process.prior(key, (5,), t), process.perturb(key, jnp.zeros(5), t)))
    for t in (1.0, 0.7, 0.1, 1e-3, 0.0):
        np.testing.assert_array_equal(*draw(jnp.float32(t)))


@every_pair
def test_a_product_starts_at_any_times_with_the_law_of_perturb(one, two, key):
    product = processes.Product({"a": ANY_PROCESS[one](), "b": ANY_PROCESS[two]()})
    names, t = {"a": one, "b": two}, {"a": first(one), "b": first(two)}
    x0 = {leaf: nothing(name) for leaf, name in names.items()}
    keys = jax.random.split(key)
    x, y = jax.jit(lambda: (product.prior(keys[0], product.like(x0), t), product.perturb(keys[1], x0, t)))()
    for leaf, name in names.items():
        assert same_law(name, x[leaf], y[leaf]), leaf
    assert unrelated(x["a"], x["b"])


@every_pair
def test_a_product_hands_injected_noise_on_and_tokens_ask_for_none(one, two, key):
    names = {"a": one, "b": two}
    product = processes.Product({leaf: ANY_PROCESS[name]() for leaf, name in names.items()})
    x0 = {leaf: jnp.ones_like(nothing(name, (3,))) for leaf, name in names.items()}
    plain = product.prior(key, x0), product.perturb(key, x0, 0.5)
    for noise in (ones, zeros):
        found = product.prior(key, x0, noise=noise), product.perturb(key, x0, 0.5, noise=noise)
        for leaf, name in names.items():
            process = product.parts[leaf]
            exact = process.prior(key, x0[leaf], noise=noise), process.perturb(key, x0[leaf], 0.5, noise=noise)
            for state, alone, default in zip(found, exact, plain, strict=True):
                np.testing.assert_array_equal(state[leaf], default[leaf] if name in TOKENS else alone)


def some(name):
    """Data, each number or token the same."""
    return jnp.full(N, 2, jnp.int32) if name in TOKENS else jnp.full(N, 0.4)


@every_process
def test_a_bridge_from_perturb_is_perturb_to_the_earlier_time(name, key):
    """Chapman and Kolmogorov: x_t ~ p(x_t | x0), then x_s ~ p(x_s | x_t, x0), has the law p(x_s | x0)."""
    process, x0 = ANY_PROCESS[name](), some(name)
    assert isinstance(process, processes.Bridged)

    @jax.jit
    def draw(keys, t, s):
        return process.bridge(keys[0], process.perturb(keys[1], x0, t), x0, t, s), process.perturb(keys[2], x0, s)

    for t, s in ((0.9, 0.3), (0.4, 0.1)):
        keys = jax.random.split(jax.random.fold_in(key, int(10 * t)), 3)
        assert same_law(name, *draw(keys, jnp.float32(t), jnp.float32(s))), (t, s)


@every_pair
def test_a_product_bridges_leaf_by_leaf(one, two, key):
    names = {"a": one, "b": two}
    product = processes.Product({leaf: ANY_PROCESS[name]() for leaf, name in names.items()})
    x0, t, s = {leaf: some(name) for leaf, name in names.items()}, {"a": 0.8, "b": 0.6}, {"a": 0.2, "b": 0.5}
    keys = jax.random.split(key, 3)
    x = product.perturb(keys[0], x0, t)
    bridge = jax.jit(lambda key: product.bridge(key, x, x0, t, s))
    drawn, again = bridge(keys[1]), product.perturb(keys[2], x0, s)
    silent = product.bridge(keys[1], x, x0, t, s, noise=zeros)
    for leaf, name in names.items():
        assert same_law(name, drawn[leaf], again[leaf]), leaf
        if name not in TOKENS:  # the noise is handed on: none of it leaves the mean of the posterior
            mean = product.parts[leaf].posterior(x[leaf], x0[leaf], t[leaf], s[leaf])[0]
            np.testing.assert_allclose(silent[leaf], mean, rtol=1e-6, atol=1e-6)
    assert unrelated(drawn["a"], drawn["b"])


def test_a_sampler_of_a_product_starts_at_its_first_time(key):
    """... and not at t = 1: noise of standard deviation 40 in the middle of edm(80)."""
    process = processes.Product({"x": processes.edm(80.0), "y": {"z": processes.vp()}})
    stepper = samplers.product({"x": samplers.euler(process.parts["x"]), "y": {"z": samplers.euler(processes.vp())}})
    sampler = samplers.Sampler(process, stepper, jnp.linspace(0.5, 0.0, 3))
    x = sampler.start(key, {"x": jnp.zeros(N), "y": {"z": jnp.zeros(3)}})
    assert abs(np.std(x["x"]) / 40 - 1) < 5 / np.sqrt(2 * N)
    x0 = {"x": jnp.full(3, 2.0), "y": {"z": jnp.full(2, -1.0)}}
    clean = sampler.renoise(key, x0, noise=zeros)
    np.testing.assert_array_equal(clean["x"], x0["x"])
    np.testing.assert_array_equal(clean["y"]["z"], processes.vp().scales(jnp.float32(0.5))[0] * x0["y"]["z"])


def test_a_product_says_the_shape_of_its_data(key):
    product = processes.Product({"x": processes.cld(), "y": {"z": processes.absorbing(4)}})
    like = product.like({"x": (3,), "y": {"z": (2, 5)}})
    assert like["x"] == jax.ShapeDtypeStruct((3,), jnp.float32)
    assert like["y"]["z"] == jax.ShapeDtypeStruct((2, 5), jnp.int32)
    assert jax.tree.map(jnp.shape, product.prior(key, like)) == {"x": (2, 3), "y": {"z": (2, 5)}}
    for act in (product.like, lambda tree: product.prior(key, tree), lambda tree: product.perturb(key, tree, 0.5)):
        with pytest.raises(InputError, match=r"expected one leaf for each of \['x'\], \['y'\]\['z'\]"):
            act({"x": jnp.zeros(3)})


class Early(eqx.Module):
    """All is lost at t = 1/2."""

    def __call__(self, t):
        return 1 - self.rest(t)

    def rest(self, t):
        return jnp.minimum(2 * t, jnp.ones_like(t))

    def time_of(self, rest):
        return rest / 2


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_start_where_no_data_are_left_or_not_at_all(name, key):
    process = TOKENS[name]()
    for t in (0.5, np.float32(0.9), jnp.float32(0.95)):
        with pytest.raises(InputError, match="of the data are left, expected t = 1: noise alone has no law there"):
            process.prior(key, (3,), t)
    np.testing.assert_array_equal(process.prior(key, (3,), np.nextafter(np.float32(1), np.float32(0))),
                                  process.prior(key, (3,)))  # fmt: skip
    stepper = samplers.categorical.draw(samplers.categorical.ancestral(process))
    sampler = samplers.Sampler(process, stepper, jnp.linspace(0.5, 0.0, 3))
    for start in (
        lambda: sampler.start(key, (3,)),
        lambda: jax.jit(lambda key: sampler.start(key, (3,)))(key),
        lambda: samplers.draw(key, 2, lambda cond: None, sampler, (3,)),
    ):
        with pytest.raises(InputError, match="expected t = 1: noise alone"):
            start()
    np.testing.assert_array_equal(sampler.renoise(key, jnp.array([0, 1])), process.perturb(key, jnp.array([0, 1]), 0.5))


def test_tokens_start_early_where_all_is_lost_early(key):
    process = processes.Mixing(4, True, True, categorical.Share(Early(), 0.3))
    one, two = jax.random.split(key)
    counts = [
        np.bincount(np.asarray(z), minlength=5)
        for z in (process.prior(one, (N,), 0.5), process.perturb(two, jnp.full(N, 2), 0.5))
    ]
    assert stats.chi2_contingency(counts)[1] > 1e-6
    with pytest.raises(InputError, match=r"t = 0.25, where 0.5 of the data are left"):
        process.prior(key, (N,), 0.25)


def belief_of(name, shape):
    return beliefs.Posterior(jnp.zeros((*shape, 4))) if name in TOKENS else jnp.zeros(shape)


@every_process
def test_a_process_checks_the_belief_about_its_data(name, key):
    process = ANY_PROCESS[name]()
    assert isinstance(process, processes.Believed)
    x = process.perturb(key, nothing(name, (3,)), 0.5)
    belief = belief_of(name, (3,))
    assert process.believed(belief, x) is belief
    wrong = [belief_of(name, (2,)), beliefs.Score(jnp.zeros((3, 9))), "zero", None]
    wrong += [jnp.zeros((3, 4))] if name in TOKENS else [jnp.zeros(3, jnp.bfloat16), jnp.zeros((1, 3))]
    for said in wrong:
        with pytest.raises(InputError, match=r"the denoiser returned .*expected"):
            process.believed(said, x)


@every_pair
def test_a_product_checks_the_belief_about_each_leaf(one, two, key):
    names = {"a": one, "b": two}
    product = processes.Product({leaf: ANY_PROCESS[name]() for leaf, name in names.items()})
    x = product.perturb(key, {leaf: nothing(name, (3,)) for leaf, name in names.items()}, 0.5)
    belief = {leaf: belief_of(name, (3,)) for leaf, name in names.items()}
    said = product.believed(belief, x)
    assert all(said[leaf] is belief[leaf] for leaf in names)
    for leaf, name in names.items():
        with pytest.raises(InputError, match="the denoiser returned"):
            product.believed(belief | {leaf: belief_of(name, (2,))}, x)
    with pytest.raises(InputError, match="expected one leaf for each of"):
        product.believed({"a": belief["a"]}, x)


PROTOCOLS = [
    word for word in {**vars(processes), **vars(categorical), **vars(meanings)}.values()
    if isinstance(word, type) and getattr(word, "_is_protocol", False) and word.__module__.startswith("jaxdiff")
]  # fmt: skip


def test_a_protocol_has_at_most_three_members():
    own = {word.__name__: [name for name in vars(word) if not name.startswith("_")] for word in PROTOCOLS}
    assert own["Process"] == ["like", "prior", "perturb"]
    assert own["Categorical"] == []  # all it needs has a name of its own
    assert all(len(members) <= 3 for members in own.values()), own
