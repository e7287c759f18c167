def zigzag_leb128(payload: bytes) -> list[int]:
    """The numbers of a V2 histogram payload: 7 bits a byte, the ninth byte whole, sign in the lowest bit."""
    numbers, word, bytes_taken = [], 0, 0
    for byte in payload:
        if bytes_taken == 8:
            word |= byte << 56
        else:
            word |= (byte & 0x7F) << (7 * bytes_taken)
        if bytes_taken == 8 or byte < 0x80:
            numbers.append(-(word >> 1) - 1 if word & 1 else word >> 1)
            word, bytes_taken = 0, 0
        else:
            bytes_taken += 1
    if bytes_taken:
        raise ValueError("cut short")
    return numbers


def counts_of(numbers: list[int]) -> list[int]:
    """Counts from V2 numbers: a negative one is that many zeros."""
    return [count for number in numbers for count in ([number] if number >= 0 else [0] * -number)]


_WORD = (1 << 64) - 1
_BODY_METHODS = ("POST", "PUT", "PATCH")


def _mix(word: int) -> int:
    """SplitMix64's finalizer."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & _WORD
    return word ^ (word >> 31)


def random_of(seed: int, seq: int, salt: int) -> int:
    """64 bits that a seed, a row and a use of them name."""
    return _mix((_mix(seed ^ salt) + (seq + 1) * 0x9E3779B97F4A7C15) & _WORD)


def uuid_of(seed: int, seq: int) -> str:
    """A version 4 UUID."""
    high, low = random_of(seed, seq, 0xC3C3C3C3C3C3C3C3), random_of(seed, seq, 0x3C3C3C3C3C3C3C3C)
    digits = f"{high:016x}{low:016x}"
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def email_of(seed: int, seq: int) -> str:
    """An address of nobody else."""
    return f"u{random_of(seed, seq, 0xA5A5A5A5A5A5A5A5):016x}@example.com"


def filled(template: bytes, seed: int, seq: int, client: int) -> bytes:
    """A body with its placeholders filled in."""
    values = {"uuid": uuid_of(seed, seq), "email": email_of(seed, seq), "client": client, "n": seq}
    for name, value in values.items():
        template = template.replace(b"{%s}" % name.encode(), str(value).encode())
    return template


def escaped(target: bytes) -> bytes:
    """A target as it may stand in a request line."""
    return b"".join(bytes([byte]) if 33 <= byte <= 126 else b"%%%02X" % byte for byte in target)


def rendered(
    method: str,
    target: bytes,
    *,
    base_path: str = "",
    headers: str = "",
    run_id: str = "",
    seq: int = 0,
    body: bytes | None = None,
    content_type: str = "",
) -> bytes:
    """A request as it is sent; `headers` are whole lines, `body` is already filled in."""
    path = escaped(target)
    if target == b"*":
        line = f"{method} ".encode() + path
    else:
        line = f"{method} {base_path}".encode() + (path if path[:1] == b"/" else b"/" + path)
    lines = headers
    if run_id:
        lines += f"X-Replay: {run_id}-{seq}\r\n"
    if method in _BODY_METHODS and body is not None:
        lines += f"Content-Type: {content_type}\r\n" if content_type else ""
        lines += f"Content-Length: {len(body)}\r\n"
    elif method in _BODY_METHODS:
        lines += "Content-Length: 0\r\n"
    sent = body if body is not None and method in _BODY_METHODS else b""
    return line + b" HTTP/1.1\r\n" + lines.encode("latin-1") + b"\r\n" + sent


def due_ns(at_ns: int, origin_ns: int, speed: float) -> int:
    """When a recorded moment is due."""
    return at_ns - origin_ns if speed == 1 else round((at_ns - origin_ns) / speed)


def peak(dues: list[int], window_ns: int, parts: int = 64) -> int:
    """The most that fall in a window that begins at any multiple of a part of it."""
    part_ns = window_ns // parts
    first, last = 1 - parts, max(dues) // part_ns
    starts = {start for due in dues for start in range(due // part_ns - parts + 1, due // part_ns + 1)}
    return max(
        sum(start * part_ns <= due < (start + parts) * part_ns for due in dues)
        for start in starts
        if first <= start <= last
    )


def clients_at_once(rows: list[tuple[int, int]], idle_ns: int) -> tuple[int, int, int]:
    """Of (due, client) in order, each client with a connection until `idle_ns` after its last request: the most at once,
    how many are made, and the most that are made in one second.
    """
    last: dict[int, int] = {}
    at_once, made = 0, []
    for due, client in rows:
        last = {who: at for who, at in last.items() if at + idle_ns >= due}
        if client not in last:
            made.append(due // 1_000_000_000)
        last[client] = due
        at_once = max(at_once, len(last))
    return at_once, len(made), max(made.count(second) for second in made)


def is_worse_status(recorded: int, status: int) -> bool:
    """Whether a response is worse than the recorded one (`replay_native.statuses`)."""
    redirects = set(range(300, 400)) - {304}
    if recorded // 100 not in (2, 3):
        return False
    if status // 100 == 4:
        return status not in (408, 429)
    return status in redirects and recorded not in redirects
