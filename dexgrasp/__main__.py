"""`python -m dexgrasp`, also under `torchrun -m dexgrasp`."""

from dexgrasp.policies.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
