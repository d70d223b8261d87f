"""Headless images and videos of a scene."""
