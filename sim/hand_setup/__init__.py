"""Draft and check descriptions of hands."""
