"""What runs know of the protocols they speak, a package each."""
