"""Files that are damaged at random, the same for a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

_ODD = (b"\0", b"\xff", b"\x1b[31m", b"\r\n", b'"', b"{", b"[" * 300, b"\xed\xa0\x80", b"9" * 400)


def mutants(content: bytes, n: int, seed: int) -> Iterator[bytes]:
    """Yield `n` damaged versions: cut, flipped, filled, doubled, or with odd bytes put in."""
    chance = random.Random(seed)
    for number in range(n):
        yield _damaged(bytearray(content), number % 6, chance)


def _damaged(content: bytearray, way: int, chance: random.Random) -> bytes:
    # Headers and footers decide most: half of the places lie in the first or last bytes.
    size = len(content)
    near = chance.choice(
        (chance.randrange(min(size, 64)), size - 1 - chance.randrange(min(64, size)))
    )
    at = chance.choice((near, chance.randrange(size)))
    if way == 0:
        return bytes(content[:at])
    if way == 1:
        for _ in range(chance.choice((1, 3, 20))):
            content[chance.randrange(size)] ^= 1 << chance.randrange(8)
    elif way == 2:
        content[at : at + 8] = bytes(chance.randrange(256) for _ in range(8))
    elif way == 3:
        content[at : at + 4] = chance.choice((b"\0" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f"))
    elif way == 4:
        content[at:at] = content[max(0, at - 50) : at + 50]
    else:
        content[at:at] = chance.choice(_ODD)
    return bytes(content)
