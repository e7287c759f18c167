"""Runs remembered: a small database beside a folder of runs, their trends, and where they changed. docs/runs.md is the
reference.
"""
