"""The settings by group. Each group declares its settings, and has a function `check` for rules beyond their kinds.

msgspec lays a struct out along a single line of base classes. Each group therefore extends an earlier group, and
its checks may compare its settings with those of earlier groups. `scenario.py` has the last class of the line.

These modules do not use `from __future__ import annotations`, because evaluating annotations from text takes longer
and would delay the help and the completion.
"""
