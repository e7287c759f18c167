r"""AWS Application Load Balancer: a request starts at request_creation_time and takes the sum of its three durations.

A duration is -1 if the load balancer could not dispatch the request, or if the target did not respond before the idle
timeout. The duration of the request is then unknown. Bytes outside ASCII are written as `\xHH`.
"""

from __future__ import annotations

from replay.trace.importing.readers.layout import template
from replay.trace.importing.readers.templates import NAMES, register
from replay_native.importing.field_spec import LOG

ALB = register(
    "alb",
    "an access log of an AWS Application Load Balancer",
    template(
        "$type $written $elb $client $target $took $took2 $took3 $status $target_status $received $bytes"
        ' "$request" "$agent" $cipher $protocol $group "$trace" "$domain" "$certificate" $priority $at ',
        NAMES,
        escapes=LOG,
    ),
    rank=2,
)
