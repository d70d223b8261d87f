"""The commands `dexgrasp export` and `publish`."""
