"""The portable engine: the reference model of the lane contract in plain Trio."""
