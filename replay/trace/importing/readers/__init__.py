"""Readers of lines, records and tables, independent of the program that wrote them."""
