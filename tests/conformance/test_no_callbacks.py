"""No compiled body calls back to the host: programs with callbacks can't be stored, exported or run by several
processes. Mistakes in known values are refused at the door; those of traced values end in NaN or a result code."""

import importlib.util

import jax
import jax.numpy as jnp
import optax
import pytest
from jax import export
from jax.tree_util import Partial
from roster import PROCESSES, ROWS, STEPPERS, TOKEN_PROCESSES, WEIGHTS

from jaxdiff import beliefs, likelihood, losses, processes, samplers, training
from jaxdiff.losses import weights
from jaxdiff.samplers import categorical

VOCAB, LENGTH = 3, 4
X = jnp.linspace(-1.0, 1.0, 3)
TOKENS = jnp.array([0, 2, 1, 1], jnp.int32)
T = jnp.asarray(0.4)


def clean(function, *args):
    """The lowered program of `function`, seen to have no call of the host."""
    lowered = jax.jit(function).lower(*args)
    assert "callback" not in lowered.as_text()
    return lowered


def denoiser(w):
    return Partial(lambda w, x, t: w * x, w)


def speaker(w, meaning=beliefs.Posterior):
    """A belief about tokens from `w`, one logit a state of the vocabulary."""
    return Partial(lambda w, z, t: meaning(jnp.broadcast_to(w, (*z.shape, VOCAB))), w)


def gradient(loss, make, w, x0):
    return clean(jax.value_and_grad(lambda w, key, x0, t: loss(key, make(w), x0, t)), w, jax.random.key(0), x0, T)


def image_losses():
    made = {f"row-{name}": losses.matching(processes.vp(), row) for name, row in ROWS.items()}
    made |= {f"weight-{name}": losses.matching(processes.vp(), weight=weight) for name, weight in WEIGHTS.items()}
    made |= {f"process-{name}": losses.matching(make()) for name, make in PROCESSES.items()}
    made["implicit"] = losses.implicit(processes.vp())
    made["sliced"] = losses.sliced(processes.vp(), probes=2)
    made["uncertain"] = losses.uncertain(losses.matching(processes.vp()), lambda t: jnp.log(t))
    made["vdm"] = likelihood.vdm_loss(processes.vp())
    return made


def token_losses():
    made = {}
    for name, make in TOKEN_PROCESSES.items():
        process = make(VOCAB)
        made[f"{name}-bound"] = losses.bound(process)
        made[f"{name}-score_entropy"] = losses.score_entropy(process)
        made[f"{name}-cross_entropy"] = losses.cross_entropy(process)
        made[f"{name}-d3pm"] = losses.d3pm(process, 8)
        if name in ("absorbing", "uniform", "hybrid"):
            made[f"{name}-flow_matching"] = losses.flow_matching(process)
    made["absorbing-unmasking"] = losses.cross_entropy(TOKEN_PROCESSES["absorbing"](VOCAB), weights.unmasking)
    return made


@pytest.mark.parametrize("name", image_losses())
def test_losses_of_arrays(name):
    gradient(image_losses()[name], denoiser, jnp.ones(3), X)


def test_the_loss_of_several_copies():
    loss = losses.hybrid(processes.cld())
    gradient(loss, lambda w: Partial(lambda w, x, t: w * x[0], w), jnp.ones(3), X)


@pytest.mark.parametrize("name", token_losses())
def test_losses_of_tokens(name):
    gradient(token_losses()[name], speaker, jnp.zeros(VOCAB), TOKENS)


def train_step(loss, make, w, x0):
    """(the step, its arguments), as a recipe makes it."""
    objective = training.per_example(lambda w, key, example: loss(key, make(w), example["x"], T))
    optimizer = optax.adamw(1e-3)
    state = training.init(jax.random.key(0), w, optimizer)
    batch = {"x": jnp.stack([x0, x0]), "index": jnp.arange(2, dtype=jnp.uint32)}
    return training.make_train_step(objective, optimizer), state, batch


