"""The captures and checks of a scenario in the form that a lane needs: rules by route, slots of values and limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from replay import units
from replay.errors import LimitError, UsageError
from replay.naming import named_by
from replay.settings.kinds import size_range, statuses_of
from replay.settings.patterns import Pattern
from replay.settings.scenario import Scenario
from replay.settings.session_rules import (
    CaptureRule,
    CheckRule,
    digest_of,
    placeholders,
    pointer_tokens,
)
from replay.trace import Requests
from replay_native.ground.regex import BYTES, PROGRAM_MAX, WORK_ROWS
from replay_native.ground.sha256 import WORK_WORDS
from replay_native.http1 import sessions as kernels

STATUSES = 600
"""Rules can use statuses below this one."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One capture or check, in the form that both engines use.

    `source` determines the meaning of `name` and `text` (see the kernels' RULE).
    """

    kind: int
    source: int
    label: str
    slot: int = -1
    name: bytes = b""
    tokens: tuple[bytes, ...] = ()
    text: bytes | None = None
    low: int = 0
    high: int = 0
    pattern: Pattern | None = None
    is_link: bool = False

    @property
    def packed_name(self) -> bytes:
        """The name for the kernels; for a JSON pointer its tokens, each followed by a zero byte."""
        return (
            b"".join(token + b"\0" for token in self.tokens) if self.source == kernels.POINTER else self.name
        )


@dataclass(frozen=True, slots=True)
class SessionSpec:
    """The sessions of a run: rules, and limits on the values that each client holds.

    `slot_bytes[s]` limits slot s of a client. Slot 0 is its cookie jar; a limit of 0 means that no cookies are
    kept. `route_rules` has the numbers of each route's rules. Responses of routes without rules are not
    evaluated, unless cookies are kept. At most `answer_bytes` of a response are evaluated.
    """

    rules: tuple[Rule, ...] = ()
    route_rules: tuple[tuple[int, ...], ...] = ()
    slot_bytes: tuple[int, ...] = (0,)
    answer_bytes: int = 0

    @property
    def cookies(self) -> bool:
        """Whether every client has a jar."""
        return self.slot_bytes[0] > 0

    @property
    def client_bytes(self) -> int:
        """Upper limit on the memory of one client, in bytes."""
        return sum(self.slot_bytes) + 16 * len(self.slot_bytes)

    def evaluates(self, route: int) -> bool:
        """Return whether responses of a route are evaluated."""
        return self.cookies or bool(self.route_rules and self.route_rules[route])

    @property
    def labels(self) -> list[str]:
        """The label of each rule in results."""
        return [rule.label for rule in self.rules]

    def table(
        self, clients: int, lanes: int, connections: int, refused: npt.NDArray[np.int64] | None = None
    ) -> kernels.Sessions:
        """Make the bundle for a native lane with this many clients and connections.

        `refused` is the array `rule_refused` of the lane's metrics.
        """
        texts, rules = bytearray(), np.zeros(max(1, len(self.rules)), kernels.RULE)
        programs: list[npt.NDArray[np.int32]] = []
        sets: list[npt.NDArray[np.uint8]] = []
        for row, rule in zip(rules, self.rules, strict=False):
            row["kind"], row["source"], row["slot"] = rule.kind, rule.source, rule.slot
            row["low"], row["high"], row["text"], row["is_link"] = rule.low, rule.high, -1, rule.is_link
            row["name"], row["name_end"] = len(texts), len(texts) + len(rule.packed_name)
            texts += rule.packed_name
            if rule.text is not None:
                row["text"], row["text_end"] = len(texts), len(texts) + len(rule.text)
                texts += rule.text
            if rule.pattern is not None:
                row["program"] = sum(map(len, programs))
                programs.append(_moved(rule.pattern, sum(map(len, sets))))
                sets.append(rule.pattern.sets)
        used = bool(self.rules) or self.cookies
        slots = len(self.slot_bytes)
        widest = max((len(numbers) for numbers in self.route_rules), default=0)
        route_rules = np.full((max(1, len(self.route_rules)), widest + 1), -1, np.int32)
        for route, numbers in enumerate(self.route_rules):
            route_rules[route, : len(numbers)] = numbers
        rows = max(1, clients if used else 1)
        return kernels.Sessions(
            values=np.zeros((rows, slots), np.uint64),
            capacities=np.zeros((rows, slots), np.int32),
            lengths=np.zeros((rows, slots), np.int32),
            bounds=np.array(self.slot_bytes, np.int64),
            route_rules=route_rules,
            rules=rules,
            texts=np.frombuffer(bytearray(texts or b"\0"), np.uint8),
            program=np.concatenate([*programs, np.zeros((1, 3), np.int32)]),
            sets=np.concatenate([*sets, np.zeros((1, 256), np.uint8)]),
            work=np.zeros((WORK_ROWS, PROGRAM_MAX + 1), np.int32),
            words=np.zeros(WORK_WORDS, np.uint32),
            found=np.zeros(max(1, self.answer_bytes), np.uint8),
            jar=np.zeros(max(1, self.slot_bytes[0]), np.uint8),
            kept=np.zeros((connections if used else 1, max(1, self.answer_bytes)), np.uint8),
            lanes=lanes,
            refused=np.zeros(max(1, len(self.rules)), np.int64) if refused is None else refused,
        )


def _moved(pattern: Pattern, first_set: int) -> npt.NDArray[np.int32]:
    """Return a pattern's program with its byte sets renumbered to begin at `first_set` in the common array."""
    program = pattern.program.copy()
    program[program[:, 0] == BYTES, 1] += first_set
    program[0, 2] += first_set
    return program


@dataclass(slots=True)
class Slots:
    """The slots of a client's values, by name."""

    numbers: dict[str, int] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=lambda: [0])

    def of(self, name: str, longest: int) -> int:
        """Return the slot of a name, enlarged to hold `longest` bytes."""
        if name not in self.numbers:
            self.numbers[name] = len(self.sizes)
            self.sizes.append(0)
        self.sizes[self.numbers[name]] = max(self.sizes[self.numbers[name]], longest)
        return self.numbers[name]


