"""The mirror receiver: kernels that receive and answer requests on one native thread, and clean them in batches."""
