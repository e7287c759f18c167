"""The settings of a scenario.

Each setting is declared once, in `groups/`. `kinds/` defines how values are parsed and printed. `table.py` lists
all settings. `file.py` reads a scenario from TOML and flags, `checks.py` checks whole scenarios, and `derive/`
makes files from the table.
"""
