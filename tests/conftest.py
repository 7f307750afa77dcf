"""Every test runs in float32 with strict dtype promotion; one that needs float64 asks for the `x64` fixture. A test's
random key comes from its own name, so that no test shares its noise with another and each repeats alone."""

import gc
import os
import zlib
from importlib.metadata import version
from pathlib import Path

# Programs are small and run once: compiling is the time. (In the environment, for the tests' own processes too.)
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=4 --xla_cpu_parallel_codegen_split_count=1"
    # The older emitters compile in half the time; later versions have no such flag.
    + " --xla_cpu_use_fusion_emitters=false" * version("jaxlib").startswith("0.10."),
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # idle threads of a linear algebra spin: one a worker

# What took long to compile is kept between runs, for all workers and the tests' own processes. A program is found by
# all that it is, so one that changed compiles; a folder for each compiler and its options can be thrown away alone.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(__file__).parents[1] / ".pytest_cache" / "compiled" / "jaxlib-")
    + version("jaxlib")
    + f"-{zlib.crc32((os.environ['XLA_FLAGS'] + os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS']).encode()):08x}",
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax
import jaxtyping
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_collection_finish():
    """What is imported by now stays: the collector need not walk it again, nor after every 700 of a trace's objects."""
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


TESTS = Path(__file__).parent
UNTYPED = ("recipes", "pretrained", "test_readme.py", "test_notebooks.py", "test_cli.py")
SLOW = (  # files of half a minute or more, and whole programs: 60 % of the time
    "conformance/test_steppers.py",
    "likelihood/test_elbo.py",
    "likelihood/test_learned_schedule.py",
    "losses/test_token_bounds.py",
    "networks/test_edm2.py",
    "networks/test_song_unet.py",
    "pretrained/test_edm_checkpoints.py",
    "recipes",
    "samplers/test_categorical_kernels.py",
    "samplers/test_flow_ode.py",
    "samplers/test_sampler_orders.py",
    "test_notebooks.py",
    "test_readme.py",
    "theory/test_error_budget.py",
    "theory/test_one_step.py",
    "training/test_training_loop.py",
)


def among(item, names):
    """Whether a test lies in one of these files or folders."""
    return any(item.path.is_relative_to(TESTS / name) for name in names)


def pytest_collection_modifyitems(items):
    for item in items:
        if among(item, SLOW):
            item.add_marker("slow")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Types and shapes are checked where the core is tested; whole programs meet the same signatures again."""
    jaxtyping.config.update("jaxtyping_disable", among(item, UNTYPED))
    return (yield)


@pytest.fixture
def key(request):
    return jax.random.key(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(autouse=True)
def few_programs(request):
    """A process with thousands of compiled programs runs out of memory maps, and dies: let them go now and then."""
    yield
    request.config.tests_run = getattr(request.config, "tests_run", 0) + 1
    if request.config.tests_run % 200 == 0:
        jax.clear_caches()


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield
