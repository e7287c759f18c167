"""Compares the responses of two builds: which fields differ more between builds than between runs of one build."""
