"""HTTP/1.1: how a run onto an HTTP service is set up."""
