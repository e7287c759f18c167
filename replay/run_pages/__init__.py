"""The runs of a folder in a browser (`replay serve`). docs/serve.md is the reference.

The folder may be hostile, because others may have written to it. Pages are generated from run.json and the logs
beside it. A run is requested by its name in the list, never by a path. Links are not followed, and no file of the
folder is sent unchanged.
"""
