"""How high a peak a target survives, and whether it comes back from one."""
