"""Helpers that every layer may import; they import nothing of dexgrasp."""
