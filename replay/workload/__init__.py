"""Derived and generated traffic: transforms of a trace, generated traces, and figures on how realistic a trace is."""
