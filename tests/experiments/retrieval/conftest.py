"""Programs of these tests are compiled without LLVM's costly passes, which took a third of their time."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
