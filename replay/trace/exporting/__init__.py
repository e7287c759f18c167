"""Exports traces to the formats of other programs."""
