"""Commands and Python code that README and documentation show, collected from their Markdown."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = ("dexgrasp", "make", "python", "python3", "pip", "torchrun", "ros2", "git", "colcon", "docker", "uvx")
"""First words of commands in blocks without a language and in the text."""
FENCE = re.compile(r"^( *)```+ *(\S*)[^\n]*\n(.*?)^\1```", re.M | re.S)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
ELLIPSIS = re.compile(r"\.\.\.|…|\[key=value|\b(BAG|COMMAND|DIR|FILE|POLICY|RUN)\b(?!=)|\bmy_module\b")
"""Marks of a form that stands for many commands."""


@dataclass(frozen=True)
class ShownCommand:
    """A command and the first page that shows it."""

    text: str
    place: str

    @property
    def words(self):
        """The words of the command, without quotes and comments."""
        return shlex.split(self.text, comments=True)


def commands():
    """Return the distinct commands of all pages, in blocks, tables and text."""
    found = {}
    for page in PAGES:
        text, place = page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix()
        for command in (*_in_blocks(text), *_in_text(text)):
            found.setdefault(command, ShownCommand(command, place))
    return list(found.values())


def python_blocks():
    """Return (place, code) of the Python blocks of all pages, without those that include a file."""
    return [
        (f"{page.relative_to(ROOT)}:{text[: block.start()].count(chr(10)) + 1}", _dedented(block))
        for page in PAGES
        for text in [page.read_text(encoding="utf-8")]
        for block in FENCE.finditer(text)
        if block[2] == "python" and "--8<--" not in block[3]
    ]


def included_files():
    """Return the paths of the files that pages include."""
    return {name for page in PAGES for name in re.findall(r'--8<-- "([^"]+)"', page.read_text(encoding="utf-8"))}


def _dedented(block):
    return "\n".join(line.removeprefix(block[1]) for line in block[3].splitlines())


def _in_blocks(text):
    for block in FENCE.finditer(text):
        lines = re.sub(r"\\\n\s*", "", _dedented(block)).splitlines()
        if block[2] in ("bash", "sh", "shell"):
            lines = [line for line in lines if line.strip() and not line.startswith("#")]
        elif block[2] == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        elif block[2] == "":
            lines = [line for line in lines if line.split(" ")[0] in PROGRAMS]
        else:
            continue
        yield from (part for line in lines for part in _split(line))


def _in_text(text):
    for code in INLINE.findall(FENCE.sub("", text)):
        first, _, rest = code.partition(" ")
        if first in PROGRAMS and rest and not ELLIPSIS.search(code):
            yield from _split(code)


def _split(line):
    """Split a line at && and drop its comment."""
    return [part.strip() for part in re.sub(r"\s+#\s.*", "", line).split("&&")]
