"""Results for CI systems: JSON, JUnit XML, a Markdown summary, a page, GitHub annotations.

A result (run, search, comparison) has the methods of `Result`. Each format is generated in one place, and
`replay.cli.outputs` writes the files.
"""
