"""Results for CI systems: JSON, JUnit XML, a Markdown summary, a page, GitHub annotations.

A result (run, climb, comparison) provides the methods of `Result`; each format is generated in one place, and
`replay.cli.outputs` writes the files.
"""
