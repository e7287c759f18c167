"""Finds the highest load that a target sustains, and whether it recovers."""
