"""The counts of a run: a lane's metrics, HDR histograms, and the kernels that record into them."""
