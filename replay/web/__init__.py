"""The parts that all servers of pages share.

These are the socket (`listen`), the checks of requests (`guard`), and the application around every answer
(`guarded`).
"""
