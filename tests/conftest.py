"""Every test runs in float32 with strict dtype promotion; one that needs float64 asks for the `x64` fixture. A test's
random key comes from its own name, so that no test shares its noise with another and each repeats alone."""

import os
import zlib

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs are small and run once: compiling is the time. (In the environment, for the tests' own processes too.)
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")


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
