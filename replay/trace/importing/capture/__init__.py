"""Packet captures: packets to TCP streams, streams to HTTP/1 messages, requests paired with their responses.

`container` reads pcap and pcapng and yields columns of packets, ordered by their timestamps. `assembly` puts the
segments of each direction of a connection in order; bytes that the capture lacks become holes. `messages` splits the
bytes and holes of a direction into HTTP/1 messages. A message with a hole in its body keeps its length and is marked.
A hole anywhere else loses the message, and reading continues where a segment begins with a new one. `conversation`
pairs responses with requests: in order while nothing was lost, and after a loss only if the response acknowledges
exactly the request. Therefore a lost packet may lose messages, but never merges two of them.
"""
