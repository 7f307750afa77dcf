"""The design space as values: every row of every column builds, trains and samples, each can be swapped alone, and the
network, the loss and the noise levels are those of Karras et al. (2022), Table 1."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import papers
import pytest

from jaxdiff import oracles, processes
from jaxdiff.errors import InputError
from jaxdiff.recipes.images import build, default, design_space, names
from jaxdiff.runs.resolve import resolve
from jaxdiff.runs.samplers import SAMPLERS

COLUMNS = ("vp", "ve", "iddpm", "edm")
SIGMAS = np.array([0.05, 0.4, 2.0, 30.0])


def experiment(**fields):
    config = default()
    config.network = {"name": "UNet", "width": 8, "multipliers": (1,), "blocks": 1}
    config.train.batch_size = 4
    for field, value in fields.items():
        config[field] = value
    return build(config)


def table(column, sigma):
    """(c_skip, c_out, c_in, c_noise, loss weight of |D - x0|^2), typed from Table 1."""
    if column == "vp":
        time = (np.sqrt(0.1**2 + 2 * 19.9 * np.log(1 + sigma**2)) - 0.1) / 19.9
        return 1, -sigma, 1 / np.sqrt(sigma**2 + 1), 999 * time, 1 / sigma**2
    if column == "ve":
        return 1, sigma, 1, np.log(sigma / 2), 1 / sigma**2
    if column == "iddpm":
        index = 999 - abs(papers.iddpm_table()[None, :1000] - sigma[:, None]).argmin(1)
        return 1, -sigma, 1 / np.sqrt(sigma**2 + 1), index, 1 / sigma**2
    skip, out, c_in, c_noise = papers.preconditioning(sigma)
    return skip, out, c_in, c_noise, (sigma**2 + 0.25) / (sigma * 0.5) ** 2


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_is_the_papers(column, x64):
    """D = c_skip x + c_out F(c_in x; c_noise), with an F that shows what it was given."""
    made = design_space.training(column)
    process = resolve("process", names.PROCESSES, made["process"])
    row = resolve("row", names.ROWS, made["row"])
    c_in = resolve("c_in", names.C_IN, made["c_in"], row=row)
    c_noise = resolve("c_noise", names.C_NOISE, made["c_noise"])
    weight = resolve("weight", names.WEIGHTS, made["weight"])
    from jaxdiff import denoisers, losses

    def show(params, x, c, cond):
        return jnp.sin(x) + jnp.cos(0.1 * c)[:, None]

    network = denoisers.from_network(show, row, process, c_in=c_in, c_noise=c_noise)
    loss = losses.matching(process, resolve("loss_row", names.LOSS_ROWS, made["loss_row"], row=row), weight)
    x, x0 = np.array([0.3, -1.7]), np.array([0.2, -0.4])
    skip, out, scale, noise, lam = (np.broadcast_to(v, 4) for v in table(column, SIGMAS))
    for i, sigma in enumerate(SIGMAS):
        t = process.time_of(sigma)
        alpha = process.scales(t)[0]
        d = network({})(alpha * x * np.hypot(1, sigma), t)
        y = x * np.hypot(1, sigma)
        expected = skip[i] * y + out[i] * (np.sin(scale[i] * y) + np.cos(0.1 * noise[i]))
        np.testing.assert_allclose(d, expected, rtol=1e-7, atol=1e-7)
        # The loss of that belief, with the noise that leads from x0 to x.
        eps = (y - x0) / sigma
        found = loss(
            jax.random.key(0), network({}), jnp.asarray(x0), t, noise=lambda k, s, d, eps=eps: jnp.asarray(eps)
        )
        np.testing.assert_allclose(found, np.sum(lam[i] * (expected - x0) ** 2), rtol=1e-6)


@pytest.mark.parametrize(("column", "row"), [(c, r) for c in COLUMNS for r in ("preconditioning", "noise", "weight")])
def test_any_row_of_a_training_is_swapped_alone(column, row):
    other = COLUMNS[(COLUMNS.index(column) + 1) % 4]
    mixed = design_space.training(column, **{row: other})
    own = design_space.training(column)
    changed = {field for field in own if own[field] != mixed[field]}
    assert changed <= design_space.TRAINING[column][row].keys()
    for field in design_space.TRAINING[other][row]:
        assert mixed[field] == design_space.training(other)[field]


def test_every_mixture_of_a_training_has_a_finite_loss(key):
    """A Latin square over columns: every pair of a row's values with every other row's column at least once."""
    for i, column in enumerate(COLUMNS):
        rows = {"preconditioning": COLUMNS[(i + 1) % 4], "noise": COLUMNS[(i + 2) % 4], "weight": COLUMNS[(i + 3) % 4]}
        e = experiment(**design_space.training(column, **rows))
        batch = {
            "x0": jnp.zeros((4, 8, 8, 1)),
            "index": jnp.arange(4, dtype=jnp.uint32),
            "label": jnp.zeros(4, jnp.int32),
        }
        params = jax.jit(e.initial)().params
        losses = jax.jit(e.objective)(params, key, batch)
        assert losses.shape == (4,)
        assert np.isfinite(losses).all()


def test_every_mixture_of_a_sampler_is_one_of_48_and_runs_on_any_network(key):
    """Values for every solver, grid, schedule and scaling; tests/samplers/test_generalised.py proves their numbers."""
    process = processes.iddpm()
    oracle = oracles.gaussian(process, np.float32(0.3), np.float32(0.25))

    @jax.jit
    def end(sampler):
        x = sampler.process.scales(sampler.ts[0])[1]
        return sampler.run(key, oracle.denoise, x, jax.random.normal)

    rows = ("solver", "grid", "schedule", "scaling")
    found = {}
    for chosen in itertools.product(COLUMNS, repeat=4):
        spec = design_space.sampler("edm", steps=40, **dict(zip(rows, chosen, strict=True)))
        if repr(spec) not in found:
            found[repr(spec)] = float(end(resolve("s", SAMPLERS, spec)(process)))
    assert len(found) == 48
    assert np.isfinite(list(found.values())).all()
    assert len(set(found.values())) == 48  # and no two are the same sampler


def test_noise_levels_are_held_within_the_networks():
    for column, (low, high) in {"vp": (0.02, 100.0), "ve": (0.02, 100.0), "edm": (0.02, 80.0)}.items():
        sampler = resolve("s", SAMPLERS, design_space.sampler(column, steps=9))(processes.ve())
        alpha, sigma = sampler.process.scales(sampler.ts)
        np.testing.assert_allclose((sigma / alpha)[np.array([-2, 0])], (low, high), rtol=1e-4)


def test_unknown_columns_and_rows_are_named():
    with pytest.raises(InputError, match="no column 'ddpm'; it has vp, ve, iddpm, edm"):
        design_space.training("ddpm")
    with pytest.raises(InputError, match="no column 'x'"):
        design_space.sampler("vp", solver="x")
    with pytest.raises(InputError, match="no row 'colour' here; it has solver, grid, schedule, scaling"):
        design_space.sampler("vp", colour="vp")


def test_augmentation_needs_a_network_that_hears_of_it():
    with pytest.raises(InputError, match=r"config\.augment moves the images, and the network UNet cannot be told"):
        experiment(augment={"name": "pipeline", "p": 0.1})
    e = experiment(
        augment={"name": "pipeline", "p": 0.5, "xflip": 0, "yflip": 0},
        network={"name": "ddpmpp", "width": 8, "multipliers": (1,), "blocks": 1, "attention": ()},
    )
    params = jax.eval_shape(e.initial).params
    assert params["map_augment"]["kernel"].shape[0] == 7
