"""The command `dexgrasp`."""
