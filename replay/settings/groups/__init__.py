"""The settings by group. Each group declares its settings and owns the checks that a single setting cannot make.

msgspec lays a struct out along one line of classes, so each group extends the one before it: its checks may compare its
settings with those of earlier groups. `scenario.py` ends the line.

These modules do not postpone the evaluation of annotations: evaluating text takes longer, and help and completion wait.
"""
