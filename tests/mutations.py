"""Faults for tests.mutants: what could be changed in Python, and in the Cython and C of the kernels."""

import ast
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Fault", "kernel_faults", "python_faults"]


@dataclass(frozen=True)
class Fault:
    """A change of a file.

    before, after  source text: what stands there, and what takes its place
    place          from which byte to which
    choice         in kernels: the source that is one or the other at run time, with @ for the fault's number
    """

    file: str
    line: int
    before: str
    after: str
    place: tuple[int, int]
    choice: str = ""

    @property
    def name(self) -> str:
        return " ".join(f"{self.file}:{self.line}  {self.before}  =>  {self.after or 'nothing'}".split())

    @property
    def folder(self) -> str:
        return self.file.rpartition("/")[0]


# --------------------------------------------------------------------------------------------------- faults in Python

SWAPPED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
NOT_LOOKED_AT = (ast.JoinedStr, ast.Raise, ast.Import, ast.ImportFrom)  # messages, and what fails at once


def looked_at(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that compute: no annotations, messages, decorators, or code for type checkers or __main__."""
    yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list") or (isinstance(node, ast.ClassDef) and field != "body"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, NOT_LOOKED_AT):
                words = ast.unparse(child) if isinstance(child, ast.Assign | ast.If) else ""
                if not words.startswith(("__all__", "if TYPE_CHECKING", "if __name__")):
                    yield from looked_at(child)


def with_change(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def changes_of(node: Any) -> Iterator[tuple[Any, ast.AST]]:
    """Yield the possible replacements of a node, or of a part of it."""
    match node:
        case ast.BinOp(left=ast.JoinedStr() | ast.Constant(value=str())):
            pass  # a message
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in SWAPPED:
            yield node, with_change(node, op=SWAPPED[type(op)]())
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                yield node, with_change(node, ops=[*ops[:i], SWAPPED[type(op)](), *ops[i + 1 :]])
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield node, operand
        case ast.Constant(value=bool(value)):
            yield node, ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield node, ast.Constant(value + 1)
        case ast.Constant(value=float(value)):
            yield node, ast.Constant(value * 1.05 if value else 0.05)
        case ast.Call(args=[ast.Name() | ast.Attribute() as first, ast.Name() | ast.Attribute() as second, *others]):
            yield node, with_change(node, args=[second, first, *others])
        case ast.If(test=test) | ast.While(test=test):
            yield test, ast.UnaryOp(ast.Not(), test)
        case ast.IfExp(body=body, orelse=orelse):
            yield node, with_change(node, body=orelse, orelse=body)
    if isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield node, ast.Pass()


def python_faults(file: str, source: str) -> Iterator[Fault]:
    """Every fault that could be planted in a file."""
    code = source.encode()
    starts = [0]  # of its lines; a node's columns are bytes
    for line in code.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in looked_at(ast.parse(source)):
        for part, change in changes_of(node):
            place = starts[part.lineno - 1] + part.col_offset, starts[part.end_lineno - 1] + part.end_col_offset
            after = ast.unparse(change) if isinstance(part, ast.stmt) else f"({ast.unparse(change)})"
            yield Fault(file, part.lineno, code[slice(*place)].decode(), after, place)


# --------------------------------------------------------------------------------------------------- faults in kernels

TOKENS = {
    " + ": " - ", " - ": " + ", " * ": " + ", " / ": " * ", " // ": " * ", " % ": " * ", " < ": " <= ", " <= ": " < ",
    " > ": " >= ", " >= ": " > ", " == ": " != ", " != ": " == ", " && ": " || ", " || ": " && ", " and ": " or ",
    " or ": " and ", " += ": " -= ", " -= ": " += ", "min(": "max(", "max(": "min(", "True": "False", "False": "True",
    "true": "false", "false": "true", " not ": " ",
}  # fmt: skip
TOKEN = re.compile("|".join(map(re.escape, sorted(TOKENS, key=len, reverse=True))))
LITERAL = re.compile(r"(?<![\w.])(\d+)(\.\d+(?:e[+-]?\d+)?)?(f?)(?![\w.])")


@dataclass(frozen=True)
class Language:
    """How statements look. Each form: what stands before an expression that may change, itself, and what is behind it.

    forms        expressions that are chosen in their place; a form's several, between commas, one by one
    statement    what is chosen as a whole, or left out
    expression   how two expressions become one, and `choice` how two statements do
    """

    comment: re.Pattern[str]
    ends: str
    forms: list[str]
    statement: str
    expression: str
    choice: str


C = Language(
    re.compile(r"/\*.*?\*/|#ifdef __clang__.*?#(?:else|endif)", re.DOTALL),  # gcc is taken
    r"[;{}:]$|^ *#|^ *(for|if|else|while)\b|^ *[A-Z]+$",
    [
        r"(for \([^;]*; )([^;]+)(;.*)",
        r"((?:\} )?(?:else )?(?:if|while) \()(.+)(\)(?: \{|;)?)",
        r"(return )(.+)(;)",
        r"((?:const )?(?!return|else|static)\w+ \**)(\w+ = [^{}]+)(;)",
    ],
    r"(?!return|static|else|case)([\w*][^;{}=]* [-+*/|]?= [^{}]+|\w+\(.*\));",
    "(planted_fault == @ ? ({changed}) : ({original}))",
    "{{ if (planted_fault == @) {{ {changed} }} else {{ {original} }} }}",
)
CYTHON = Language(
    re.compile(r'""".*?"""|#[^\n]*', re.DOTALL),
    r"",
    [
        r"((?:if|elif|while) )(.+)(:)",
        r"(return )(.+)()",
        r"(for \w+ in range\()(.+)(\):)",
        r"(cdef (?:const )?\w+ )(\w+ = .+)()",
    ],
    r"(?!cdef|return|[A-Z_]+ =)([\w.\[\]*, +/-]+ [-+*/|]?= .+|[\w.]+\(.*\))",
    "(({changed}) if planted_fault == @ else ({original}))",
    "if planted_fault == @:\n{indent}    {changed}\n{indent}else:\n{indent}    {original}",
)


def split_at_commas(text: str) -> list[str]:
    """At those that stand in no bracket."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        parts[-1] += letter
        if letter == "," and depth == 0:
            parts[-1] = parts[-1][:-1]
            parts.append("")
    return parts


def statements(source: str, language: Language) -> Iterator[tuple[tuple[int, int], str]]:
    """Where each statement inside a function stands, and its text on one line."""
    code = language.comment.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), source)
    begin = end = 0
    while end < len(code):
        end = code.find("\n", end) + 1 or len(code)
        text = code[begin:end].rstrip()
        if all(text.count(a) <= text.count(b) for a, b in ("()", "[]")) and (
            not text or re.search(language.ends, text) or end == len(code)
        ):
            if text.startswith("    ") and "#" not in text and text[-1] != "\\":
                yield (begin + len(text) - len(text.lstrip()), begin + len(text)), " ".join(text.split())
            begin = end


