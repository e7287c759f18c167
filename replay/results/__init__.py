"""The results of a run: its folder, histograms, accounts and validity. Other commands read nothing else."""
