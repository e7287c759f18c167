"""One random record batch from kernels and from aiokafka: what differs, in words."""

from __future__ import annotations

import random

from tests.kafka.test_recordbatch import NOW_MS, encoded
from tests.reference import recordbatch as naive
from tests.reference.recordbatch import Record


def _bytes(random_: random.Random) -> bytes | None:
    return random_.randbytes(random_.choice((0, 1, 7, 63, 64, 130, 300))) if random_.random() < 0.9 else None


def _record(random_: random.Random) -> Record:
    names = ("", "trace", "ключ")
    headers = tuple((random_.choice(names), _bytes(random_)) for _ in range(random_.choice((0, 0, 1, 3))))
    return Record(_bytes(random_), _bytes(random_), NOW_MS + random_.randint(-(2**40), 2**40), headers)


def one_case(seed: int) -> str:
    """A complaint, or nothing."""
    random_ = random.Random(seed)
    records = [_record(random_) for _ in range(random_.choice((1, 2, 10, 65)))]
    producer = random_.randrange(2**40), random_.randrange(2**15), random_.randrange(2**31)
    same = encoded(records, *producer) == naive.batch(records, *producer)
    return "" if same else "not the bytes of aiokafka's builder"
