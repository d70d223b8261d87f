"""Make the mutants of a module: one small change of its code each.

Operators of mutmut swap operators, numbers, keywords and branches; own ones delete statements, calls that limit or
copy a value, and keyword arguments, negate conditions, and swap functions such as min and max. Left out are defaults
of options (fields of a class), texts of errors, annotations and docstrings.
"""

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
from mutmut.mutation import mutators

PAIRS = ("min max", "minimum maximum", "any all", "sin cos", "floor ceil", "zeros_like ones_like", "zeros ones")
SWAPPED = {a: b for pair in PAIRS for a, b in (pair.split(), reversed(pair.split()))}
DROPPED = frozenset(
    [
        "abs",
        "abs_",
        "clamp",
        "clip",
        "clone",
        "copy",
        "cumsum",
        "deg2rad",
        "exp",
        "flatten",
        "float",
        "long",
        "log1p",
        "round",
        "sign",
        "sorted",
        "sqrt",
        "square",
    ]
)
"""Functions and methods whose call is replaced by the value that they are applied to."""
UNSEEN = frozenset(["device", "dtype", "strict", "encoding", "errors"])
"""Arguments whose absence does not show on a processor, with float64 arrays, sequences of one length, in UTF-8."""
LEAST_NUMBER = 1e-6
"""Smaller numbers are guards against division by zero, whose size does not matter."""


@dataclass(frozen=True)
class Mutant:
    """Changed source code of a module."""

    name: str
    """Function, changed lines before and after."""
    code: str


def swap_function(node: cst.Name) -> Iterator[cst.Name]:
    """Replace the name of a function by its counterpart."""
    if node.value in SWAPPED:
        yield node.with_changes(value=SWAPPED[node.value])


def drop_call(node: cst.Call) -> Iterator[cst.BaseExpression]:
    """Replace x.clamp(...) or clip(x, ...) by x."""
    called = node.func
    if isinstance(called, cst.Attribute) and called.attr.value in DROPPED:
        is_module = isinstance(called.value, cst.Name) and called.value.value in ("np", "torch", "math")
        if not is_module:
            yield called.value
        elif node.args:
            yield node.args[0].value
    elif isinstance(called, cst.Name) and called.value in DROPPED | {"max", "min"} and node.args:
        yield from (arg.value for arg in node.args if arg.keyword is None and not arg.star)


def drop_keyword_argument(node: cst.Call) -> Iterator[cst.Call]:
    """Leave out one argument that is given by name."""
    for i, arg in enumerate(node.args):
        if arg.keyword is not None and arg.keyword.value not in UNSEEN and len(node.args) > 1:
            yield node.with_changes(args=[*node.args[:i], *node.args[i + 1 :]])


def drop_statement(node: cst.SimpleStatementLine) -> Iterator[cst.SimpleStatementLine]:
    """Replace a call, an augmented assignment, or an assignment to an element or attribute by `pass`."""
    (statement,) = node.body if len(node.body) == 1 else (None,)
    is_call = isinstance(statement, cst.Expr) and isinstance(statement.value, cst.Call)
    stores = isinstance(statement, cst.Assign) and not any(
        isinstance(target.target, cst.Name | cst.Tuple) for target in statement.targets
    )
    if is_call or stores or isinstance(statement, cst.AugAssign | cst.Raise):
        yield node.with_changes(body=[cst.Pass()])


def negate_condition(node: cst.If | cst.While) -> Iterator[cst.CSTNode]:
    """Turn a condition into its opposite."""
    inner = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    yield node.with_changes(test=cst.UnaryOperation(cst.Not(), inner, lpar=[cst.LeftParen()], rpar=[cst.RightParen()]))


def scale_number(node: cst.Float) -> Iterator[cst.Float]:
    """Make a number a quarter larger."""
    if abs(node.evaluated_value) >= LEAST_NUMBER and math.isfinite(1.25 * node.evaluated_value):
        yield node.with_changes(value=repr(1.25 * node.evaluated_value))


def change_text(node: cst.SimpleString) -> Iterable[cst.BaseString]:
    """Change a text in one way; mutmut's other ways change its case."""
    return list(mutators.operator_string(node))[:1]


