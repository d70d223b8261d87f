"""Settings of every test: one thread per process, because the suite itself runs in parallel."""

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before anything imports torch
    os.environ.setdefault(variable, "1")

import pytest  # noqa: E402


@pytest.fixture(scope="session")
def balanced():
    """The physics preset of training."""
    return _preset("balanced")


@pytest.fixture(scope="session")
def reference():
    """The physics preset of every reported number."""
    return _preset("reference")


def _preset(name):
    import configs
    from sim.scene import PhysicsCfg

    return configs.load_option(PhysicsCfg, "physics", name)
