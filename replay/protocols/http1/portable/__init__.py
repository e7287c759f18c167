"""HTTP/1.1 for the portable engine, in plain Python on Trio."""
