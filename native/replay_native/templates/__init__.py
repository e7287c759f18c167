"""The parts of templates that all protocols share: literals, numbers, UUIDs, e-mail addresses, trace contexts."""
