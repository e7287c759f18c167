"""What every test needs: kernels compiled once, with their declared signatures only."""
