"""Follows a source while it is written: entries are sent `delay` after the instant at which they were recorded.

A followed run differs from other runs mainly in the origin of its schedule:

    source --thread--> entries --> pending --> the run's feeder
        (`reading`)           (`pending`, sorted by due time)

A source is a `log`, a `pipe`, a `mirror` or Kafka `topics`. `follow` connects these parts. Users find more in
`docs/following.md`.
"""
