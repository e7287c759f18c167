"""What is counted: a lane's metrics, HDR histograms, and the kernels that record into them."""
