"""The command `dexgrasp train`."""
