"""Transformed and generated traffic, and the figures that prove it."""
