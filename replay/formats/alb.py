"""AWS Application Load Balancer: the start is request_creation_time; the durations of its three parts are added."""

from __future__ import annotations

from .layout import template
from .templates import NAMES, register

ALB = register(
    "alb",
    "an access log of an AWS Application Load Balancer",
    template(
        "$type $written $elb $client $target $took $took2 $took3 $status $target_status $received $bytes"
        ' "$request" "$agent" $cipher $protocol $group "$trace" "$domain" "$certificate" $priority $at ',
        NAMES,
    ),
    rank=2,
)
