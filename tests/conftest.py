"""Settings of every test: one thread per process, because the suite itself runs in parallel."""

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before anything imports torch
    os.environ.setdefault(variable, "1")

import pytest  # noqa: E402

import configs  # noqa: E402
from sim.scene import PhysicsCfg  # noqa: E402


@pytest.fixture(scope="session")
def balanced() -> PhysicsCfg:
    """The physics preset of training."""
    return configs.load_option(PhysicsCfg, "physics", "balanced")


@pytest.fixture(scope="session")
def reference() -> PhysicsCfg:
    """The physics preset of every reported number."""
    return configs.load_option(PhysicsCfg, "physics", "reference")
