"""What a run counts: accounts, histograms, percentiles, and the verdict on the run's own validity."""
