"""How far a download is: what a fetching pod says of it, and the words for it that people read."""

import msgspec

MAX_NOTE = 256
"""Characters of a note."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Download(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """The progress of all files of a model together; `bytes_total` is None until the sizes of all files are known."""

    bytes_done: int = 0
    bytes_total: int | None = None
    bytes_per_second: int = 0
    seconds_left: int | None = None
    files_done: int = 0
    files_total: int = 0
    note: str = ""
    """What it waits for, if it does."""

    def words(self) -> str:
        """Say it in words.

        >>> Download(13_207_024_435, 15_247_133_900, 210_000_000, 9).words()
        '12.3 of 14.2 GiB, 210 MB/s, 9 s left'
        >>> Download(note="waits for registry.example").words()
        '0 B; waits for registry.example'
        """
        done, total = max(0, self.bytes_done), self.bytes_total
        parts = [_size(done) if total is None else f"{_in_unit_of(done, total)} of {_size(total)}"]
        if self.bytes_per_second > 0:
            parts.append(_speed(self.bytes_per_second))
        if self.seconds_left is not None and self.seconds_left >= 0:
            parts.append(f"{_time(self.seconds_left)} left")
        return ", ".join(parts) + (f"; {self.note[:MAX_NOTE]}" if self.note else "")


def _power(size: int) -> int:
    power = 0
    while size >= 1024 ** (power + 1) and power < len(_UNITS) - 1:
        power += 1
    return power


def _number(size: int, power: int) -> str:
    return f"{size / 1024**power:.1f}" if power else str(size)


def _in_unit_of(size: int, other: int) -> str:
    return _number(size, _power(max(0, other)))


def _size(size: int) -> str:
    size = max(0, size)
    return f"{_number(size, _power(size))} {_UNITS[_power(size)]}"


def _speed(speed: int) -> str:
    if speed < 1000:
        return f"{speed} B/s"
    return f"{speed / 1000:.0f} kB/s" if speed < 1_000_000 else f"{speed / 1_000_000:.0f} MB/s"


def _time(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    minutes = -(-seconds // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def size_in_words(size: int) -> str:
    """Give a number of bytes as people read it.

    >>> size_in_words(15_247_133_900)
    '14.2 GiB'
    """
    return _size(size)
