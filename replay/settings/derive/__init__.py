"""Files that are derived from the settings.

`python -m replay.settings.derive` writes them. A test checks that they are up to date.
"""
