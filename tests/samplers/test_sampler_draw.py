"""A sample depends on its key, its index and its own conditioning alone: not on how many are drawn, nor on which chunk
it falls into."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import oracles, processes, samplers
from jaxdiff.errors import InputError

pytestmark = pytest.mark.claim("a sample depends on its key and index alone")


P = processes.vp()
SAMPLER = samplers.edm(P, steps=6, churn=3.0)


def make_denoise(cond):
    """A Gaussian around the conditioning."""
    return oracles.gaussian(P, jnp.stack([cond["mean"], 0.0 * cond["mean"]]), 0.25).denoise


def conditions(n):
    return {"mean": np.linspace(-2, 2, 31, dtype=np.float32)[:n]}


def draw(key, n, **options):
    options.setdefault("cond", conditions(n))
    return samplers.draw(key, n, make_denoise, SAMPLER, (2,), **options)


def test_more_samples_leave_the_first_ones_alone(key):
    most = draw(key, 31, chunk=8)
    assert most.shape == (31, 2)
    assert most.dtype == np.float32
    assert isinstance(most, np.ndarray)
    assert len(np.unique(most[:, 1])) == 31  # the coordinate that has no condition
    for n in (1, 7, 8, 9, 24):
        np.testing.assert_array_equal(draw(key, n, chunk=8), most[:n])
    np.testing.assert_array_equal(draw(key, 5), draw(key, 31)[:5])


def test_a_restart_at_a_chunk_continues_bit_by_bit(key):
    whole, cond = draw(key, 31, chunk=8), conditions(31)["mean"]
    for start in (8, 24):
        rest = draw(key, 31 - start, chunk=8, start=start, cond={"mean": cond[start:]})
        np.testing.assert_array_equal(rest, whole[start:])
    rest = draw(key, 20, chunk=8, start=11, cond={"mean": cond[11:]})
    np.testing.assert_allclose(rest, whole[11:], atol=1e-5)


def test_the_chunk_size_changes_rounding_at_most(key):
    whole = draw(key, 31, chunk=8)
    for chunk in (1, 31):
        np.testing.assert_allclose(draw(key, 31, chunk=chunk), whole, atol=1e-5)


def test_a_sample_answers_to_its_own_condition(key):
    before, cond = draw(key, 16, chunk=8), conditions(16)["mean"]
    order = np.arange(16)
    order[[3, 11]] = 11, 3
    after = draw(key, 16, chunk=8, cond={"mean": cond[order]})
    np.testing.assert_array_equal(np.flatnonzero((before != after).any(1)), [3, 11])


def test_a_sample_is_one_call_of_the_sampler(key):
    drawn = draw(key, 3)
    for i in range(3):
        start, walk = jax.random.split(jax.random.fold_in(key, i))
        alone = SAMPLER(walk, make_denoise({"mean": jnp.asarray(conditions(3)["mean"][i])}), SAMPLER.start(start, (2,)))
        np.testing.assert_allclose(alone, drawn[i], atol=1e-5)


def test_injected_noise_and_progress_reach_the_samples(key):
    seen = []
    still = draw(
        key, 20, chunk=8, cond={"mean": np.ones(20, np.float32)}, noise=lambda k, shape, dtype: jnp.zeros(shape, dtype),
        progress=lambda done, n: seen.append((done, n)),
    )  # fmt: skip
    assert seen[-1] == (20, 20)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    # The start is still random: `noise` is the sampler's.
    assert len(np.unique(still[:, 0])) == 20
    np.testing.assert_array_equal(still, draw(key, 20, chunk=8, cond={"mean": np.ones(20, np.float32)}, noise=zeros))


def zeros(key, shape, dtype):
    return jnp.zeros(shape, dtype)


def test_a_product_is_drawn_as_a_tree(key):
    process = processes.Product({"a": P, "b": processes.flow()})
    stepper = samplers.product({"a": samplers.euler(P), "b": samplers.ancestral(processes.flow())})
    sampler = samplers.Sampler(process, stepper, jnp.linspace(1.0, 0.0, 5))
    like = {"a": jax.ShapeDtypeStruct((2,), jnp.float32), "b": jax.ShapeDtypeStruct((3, 1), jnp.float32)}
    drawn = samplers.draw(key, 5, lambda cond: lambda x, t: jax.tree.map(jnp.tanh, x), sampler, like, chunk=2)
    assert {name: leaf.shape for name, leaf in drawn.items()} == {"a": (5, 2), "b": (5, 3, 1)}


@pytest.mark.parametrize("n", [0, -3])
def test_a_count_below_one_is_refused(n, key):
    with pytest.raises(InputError, match=f"n={n} samples, expected at least 1"):
        samplers.draw(key, n, make_denoise, SAMPLER, (2,))


def test_a_condition_for_another_count_is_refused(key):
    with pytest.raises(InputError, match=r"cond\['mean'\] has shape \(7,\), expected \(8, \.\.\.\): a row for every"):
        draw(key, 8, cond=conditions(7))
    with pytest.raises(InputError, match=r"cond has shape \(\)"):
        draw(key, 8, cond=np.float32(1.0))


@pytest.mark.parametrize("chunk", [0, -1])
def test_a_chunk_below_one_is_refused(chunk, key):
    with pytest.raises(InputError, match=f"chunk={chunk}"):
        draw(key, 8, chunk=chunk)


def test_a_negative_start_is_refused(key):
    with pytest.raises(InputError, match="start=-1"):
        draw(key, 8, start=-1)
