"""The settings of a scenario.

Each setting is declared once, in `groups/`; `kinds/` says how values are read and printed; `table.py` lists all
settings. `file.py` reads a scenario from TOML and flags, `checks.py` refuses contradictions, and `derive/` makes files
from the table.
"""
