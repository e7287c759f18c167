"""HTTP/1.1: responses parsed and inspected, requests rendered."""
