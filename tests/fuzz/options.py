"""Command lines made from the configurations of all commands: values in range, outside it, and of other types."""

import functools
import math

from hypothesis import strategies as st

from dexgrasp.policies.cli.commands import COMMANDS
from dexgrasp.policies.cli.option_docs import REQUIRED, keys

BASE = {
    "objects generate": ["out=made"],
    "objects import": ["meshes", "out=made"],
    "check scene": ["images"],
    "objects scan": ["images", "out=made"],
    "objects compare": ["shipped", "meshes"],
    "export": ["policy=allegro/student", "out=made"],
    "publish": ["policy=allegro/student", "out=made"],
    "checkpoint upgrade": ["nowhere"],
    "checkpoint sb3": ["allegro/teacher", "out=made.zip"],
    "replay": ["bag", "policy=allegro/student"],
    "calibrate camera": ["images"],
    "compare": ["synergy", "zero"],
    "bench ablations": ["teacher=allegro/teacher"],
    "report": ["nowhere"],
    "video": ["nowhere"],
    "list": ["hands"],
    "completion": ["bash"],
}
"""Words without which a command is refused."""

INTEGERS = (-1, 0, 1, 2, 7, 10**6, 2**31, 2**63, 2**64, 10**30, 10**400, -(2**63))
FLOATS = (-1.0, -0.0, 0.0, 1e-320, 1e-9, 0.1, 0.5, 1.0, 1e9, 1e308, -1e308, math.nan, math.inf, -math.inf)
JUNK = (
    *(
        "",
        " ",
        "x",
        "-",
        "~",
        "null",
        "none",
        "true",
        "off",
        "[]",
        "{}",
        "[1]",
        "[[1]]",
        "{a: 1}",
        "[1, 2",
        "{a: ",
        "a: b",
    ),
    *(
        "1.5",
        "1e400",
        "0x10",
        "1_000",
        "1e",
        "𝟓",
        "①",
        "2001-01-01",
        "2001-99-99",
        "12:30:45",
        "!!python/object:os.system",
    ),
    *("&a [*a]", "*a", "${oc.env:HOME}", "${a}", "???", "%s%n", "'", '"', "\\", "=", "a=b", "../..", "/", "/dev/null"),
    *("/dev/zero", "/proc/self/mem", "nowhere", "$(touch x)", "\t", "a\nb", "🦾", "a" * 5000, "[" * 5000, "1," * 2000),
    *("nan", ".nan", "inf", "-.inf", "\x00", "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace")),
)
"""Values of no field, or of a field of another type."""

WORDS = (
    *(
        "--help-me",
        "-x",
        "--",
        "trials",
        "=",
        "=1",
        "a=1",
        "a.b.c=1",
        "+seed=1",
        "++seed=1",
        "~task",
        "task",
        "seed",
        ".",
    ),
    *("hydra.run.dir=x", "hydra/launcher=x", "task@x=grasp", "physics=", "physics=none", "task=../train", "camera=x"),
    *(
        "config=nowhere",
        "config=",
        "config=/dev/null",
        "config=/",
        "config=empty.yaml",
        "task={rate_hz: 20}",
        "task=null",
    ),
    *("task={a: 1", "task.reward.extra.foo=1", "task.reward.extra=1", "task.reward={lift: {a: 1}}", "seed=1,2", "-m"),
    *("", " ", "\x00", "--cfg", "warp=[]", "warp.=1", ".warp=1", "task..rate_hz=1", "recipe=student", "stage=student"),
)
"""Words that are no `key=value` of a known key."""

UNSAFE = ("plugins",)
"""Keys whose values are imported or that would leave this machine."""


@functools.cache
def known(command):
    """Return the keys of a command that are drawn."""
    return [key for key in keys(command.schema, command.config) if key.name not in UNSAFE and key.kind != "group"]


def number_of(kind, text):
    """Return the ends of a range as numbers."""
    ends = [2**63 - 1 if end == "2^63 - 1" else float(end) for end in text.split("..")]
    return [int(end) for end in ends] if "int" in kind else ends


def one_number(kind):
    """Return whether a key takes one number."""
    return kind in ("int", "float", "int or null", "float or null")


def inside(key):
    """Return a strategy of values in the range of a key with one number."""
    low, high = number_of(key.kind, key.bounds)
    if isinstance(low, int):
        return st.one_of(st.sampled_from([low, high]), st.integers(low, high))
    return st.one_of(st.sampled_from([low, high]), st.floats(low, high))


def outside(key):
    """Return a strategy of values that the range of a key with one number refuses."""
    low, high = number_of(key.kind, key.bounds)
    if isinstance(low, int):
        far = st.one_of(st.integers(max_value=low - 1), st.integers(min_value=high + 1), st.sampled_from(INTEGERS))
        return far.filter(lambda value: not low <= value <= high)
    return st.one_of(st.floats(), st.sampled_from(FLOATS)).filter(lambda value: not low <= value <= high)


def several(key):
    """Return a strategy of values of a key with several numbers, or of text."""
    numbers = st.lists(st.sampled_from([*INTEGERS, *FLOATS]), max_size=5).map(str)
    return st.one_of(numbers, st.sampled_from(JUNK), st.text(max_size=20))


@st.composite
def command_lines(draw):
    """Draw a command, its words, and the keys among them that must be refused."""
    command = draw(st.sampled_from(COMMANDS))
    words, wrong = [*command.words.split(), *BASE.get(command.words, [])], []
    options = known(command)
    for key in draw(st.lists(st.sampled_from(options), max_size=4, unique=True)) if options else ():
        kind = draw(st.sampled_from(["inside", "inside", "outside", "junk"]))
        if kind != "junk" and one_number(key.kind) and key.bounds:
            value = draw(inside(key) if kind == "inside" else outside(key))
            if kind == "outside":
                wrong.append(key.name)
        elif kind != "junk" and key.choices:
            value = draw(st.sampled_from(key.choices))
        elif key.kind == "str" and kind == "inside" and key.default not in (REQUIRED, ""):
            value = key.default
        else:
            value = draw(several(key))
        words.append(f"{key.name}={value}")
    words += draw(st.lists(st.sampled_from(WORDS), max_size=1)) if draw(st.integers(0, 9)) == 0 else []
    return command, words, wrong
