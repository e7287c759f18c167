"""Following a source while it is written: each entry is sent `delay` after the instant at which it was recorded.

A followed run is a run. What differs is where its schedule comes from:

    source --thread--> entries --> pending --> the run's feeder
    (`log`, `pipe`)    (`reading`)  (`pending`, sorted by due time)

`follow` puts the parts together; `docs/following.md` is for users.
"""
