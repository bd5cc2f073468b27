"""Parts of a work that several machines share."""

import hashlib
from dataclasses import dataclass

from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` of `count`, counted from 1; every machine finds its images without communication.

    >>> str(Shard.parse("2/4"))
    '2/4'
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `2/4`.

        Raises:
            ConfigError: The text is not a shard.
        """
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ConfigError(f"{text!r} is not a shard", hint="write 1/4 for the first of four parts")
        return cls(int(number), int(count))

    def holds(self, path: str) -> bool:
        """Whether the image is in this part: depends on its path only."""
        digest = hashlib.sha256(path.encode()).digest()
        return int.from_bytes(digest[:8], "little") % self.count == self.number - 1

    def rows_of(self, total: int) -> range:
        """Consecutive rows of a list of `total`; parts follow each other, and their lengths differ by at most one.

        >>> Shard(2, 3).rows_of(8)
        range(2, 5)
        """
        return range(total * (self.number - 1) // self.count, total * self.number // self.count)

    def name_for(self, name: str) -> str:
        """The name of this part's file, without its ending.

        >>> Shard(2, 4).name_for("sysu")
        'sysu.shard-2-of-4'
        """
        return f"{name}.shard-{self.number}-of-{self.count}"

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
