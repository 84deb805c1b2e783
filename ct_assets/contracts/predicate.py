"""A small, safe part of SQL for rules across columns and derived columns.

What goes here: the tokens, the grammar, the typed tree. What does not: evaluation (``ct_assets.ingest.expressions``
turns the tree into Polars expressions; nothing is ever passed to ``eval`` or to a database).

Grammar (SQL's own precedence)::

    or      := and (OR and)*                      and := not (AND not)*             not := NOT not | test
    test    := sum [ (= <> != < <= > >=) sum | IS [NOT] NULL | [NOT] IN (literal, ...)
                   | [NOT] BETWEEN sum AND sum | [NOT] LIKE 'pattern' ]
    sum     := product ((+|-) product)*           product := unary (* unary)*       unary := - unary | atom
    atom    := number | 'text' | TRUE | FALSE | NULL | DATE 'yyyy-mm-dd' | ${deliveryDay} | column | "column"
             | ( or ) | LENGTH(x) UPPER(x) LOWER(x) TRIM(x) ABS(x) COALESCE(x, y) | CAST(x AS DATE)

Three-valued logic as in SQL: a comparison with NULL is unknown, and a row breaks a rule only where the rule's
predicate is true. ``CAST(timestamp AS DATE)`` is the local calendar day in the column's declared zone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from ct_assets.errors import did_you_mean

MAX_TOKENS = 2_000
MAX_NESTING = 60
DELIVERY_DAY = "${deliveryDay}"
KEYWORDS = {"AND", "OR", "NOT", "IS", "NULL", "IN", "BETWEEN", "LIKE", "TRUE", "FALSE", "CAST", "AS", "DATE", "ESCAPE"}
# function -> (kind of its arguments, kind of its result; None: that of its argument)
FUNCTIONS: dict[str, tuple[str, str | None]] = {
    "LENGTH": ("text", "number"),
    "UPPER": ("text", "text"),
    "LOWER": ("text", "text"),
    "TRIM": ("text", "text"),
    "ABS": ("number", None),
    "COALESCE": ("any", None),
}
COMPARISONS = ("=", "<>", "!=", "<", "<=", ">", ">=")

Literal = str | Decimal | bool | date | None


class PredicateError(ValueError):
    """The text is no expression of the grammar, names an unknown column, or compares unlike kinds."""


@dataclass(frozen=True)
class Node:
    """One node of the tree: ``op`` with its operands; ``kind`` is text, number, boolean, date, timestamp or null."""

    op: str
    args: tuple[Node, ...] = ()
    value: Literal | tuple[Literal, ...] = None
    kind: str = "boolean"

    def columns(self) -> set[str]:
        """Names of all columns that the expression reads."""
        own = {str(self.value)} if self.op == "column" else set()
        return own.union(*(arg.columns() for arg in self.args)) if self.args else own

    def uses_delivery_day(self) -> bool:
        """True when the expression needs to know the day of the delivery."""
        return self.op == "delivery_day" or any(arg.uses_delivery_day() for arg in self.args)


_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<text>'(?:[^']|'')*')|(?P<quoted>"(?:[^"]|"")+")
    |(?P<day>\$\{deliveryDay\})|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<symbol><>|!=|<=|>=|[=<>(),*+\-]))""",
    re.VERBOSE,
)


def tokens(text: str) -> list[tuple[str, str]]:
    """Split an expression into (kind, text) pairs, ending with ("end", "")."""
    found: list[tuple[str, str]] = []
    at = 0
    text = text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise PredicateError(f"cannot read {text[at : at + 20]!r}")
        found.append((match.lastgroup, match.group(match.lastgroup)))
        at = match.end()
        if len(found) > MAX_TOKENS:
            raise PredicateError(f"longer than {MAX_TOKENS} tokens")
    return [*found, ("end", "")]