def slots_of(scenario: Scenario) -> Slots:
    """Return the slots that a scenario's captures and its cookie jar need."""
    slots = Slots()
    slots.sizes[0] = int(scenario.limits.cookies_bytes) if scenario.cookies else 0
    for rule in scenario.capture:
        slots.of(rule.name, int(rule.longest))
    return slots


def make_session_spec(requests: Requests, scenario: Scenario, clients: int) -> SessionSpec:
    """Compile the captures and checks of a scenario.

    UsageError if a rule matches no route, or if a value can never be captured. LimitError if the clients'
    values could exceed `limits.sessions`.
    """
    slots = slots_of(scenario)
    rules = [_capture(rule, slots) for rule in scenario.capture] + [_check(rule) for rule in scenario.check]
    found: list[list[int]] = [[] for _ in requests.routes]
    tables = [
        *(("capture", i) for i in range(len(scenario.capture))),
        *(("check", i) for i in range(len(scenario.check))),
    ]
    for number, (table, index) in enumerate(tables):
        rule = getattr(scenario, table)[index]
        for route in named_by(requests.routes, requests.actions, rule.route, f"{table}[{index}].route"):
            found[route].append(number)
    _refuse_circles(requests, scenario)
    spec = SessionSpec(
        rules=tuple(rules),
        route_rules=tuple(map(tuple, found)),
        slot_bytes=tuple(slots.sizes),
        answer_bytes=int(scenario.limits.answer_bytes) if rules or scenario.cookies else 0,
    )
    needed = clients * spec.client_bytes
    if needed > scenario.limits.sessions_bytes and (spec.rules or spec.cookies):
        raise LimitError(
            f"the values of {clients:,} clients may need {units.format_bytes(needed)}"
            f" ({units.format_bytes(spec.client_bytes)} each), but limits.sessions is"
            f" {units.format_bytes(scenario.limits.sessions_bytes)}",
            hint="raise limits.sessions, or lower `longest` of the captures or limits.cookies",
        )
    return spec


def _capture(rule: CaptureRule, slots: Slots) -> Rule:
    source, name, tokens, pattern, where = _place(rule)
    return Rule(
        kernels.CAPTURE, source, f"capture {rule.name} from {where}", slots.of(rule.name, int(rule.longest)), name, tokens,
        pattern=pattern, is_link=rule.as_ == "path",
    )  # fmt: skip


def _place(rule: CaptureRule | CheckRule) -> tuple[int, bytes, tuple[bytes, ...], Pattern | None, str]:
    """Return the place that a rule reads: its source, name, tokens, pattern, and a description."""
    if rule.header is not None:
        return kernels.HEADER, rule.header.lower().encode("latin-1"), (), None, f"header {rule.header}"
    if rule.cookie is not None:
        return kernels.COOKIE, rule.cookie.encode("latin-1"), (), None, f"cookie {rule.cookie}"
    if rule.json is not None:
        return kernels.POINTER, b"", tuple(pointer_tokens(rule.json)), None, f"json {rule.json or 'whole'}"
    return kernels.REGEX, b"", (), rule.pattern(), f"regex {rule.regex}"


def _check(rule: CheckRule) -> Rule:
    if rule.status is not None:
        if rule.status == ("recorded",):
            return Rule(kernels.CHECK, kernels.RECORDED_STATUS, "check status as recorded")
        label = f"check status {', '.join(rule.status)}"
        return Rule(kernels.CHECK, kernels.STATUS, label, text=_status_map(rule.status))
    if rule.size is not None:
        low, high = size_range(rule.size)
        return Rule(kernels.CHECK, kernels.SIZE, f"check size {rule.size}", low=low, high=high)
    if rule.contains is not None:
        return Rule(kernels.CHECK, kernels.CONTAINS, "check contains", text=rule.contains.encode())
    if rule.digest is not None:
        return Rule(kernels.CHECK, kernels.DIGEST, "check digest", text=digest_of(rule.digest))
    source, name, tokens, pattern, where = _place(rule)
    text = None if rule.equals is None else rule.equals.encode()
    return Rule(kernels.CHECK, source, f"check {where}", name=name, tokens=tokens, text=text, pattern=pattern)


def _status_map(statuses: Sequence[str]) -> bytes:
    right = bytearray(STATUSES)
    for status in statuses:
        for place in statuses_of(status):
            right[place] = 1
    return bytes(right)


def _refuse_circles(requests: Requests, scenario: Scenario) -> None:
    """Raise UsageError for a value that is captured only from responses to requests that need the value."""
    for name in dict.fromkeys(rule.name for rule in scenario.capture):
        giving: set[int] = set()
        for rule in scenario.capture:
            if rule.name == name:
                giving |= set(named_by(requests.routes, requests.actions, rule.route, "capture"))
        needing: set[int] = set()
        for rule_of in scenario.set:
            if not rule_of.when_recorded and any(used == name for used, _ in placeholders(rule_of.text)):
                named = set(named_by(requests.routes, requests.actions, rule_of.route, "set"))
                for other in rule_of.without:
                    named -= set(named_by(requests.routes, requests.actions, other, "set"))
                needing |= named
        if giving <= needing:
            route = requests.routes[min(giving)]
            raise UsageError(
                f"{{{name}}} can never be captured: {route} returns it, but its request already needs it",
                hint=f'add without = ["{route}"] to the [[set]] rule',
            )
