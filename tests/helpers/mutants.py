"""Damaged copies of files: what a fuzz test feeds to a reader that must refuse politely or read."""

import random
import re
from collections.abc import Iterator

_HOSTILE_NUMBERS = (
    *(b"0", b"-1", b"1", b"255", b"256", b"65536", b"4294967295", b"4294967296", b"1000000000000"),
    *(b"18446744073709551615", b"9" * 30, b"9" * 5000, b"nan", b"inf", b"-inf", b"1e999", b"NaN", b"Infinity", b""),
)
_HOSTILE_WORDS = (
    b"../",
    b"/etc/passwd",
    b"file:///etc/passwd",
    b"\x00",
    b"C:\\",
    b"[" * 2000,
    b'"',
    b"{",
    b"\n",
    b"\xff\xfe",
)


def mutants(original: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yields `count` damaged copies, the same ones for the same seed.

    Bytes are flipped, cut, doubled, and set to extremes; numbers in text, and integers anywhere, become hostile ones.
    """
    rng = random.Random(seed)
    for _ in range(count):
        data = bytearray(original)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            _mutate(data, rng)
        yield bytes(data)


def _mutate(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data)) if data else 0
    if rng.random() < 0.4:  # headers are where lies are told
        at = rng.randrange(min(len(data), 600)) if data else 0
    match rng.randrange(9):
        case 0:
            del data[at:]
        case 1:
            data[at : at + 1] = bytes([rng.randrange(256)])
        case 2:
            del data[at : at + rng.choice((1, 2, 4, 8, 64))]
        case 3:
            data[at:at] = data[at : at + rng.choice((1, 2, 8, 64, 512))]
        case 4:
            width = rng.choice((1, 2, 4, 8))
            data[at : at + width] = rng.choice(
                (b"\xff" * width, b"\x00" * width, b"\x7f" * width, b"\x00" * (width - 1) + b"\x80")
            )
        case 5:
            data[at:at] = rng.choice(_HOSTILE_WORDS)
        case 6 | 7:
            numbers = list(re.finditer(rb"-?\d+(\.\d+)?", bytes(data[:20000])))
            if numbers:
                number = rng.choice(numbers)
                data[number.start() : number.end()] = rng.choice(_HOSTILE_NUMBERS)
        case 8:
            other = rng.randrange(len(data)) if data else 0
            data[at : at + 16], data[other : other + 16] = data[other : other + 16], data[at : at + 16]
