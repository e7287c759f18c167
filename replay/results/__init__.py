"""The results of a run: its folder, histograms, accounts and validity.

Other packages read runs only through this package.
"""
