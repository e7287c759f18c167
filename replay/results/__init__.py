"""What a run leaves behind: its folder, histograms, accounts and validity. The next command reads nothing
else.
"""
