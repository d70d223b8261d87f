"""Words of messages: the nearest known names, names in a row, tables."""

import errno
import os
import re
import reprlib
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import zip_longest
from pathlib import Path

SIMILARITY = 0.7
"""Least similarity, 0 to 1, of a name that is suggested: a transposition or a missing letter lies above it."""

_SAFE_NAME = re.compile(r"\w[\w .,+()-]{0,254}")


def safe_name(name: str, key: str) -> str:
    """Return a name that may become part of a path; refuse others.

    Raises ValueError with the `key` for a name such as "../x".
    """
    if not _SAFE_NAME.fullmatch(name) or name != name.strip(". "):
        raise ValueError(
            f"{key} must be 1 to 255 letters, digits, blanks or _ . , + ( ) - and begin with a letter, a digit or _, "
            f"got {shown(name)}"
        )
    return name


def nearest_names(word: str, known: Iterable[object], most: int = 1) -> list[str]:
    """Return the known names most like `word`, the nearest first, at most `most`.

    None is below SIMILARITY; without any, names that begin with the word.
    """
    names = [str(name) for name in known]
    begun = [name for name in names if len(word) > 1 and name.startswith(word)]
    return get_close_matches(word, names, n=most, cutoff=SIMILARITY) or begun[:most]


def did_you_mean(word: str, known: Iterable[object], most: int = 1) -> str:
    """Return " Did you mean 'x'?" with the known names nearest to `word`; empty where none is like it."""
    near = nearest_names(word, known, most)
    return f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""


def install_command(extra: str) -> str:
    """Return the command that installs an extra, from the clone or from the package index."""
    in_clone = (Path(__file__).resolve().parents[2] / "constraints.txt").is_file()
    return f"pip install -e '.[{extra}]' -c constraints.txt" if in_clone else f"pip install 'dexgrasp[{extra}]'"


def repeated(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once, in order."""
    return [name for name, count in Counter(names).items() if count > 1]


def comma_separated(words: Iterable[object]) -> str:
    """Return the words with commas between them, or `none`."""
    return ", ".join(str(word) for word in words) or "none"


def one_line(value: object, most: int | None = None) -> str:
    """Return the text of a value, such as an error, on one line; `most`: its first characters alone."""
    return " ".join(str(value).split())[:most]


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a number and its noun: "1 mesh", "2 meshes"; `plural`: where it is not the noun with an s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def shown(value: object, most: int = 80) -> str:
    """Return the value as Python writes it, on one line, cut after `most` characters."""
    writer = reprlib.Repr()  # its limits hold before the text is made: a value may be huge
    writer.maxlist = writer.maxtuple = writer.maxdict = 20
    writer.maxstring = writer.maxlong = writer.maxother = most
    text = writer.repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


OS_ERRORS = {
    errno.ENOENT: "does not exist: check the path",
    errno.EACCES: "may not be read or written by this user: change its permissions, or give another path",
    errno.EPERM: "may not be changed by this user: change its permissions, or give another path",
    errno.EROFS: "lies on a read-only file system: give another path",
    errno.EISDIR: "is a folder, expected a file",
    errno.ENOTDIR: "leads through a file as if it were a folder: check the path",
    errno.EEXIST: "exists: give another path",
    errno.ENOTEMPTY: "is a folder that holds files: give another path",
    errno.ENAMETOOLONG: "has too long a name: give a shorter path",
    errno.ELOOP: "is a link that leads back to itself: check the path",
    errno.ENOSPC: "cannot be written: the disk is full; free space, then start the command again",
    errno.EDQUOT: "cannot be written: the quota of the disk is used up; free space, then start the command again",
    errno.EIO: "cannot be read or written: the disk reports an error; check it",
    errno.EMFILE: "cannot be opened: too many files are open (ulimit -n)",
}
"""What is wrong with a path, and what to do, by the number of the system's error."""


def os_error_text(error: OSError) -> str:
    """Return an error of the system as one line: path, reason, what to do; other errors keep their text."""
    if error.errno is None or error.strerror is None:
        return str(error)
    reason = OS_ERRORS.get(error.errno, f"cannot be used: {error.strerror}")
    if error.filename is None:
        return f"a file {reason}" if error.errno in OS_ERRORS else error.strerror
    name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else str(error.filename)
    return f"{name} {reason}"


def terminal_width() -> int | None:
    """Return the columns of the terminal; None where the output is not one."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_table(rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print rows of cells as a table that fits the terminal; the first row holds the titles."""
    if title:
        print(title)
    print(text_table(rows, terminal_width()))


def text_table(rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Return rows of cells as aligned columns; the first row holds the titles and is underlined.

    `width`: columns of the terminal. To fit, cells of the widest columns, but of the first one, are wrapped at blanks;
    columns that do not fit even so follow in a second table, behind the first column again. Columns of numbers are
    aligned at the right.
    """
    columns = [list(column) for column in zip(*rows, strict=True)]
    parts = _split_columns(columns, width)
    return "\n\n".join(_aligned(part, width) for part in parts)


def _split_columns(columns: Sequence[list[str]], width: int | None) -> list[list[list[str]]]:
    """Return the columns in groups that can fit the width, each of which starts with the first column."""
    parts = [[columns[0]]]
    for column in columns[1:]:
        if width is not None and len(parts[-1]) > 1 and _total(map(_least_width, [*parts[-1], column])) > width:
            parts.append([columns[0]])
        parts[-1].append(column)
    return parts


def _aligned(columns: Sequence[list[str]], width: int | None) -> str:
    widths = [max(map(len, column)) for column in columns]
    least = [widths[0], *map(_least_width, columns[1:])]
    while width is not None and _total(widths) > width and widths != least:
        widest = max((size, i) for i, size in enumerate(widths) if size > least[i])[1]
        widths[widest] -= 1
    right = [bool(column[1:]) and all(map(_is_number, column[1:])) for column in columns]
    lines = [_wrapped(row, widths, right) for row in zip(*columns, strict=True)]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _total(widths: Iterable[int]) -> int:
    """Return the width of a table, with two blanks between columns."""
    return sum(width + 2 for width in widths) - 2


def _least_width(column: Sequence[str]) -> int:
    """Return the width below which a column cannot be wrapped; cells of numbers stay whole."""
    return max(len(word) for cell in column for word in ([cell] if _is_number(cell) else ["", *cell.split()]))


def _is_number(cell: str) -> bool:
    """Return whether a cell holds a number, with its unit or interval; also where it is missing."""
    return cell in ("", "-", "none") or re.match(r"[-+<]?\d", cell) is not None


def _wrapped(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    """Return a row of a table, on several lines where cells are longer than their columns."""
    cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
    lines = []
    for part in zip_longest(*cells, fillvalue=""):
        fitted = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(part, widths, right, strict=True)
        )
        lines.append("  ".join(fitted).rstrip())
    return "\n".join(lines)


def demand_known(wanted: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise for a name that is not among the known ones, and name the nearest.

    `what`: place of the name, for the message.
    """
    known = list(known)
    for name in wanted:
        if name not in known:
            raise ValueError(f"{what} {shown(name)} is unknown; known: {known}.{did_you_mean(name, known)}")
