"""Targets included with the project: for calibration, tests and demonstrations."""
