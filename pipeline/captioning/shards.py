"""Images divided among machines by their paths, so that nobody has to tell the others what is done."""

import hashlib
from dataclasses import dataclass

from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` of `count`, counted from 1.

    >>> str(Shard.parse("2/4"))
    '2/4'
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `2/4`.

        Raises:
            ConfigError: It is none.
        """
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ConfigError(f"{text!r} is no part of a whole", hint="write 1/4 for the first of four parts")
        return cls(int(number), int(count))

    def holds(self, path: str) -> bool:
        """Whether the image is of this part: decided by its path alone, the same on every machine."""
        digest = hashlib.sha256(path.encode()).digest()
        return int.from_bytes(digest[:8], "little") % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