@pytest.mark.parametrize("kind", ["images", "tokens"])
def test_a_train_step_can_be_exported(kind):
    if kind == "images":
        step, state, batch = train_step(losses.matching(processes.vp()), denoiser, jnp.ones(3), X)
    else:
        loss = losses.bound(processes.absorbing(VOCAB))
        step, state, batch = train_step(loss, speaker, jnp.zeros(VOCAB), TOKENS)
    clean(step, state, batch)
    leaves, form = jax.tree.flatten((state, batch))
    is_key = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    data = [jax.random.key_data(leaf) if key else leaf for leaf, key in zip(leaves, is_key, strict=True)]

    def plain(*data):
        leaves = [jax.random.wrap_key_data(leaf) if key else leaf for leaf, key in zip(data, is_key, strict=True)]
        state, metrics = step(*jax.tree.unflatten(form, leaves))
        return state.params, metrics["loss"]

    program = export.export(jax.jit(plain))(*data)
    if importlib.util.find_spec("flatbuffers"):  # what JAX writes programs with
        program = export.deserialize(program.serialize())
    assert jnp.isfinite(program.call(*data)[1])


@pytest.mark.parametrize("name", STEPPERS)
@pytest.mark.parametrize("traced", [False, True])
def test_drawings_of_arrays(name, traced):
    process, row = processes.ve(), STEPPERS[name]
    stepper, ts = row.make(process), jnp.array([0.9, 0.5, 0.2, 0.1])

    def walk(key, x, ts):
        return samplers.sample(key, stepper, denoiser(jnp.ones(3)), x, ts)

    if traced:
        clean(walk, jax.random.key(0), X, ts)
    else:
        clean(lambda key, x: walk(key, x, ts), jax.random.key(0), X)


@pytest.mark.parametrize("name", TOKEN_PROCESSES)
def test_drawings_of_tokens(name):
    stepper = categorical.draw(categorical.ancestral(TOKEN_PROCESSES[name](VOCAB)))
    ts = jnp.linspace(1.0, 0.0, 4)
    clean(
        lambda w, key, z: samplers.sample(key, stepper, speaker(w), z, ts),
        jnp.zeros(VOCAB), jax.random.key(0), TOKENS,
    )  # fmt: skip


def test_the_flow_up_and_down():
    process = processes.vp()
    clean(lambda w, key, x: likelihood.flow_log_prob(key, process, denoiser(w), x), jnp.ones(3), jax.random.key(0), X)
    clean(lambda w, key, x: likelihood.flow_sample(key, process, denoiser(w), x), jnp.ones(3), jax.random.key(0), X)
    clean(lambda w, key, x: samplers.flow(process, denoiser(w), x).x, jnp.ones(3), jax.random.key(0), X)


@pytest.mark.parametrize("form", ["dsm", "ism", "ssm"])
def test_the_bound_of_arrays(form):
    options = {"form": form, "n_times": 2, "draws": 2, "decoder": likelihood.decoders.discrete(4)}
    process = processes.vp()
    clean(lambda w, key, x: likelihood.elbo(key, process, denoiser(w), x, **options), jnp.ones(3), jax.random.key(0), X)


def test_the_bound_in_steps():
    options = {"n_times": 2, "draws": 2, "decoder": likelihood.decoders.discrete(4)}
    process = processes.vp()
    clean(lambda w, key, x: likelihood.vdm(key, process, denoiser(w), x, **options), jnp.ones(3), jax.random.key(0), X)


@pytest.mark.parametrize("name", TOKEN_PROCESSES)
def test_the_bound_of_tokens(name):
    process = TOKEN_PROCESSES[name](VOCAB)
    clean(
        lambda w, key, x: likelihood.nelbo(key, process, speaker(w), x, n_times=2, draws=2),
        jnp.zeros(VOCAB), jax.random.key(0), TOKENS,
    )  # fmt: skip


@pytest.mark.parametrize("token", [-1, VOCAB])
@pytest.mark.parametrize("name", token_losses())
def test_a_token_outside_the_vocabulary_is_never_a_number(name, token):
    loss = token_losses()[name]
    value = jax.jit(lambda x0: loss(jax.random.key(0), speaker(jnp.zeros(VOCAB)), x0, T))(TOKENS.at[1].set(token))
    assert jnp.isnan(value)
