"""What a run counts: accounts, histograms and percentiles, and the verdict on the run's own validity."""
