"""AWS Application Load Balancer: the start is request_creation_time; the durations of its three parts are added.

A part is -1 where the load balancer could not dispatch the request, or the target did not answer before the idle timeout:
how long it took is then unknown. Bytes outside ASCII stand as `\\xHH`.
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
