"""`dexgrasp` and `python -m dexgrasp`, also under `torchrun -m dexgrasp`."""


def run() -> int:
    """Run the command line of this process and return the exit status; Ctrl-C during the imports gives 130."""
    try:
        from dexgrasp.policies.cli.main import main
    except KeyboardInterrupt:
        return 130
    return main()


if __name__ == "__main__":
    raise SystemExit(run())