@dataclass
class _Parser:
    kinds: Mapping[str, str]  # column -> kind
    items: list[tuple[str, str]]
    at: int = 0
    depth: int = field(default=0)

    # -- moving over the tokens
    def peek(self) -> str:
        kind, text = self.items[self.at]
        return text.upper() if kind == "word" else text if kind == "symbol" else ""

    def next(self) -> tuple[str, str]:
        item = self.items[self.at]
        self.at += 1
        return item

    def accept(self, *words: str) -> bool:
        for i, word in enumerate(words):
            kind, text = self.items[min(self.at + i, len(self.items) - 1)]
            if kind not in ("word", "symbol") or text.upper() != word:
                return False
        self.at += len(words)
        return True

    def expect(self, word: str) -> None:
        if not self.accept(word):
            raise PredicateError(f"expected {word} at {self.items[self.at][1] or 'the end'!r}")

    # -- grammar, from the loosest binding to the tightest
    def disjunction(self) -> Node:
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise PredicateError(f"nested deeper than {MAX_NESTING}")
        node = self.conjunction()
        while self.accept("OR"):
            node = _logic("or", node, self.conjunction())
        self.depth -= 1
        return node

    def conjunction(self) -> Node:
        node = self.negation()
        while self.accept("AND"):
            node = _logic("and", node, self.negation())
        return node

    def negation(self) -> Node:
        turns = 0
        while self.accept("NOT"):
            turns += 1
        node = self.test()
        return _logic("not", node) if turns % 2 else node

    def test(self) -> Node:
        left = self.sum()
        if self.peek() in COMPARISONS:
            operator = self.next()[1].replace("!=", "<>")
            return _compare(operator, left, self.sum())
        if self.accept("IS"):
            negated = self.accept("NOT")
            self.expect("NULL")
            node = Node("is_null", (left,))
            return _logic("not", node) if negated else node
        negated = self.accept("NOT")
        node = self._membership(left)
        if node is None:
            if negated:
                raise PredicateError("expected IN, BETWEEN or LIKE after NOT")
            return left
        return _logic("not", node) if negated else node

    def _membership(self, left: Node) -> Node | None:
        if self.accept("IN"):
            return self._in(left)
        if self.accept("BETWEEN"):
            low = self.sum()
            self.expect("AND")
            return _logic("and", _compare(">=", left, low), _compare("<=", left, self.sum()))
        if self.accept("LIKE"):
            pattern = self.atom()
            if pattern.op != "literal" or pattern.kind != "text":
                raise PredicateError("LIKE needs a quoted pattern")
            _need(left, "text", "LIKE")
            return Node("like", (left,), pattern.value)
        return None

    def _in(self, left: Node) -> Node:
        self.expect("(")
        values: list[Literal] = []
        while True:
            item = self.unary()
            if item.op != "literal" or item.value is None:
                raise PredicateError("IN needs a list of values, none of them NULL")
            _same(left, item, "IN")
            values.append(item.value)  # pyright: ignore[reportArgumentType]
            if not self.accept(","):
                break
        self.expect(")")
        return Node("in", (left,), tuple(values))

    def sum(self) -> Node:
        node = self.product()
        while self.peek() in ("+", "-"):
            operator = self.next()[1]
            node = _arithmetic(operator, node, self.product())
        return node

    def product(self) -> Node:
        node = self.unary()
        while self.peek() == "*":
            self.next()
            node = _arithmetic("*", node, self.unary())
        return node

    def unary(self) -> Node:
        if self.accept("-"):
            node = self.unary()
            _need(node, "number", "-")
            if node.op == "literal" and isinstance(node.value, Decimal):
                return Node("literal", (), -node.value, "number")
            return _arithmetic("-", Node("literal", (), Decimal(0), "number"), node)
        return self.atom()

    def atom(self) -> Node:
        if self.accept("("):
            node = self.disjunction()
            self.expect(")")
            return node
        kind, text = self.next()
        maker = {"number": _number, "text": _text, "quoted": self._quoted, "day": _day, "word": self._word}.get(kind)
        if maker is None:
            raise PredicateError(f"expected a value at {text or 'the end'!r}")
        return maker(text)

    def _quoted(self, text: str) -> Node:
        return self._column(text[1:-1].replace('""', '"'))

    def _word(self, text: str) -> Node:
        upper = text.upper()
        constants = {"TRUE": ("boolean", True), "FALSE": ("boolean", False), "NULL": ("null", None)}
        if upper in constants:
            return Node("literal", (), constants[upper][1], constants[upper][0])
        if upper == "CAST":
            return self._cast()
        if upper == "DATE" and self.items[self.at][0] == "text":
            return Node("literal", (), _iso(self.next()[1][1:-1]), "date")
        if self.peek() == "(" and text not in self.kinds:
            return self._call(upper)
        return self._column(text)

    def _column(self, name: str) -> Node:
        if name not in self.kinds:
            near = did_you_mean(name, self.kinds) or f"columns: {', '.join(self.kinds)}"
            raise PredicateError(f"no column {name!r}; {near}")
        return Node("column", (), name, self.kinds[name])

    def _cast(self) -> Node:
        self.expect("(")
        inner = self.sum()
        self.expect("AS")
        self.expect("DATE")
        self.expect(")")
        if inner.op != "column" or inner.kind not in ("timestamp", "date"):
            raise PredicateError("CAST(... AS DATE) needs a timestamp column")
        return Node("local_date", (inner,), None, "date")

    def _call(self, name: str) -> Node:
        if name not in FUNCTIONS:
            raise PredicateError(f"no function {name}; {did_you_mean(name, FUNCTIONS) or ', '.join(FUNCTIONS)}")
        self.expect("(")
        args = [self.disjunction()]
        while self.accept(","):
            args.append(self.disjunction())
        self.expect(")")
        wanted, result = FUNCTIONS[name]
        if len(args) != (2 if name == "COALESCE" else 1):
            raise PredicateError(f"{name} takes {2 if name == 'COALESCE' else 1} argument(s), {len(args)} given")
        if wanted != "any":
            _need(args[0], wanted, name)
        else:
            _same(args[0], args[1], name)
        return Node(name.lower(), tuple(args), None, result or args[0].kind)


