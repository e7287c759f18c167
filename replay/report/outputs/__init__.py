"""What a CI system reads of a result: JSON, JUnit XML, a Markdown summary, a page, GitHub's annotations.

A result (a run, a climb, a comparison) says what it has to say by the methods of `Result`; the formats are written in one
place each, and `replay.cli.outputs` writes the files.
"""