def changes_of_text(text: str) -> Iterator[str]:
    for found in TOKEN.finditer(text):
        yield text[: found.start()] + TOKENS[found[0]] + text[found.end() :]
    for found in LITERAL.finditer(text):
        if re.search(r"\b_mm\d*_\w+\([^()]*, $", text[: found.start()]) and text[found.end()] == ")":
            continue  # an immediate of an instruction: the compiler refuses a choice
        whole, fraction, suffix = found.groups()
        value = str(float(whole + fraction) * 1.05 or 0.05) + suffix if fraction else str(int(whole) + 1)
        yield text[: found.start()] + value + text[found.end() :]


def choices(text: str, language: Language, indent: str) -> Iterator[tuple[str, str]]:
    """Every changed form of a statement, and the source that is one or the other."""
    for form in language.forms:
        if found := re.fullmatch(form, text):
            head, _, tail = found.groups()
            parts = split_at_commas(found[2])
            for i, part in enumerate(parts):
                name, equals, value = part.rpartition(" = ") if re.match(r" ?\w+ = ", part) else ("", "", part)
                for changed in changes_of_text(value):
                    both = language.expression.format(changed=changed, original=value)
                    after, choice = (
                        head + ",".join([*parts[:i], name + equals + new, *parts[i + 1 :]]) + tail
                        for new in (changed, both)
                    )
                    yield after, choice
            return
    if re.fullmatch(language.statement, text):
        for changed in [*changes_of_text(text), ""]:
            nothing = ";" if language is C else "pass"
            yield changed, language.choice.format(changed=changed or nothing, original=text, indent=indent)


def kernel_faults(file: str, source: str) -> Iterator[Fault]:
    """Every fault that could be planted in a file of kernels/."""
    language = C if file.endswith((".c", ".h")) else CYTHON
    for place, text in statements(source, language):
        before = source[: place[0]]
        for after, choice in choices(text, language, before[before.rfind("\n") + 1 :]):
            yield Fault(file, before.count("\n") + 1, text, after, place, choice)
