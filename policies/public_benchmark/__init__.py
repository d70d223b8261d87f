"""Benchmark on public object sets: a fixed protocol, one row of results, a check of rows."""
