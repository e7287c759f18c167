"""Packet captures: packets to TCP streams, streams to HTTP/1 messages, requests paired with their responses.

Theory of operation. `container` reads pcap and pcapng and hands on columns of packets, ordered by their stamps. `assembly`
puts the segments of each direction of a connection in order; bytes that the capture lacks become holes. `messages` cuts
a direction's bytes and holes into HTTP/1 messages. A message with a hole in its body keeps its length and is marked; a hole
anywhere else loses the message, and reading goes on where a segment begins with a new one. `conversation` pairs responses
with requests: in order while nothing was lost, and after a loss only where the response acknowledges exactly the request.
So a lost packet costs messages, and never glues two together.
"""
