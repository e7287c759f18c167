"""The live page: one link under which everyone can see a run in progress. docs/live.md is the reference.

The page is a sink of the run (`sink`). Each second it adds up the figures (`view`) and appends to a log (`feed`). While
there are viewers, it also draws the sections of the page (`sections`) with the page builder and charts of the reports.
A server in a separate thread (`server`, `app`) streams the log to every viewer, from the position of that viewer. The
thread has its own Trio nursery, because `peak` and `ab` make many runs under one link, and so that viewers do not delay
the task that feeds the lanes.

No viewer has a queue: each reads the same log at its own pace. A viewer that never reads only costs a socket, until
the kernel closes it (`replay.web.listen`).
"""
