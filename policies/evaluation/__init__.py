"""The commands `dexgrasp evaluate`, `demo` and `compare`."""
