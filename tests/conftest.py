"""Settings of every test: one thread per process, because the suite itself runs in parallel."""

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before anything imports torch
    os.environ.setdefault(variable, "1")
