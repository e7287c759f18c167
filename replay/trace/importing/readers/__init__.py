"""How lines, records and tables are read, whatever program wrote them."""
