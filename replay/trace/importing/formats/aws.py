"""AWS logs of the Classic Load Balancer and of S3.

- Classic (docs.aws.amazon.com, access logs of a Classic Load Balancer): the timestamp is when the load balancer
  received the request. Its three durations, in s, are added; -1 is unknown.
- S3 (docs.aws.amazon.com, server access log format): the timestamp is when the request was received; `total time` is
  in ms.
"""

from __future__ import annotations

from replay.trace.importing.readers.layout import UNITS_NS, template
from replay.trace.importing.readers.templates import NAMES, register
from replay_native.importing.field_spec import LOG

ELB = register(
    "elb",
    "an access log of an AWS Classic Load Balancer",
    template(
        '$at $elb $client $target $took $took2 $took3 $status $target_status $received $bytes "$request" "$agent"',
        NAMES,
    ),
    rank=2,
)

S3 = register(
    "s3",
    "a server access log of Amazon S3",
    template(
        '$owner $bucket [$at] $client $requester $id $operation $key "$request" $status $error $bytes $size $took $turn'
        ' "$referer" "$agent"',
        NAMES,
        escapes=LOG,
        took_unit_ns=UNITS_NS["ms"],
    ),
    rank=2,
)