OPERATORS = (
    (cst.Integer, mutators.operator_number),
    (cst.Float, scale_number),
    (cst.SimpleString, change_text),
    (cst.Name, mutators.operator_name),
    (cst.AugAssign, mutators.operator_augmented_assignment),
    (cst.UnaryOperation, mutators.operator_remove_unary_ops),
    (cst.CSTNode, mutators.operator_keywords),
    (cst.CSTNode, mutators.operator_swap_op),
    (cst.IfExp, mutators.operator_if_exp),
    (cst.Name, swap_function),
    (cst.Call, drop_call),
    (cst.Call, drop_keyword_argument),
    (cst.SimpleStatementLine, drop_statement),
    (cst.If | cst.While, negate_condition),
)


class _Visitor(cst.CSTVisitor):
    """Collects (function, node, changed node) of a module."""

    def __init__(self) -> None:
        self.found: list[tuple[str, cst.CSTNode, cst.CSTNode]] = []
        self._inside: list[cst.CSTNode] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if self._is_left_out(node):
            return False
        self._inside.append(node)
        named = [name for each in self._inside if (name := _name(each))]
        for kind, operator in OPERATORS:
            if isinstance(node, kind):
                self.found += [(".".join(named), node, changed) for changed in operator(node)]
        return True

    def _is_left_out(self, node: cst.CSTNode) -> bool:
        """Return whether neither this node nor what it contains is changed."""
        parent = self._inside[-1] if self._inside else None
        if isinstance(node, cst.SimpleString) and isinstance(parent, cst.Expr | cst.Param):
            return True  # docstring, default such as device="cpu"
        if isinstance(node, cst.Name) and isinstance(parent, cst.Arg) and node is parent.keyword:
            return True
        if isinstance(node, cst.Arg) and node.keyword is not None and node.keyword.value in UNSEEN:
            return True
        if isinstance(node, cst.AnnAssign | cst.Assign) and self._is_class_body():
            return True  # default of an option
        is_message = isinstance(parent, cst.Raise) or isinstance(node, cst.FormattedString)
        return is_message or isinstance(node, cst.Annotation | cst.Decorator | cst.Import | cst.ImportFrom)

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if self._inside and self._inside[-1] is original_node:
            self._inside.pop()

    def _is_class_body(self) -> bool:
        named = [each for each in self._inside if isinstance(each, cst.FunctionDef | cst.ClassDef)]
        return bool(named) and isinstance(named[-1], cst.ClassDef)


def _name(node: cst.CSTNode) -> str:
    """Return the name of a function or class, or of a constant of the module; else nothing."""
    if isinstance(node, cst.FunctionDef | cst.ClassDef):
        return node.name.value
    target = node.targets[0].target if isinstance(node, cst.Assign) else None
    return target.value if isinstance(target, cst.Name) and target.value.isupper() else ""


def make_mutants(path: Path, sample: int = 0, seed: int = 0, left_out: Sequence[str] = ()) -> tuple[list[Mutant], int]:
    """Return mutants of a module in order of its code, and how many there are in all.

    `sample`: largest number of mutants returned, drawn with `seed`; 0: all. `left_out`: classes without mutants.
    """
    source = path.read_text(encoding="utf-8")
    module = cst.parse_module(source)
    visitor = _Visitor()
    module.visit(visitor)
    found = [change for change in visitor.found if change[0].split(".")[0] not in left_out]
    places = list(range(len(found)))
    if 0 < sample < len(places):
        places = sorted(random.Random(seed).sample(places, sample))
    mutants: dict[str, Mutant] = {}
    for where, node, changed in (found[place] for place in places):
        replaced = module.deep_replace(node, changed)
        if isinstance(replaced, cst.Module) and replaced.code != source:
            name = f"{where}: {_difference(source, replaced.code)}"
            mutants.setdefault(name, Mutant(name, replaced.code))
    return list(mutants.values()), len(found)


def _difference(before: str, after: str) -> str:
    """Return the changed lines as text: before -> after."""
    old, new = before.splitlines(), after.splitlines()
    while old and new and old[0] == new[0]:
        del old[0], new[0]
    while old and new and old[-1] == new[-1]:
        del old[-1], new[-1]
    return "  ->  ".join(" ".join(line.strip() for line in lines) for lines in (old, new))