def _number(text: str) -> Node:
    return Node("literal", (), Decimal(text), "number")


def _text(text: str) -> Node:
    return Node("literal", (), text[1:-1].replace("''", "'"), "text")


def _day(_: str) -> Node:
    return Node("delivery_day", (), None, "date")


def _iso(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise PredicateError(f"{text!r} is no date (DATE 'yyyy-mm-dd')") from None


def _need(node: Node, kind: str, where: str) -> None:
    if node.kind not in (kind, "null"):
        raise PredicateError(f"{where} needs a {kind}, not a {node.kind}")


def _same(left: Node, right: Node, where: str) -> None:
    if left.kind != right.kind and "null" not in (left.kind, right.kind):
        raise PredicateError(f"{where} compares a {left.kind} with a {right.kind}; write both as one kind")


def _logic(op: str, *args: Node) -> Node:
    for arg in args:
        _need(arg, "boolean", op.upper())
    return Node(op, args)


def _compare(operator: str, left: Node, right: Node) -> Node:
    _same(left, right, operator)
    if "null" in (left.kind, right.kind):
        raise PredicateError("a comparison with NULL is never true; write IS NULL")
    if operator not in ("=", "<>") and left.kind == "boolean":
        raise PredicateError(f"{operator} does not order booleans")
    return Node("compare", (left, right), operator)


def _arithmetic(operator: str, left: Node, right: Node) -> Node:
    _need(left, "number", operator)
    _need(right, "number", operator)
    return Node("arithmetic", (left, right), operator, "number")


def parse(text: str, kinds: Mapping[str, str]) -> Node:
    """Parse and type-check an expression over columns of the given kinds. Raises PredicateError."""
    parser = _Parser(kinds, tokens(text))
    node = parser.disjunction()
    if parser.items[parser.at][0] != "end":
        raise PredicateError(f"cannot read on from {parser.items[parser.at][1]!r}")
    return node


_COUNT_WHERE = re.compile(
    r"\s*SELECT\s+COUNT\s*\(\s*(?:\*|1)\s*\)\s+FROM\s+(\$\{(?:table|object|schema)\}|\{\w+\}|[\w.\"]+)\s+WHERE\s+(.+?);?\s*",
    re.IGNORECASE | re.DOTALL,
)


def rows_counted_by(query: str) -> str | None:
    """The WHERE part of ``SELECT COUNT(*) FROM table WHERE ...``, or None for any other query."""
    match = _COUNT_WHERE.fullmatch(query)
    return match.group(2) if match else None
