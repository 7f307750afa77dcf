"""Small matrices on shared cores: linear-algebra threads that wait for each other take five times as long as one."""

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    with threadpool_limits(1):
        yield
