"""Targets that come with the project: to calibrate against, to test with, to show what a run is."""
