"""`dexgrasp` and `python -m dexgrasp`, also under `torchrun -m dexgrasp`."""


def run() -> int:
    """Run the command line of this process and return the exit status.

    130 after an interruption, also during the imports.
    """
    try:
        from dexgrasp.policies.cli.main import main
    except KeyboardInterrupt:
        return 130
    return main()


if __name__ == "__main__":
    raise SystemExit(run())
