"""`replay serve`: the runs of a folder in a browser. docs/serve.md is the reference.

The folder may be hostile: somebody else may have written what is in it. Pages are made anew from run.json and the logs
beside it. A run is asked for by a name that the list has, never by a path. Links are not followed, and no file of the
folder is sent as it is.
"""
