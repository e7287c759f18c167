"""Reports for people: in a terminal and as HTML pages."""
