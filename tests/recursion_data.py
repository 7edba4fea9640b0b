"""More cases for `recursion_cases.py`: deep data, deep source text, deep input of parsers, large numbers.

Invariants: those of `recursion_cases.py`, whose table is filled here. What is deep is made by a loop, and is
given up in the goroutine of the case, so that its deallocation is part of the case.
"""

import ast
import collections
import configparser
import copy
import dataclasses
import decimal
import email
import fractions
import functools
import html.parser
import io
import itertools
import json
import marshal
import math
import operator
import pickle
import pprint
import re
import sqlite3
import symtable
import sys
import tokenize
import types
import typing
import weakref
import xml.dom.minidom
import xml.etree.ElementTree

from recursion_cases import DEPTH, case


def nested(wrap, thing=None, depth=DEPTH):
    """Wrap a thing again and again."""
    for _ in range(depth):
        thing = wrap(thing)
    return thing


def enter(kind, table):
    """Enter functions by name."""
    for name, function in table.items():
        case(f"{kind}: {name}")(function)


class Node:
    """A link of a chain through an attribute."""

    def __init__(self, following):
        self.following = following


class Slotted:
    """A link of a chain through a slot."""

    __slots__ = ("following",)

    def __init__(self, following):
        self.following = following


@dataclasses.dataclass
class Record:
    """A link of a chain with generated methods."""

    following: object


Pair = collections.namedtuple("Pair", "following")


def in_deque(thing):
    return collections.deque((thing,))


def in_dict(thing):
    return {"key": thing}


def in_list(thing):
    return [thing]


def in_tuple(thing):
    return (thing,)


def in_ordered(thing):
    return collections.OrderedDict(key=thing)


def in_element(thing):
    element = xml.etree.ElementTree.Element("a")
    if thing is not None:
        element.append(thing)
    return element


def in_generator(thing):
    def generate(inner):
        yield inner

    generator = generate(thing)
    next(generator)
    return generator


def in_closure(thing):
    def closure():
        return thing

    return closure


def in_exception(thing):
    error = ValueError()
    error.__context__ = thing
    return error


def in_traceback(thing):
    return types.TracebackType(thing, sys._getframe(), 0, 1)


def in_namespace(thing):
    return types.SimpleNamespace(following=thing)


# ---- data that is given up -------------------------------------------------------------------

enter(
    "dealloc",
    {
        "list": lambda: nested(in_list),
        "tuple": lambda: nested(in_tuple),
        "dict": lambda: nested(in_dict),
        "set": lambda: nested(lambda thing: {Node(thing)}),
        "deque": lambda: nested(in_deque),
        "OrderedDict": lambda: nested(in_ordered),
        "objects": lambda: nested(Node),
        "slots": lambda: nested(Slotted),
        "named tuples": lambda: nested(Pair),
        "generators": lambda: nested(in_generator),
        "closures": lambda: nested(in_closure),
        "methods": lambda: nested(lambda thing: types.MethodType(print, thing), 1),
        "partials": lambda: nested(lambda thing: functools.partial(print, thing)),
        "exceptions": lambda: nested(in_exception),
        "tracebacks": lambda: nested(in_traceback),
        "namespaces": lambda: nested(in_namespace),
        "elements": lambda: nested(in_element),
        "cells": lambda: nested(types.CellType),
        "slices": lambda: nested(lambda thing: slice(thing)),
        "mapping proxies": lambda: nested(lambda thing: types.MappingProxyType({"key": thing})),
        "properties": lambda: nested(lambda thing: property(None, None, None, thing)),
        "static methods": lambda: nested(lambda thing: staticmethod(thing), print, 500),
        "generic aliases": lambda: nested(lambda thing: list[thing], int),
        "iterators": lambda: nested(lambda thing: iter([thing])),
        "map": lambda: nested(lambda thing: map(int, thing), ()),
        "filter": lambda: nested(lambda thing: filter(None, thing), ()),
        "zip": lambda: nested(lambda thing: zip(thing), ()),
        "enumerate": lambda: nested(enumerate, ()),
        "itertools.chain": lambda: nested(itertools.chain, ()),
        "itertools.islice": lambda: nested(lambda thing: itertools.islice(thing, 1), ()),
        "itertools.cycle": lambda: nested(itertools.cycle, ()),
        "weak references' callbacks": lambda: nested(lambda thing: weakref.ref(print, functools.partial(print, thing))),
    },
)

# ---- operations on deep data -----------------------------------------------------------------


def twice(wrap):
    return nested(wrap), nested(wrap)


def cyclic():
    chain = nested(in_list)
    chain.append(chain)
    import gc

    del chain
    gc.collect()


enter(
    "data",
    {
        "repr of lists": lambda: repr(nested(in_list)),
        "repr of tuples": lambda: repr(nested(in_tuple)),
        "repr of dicts": lambda: repr(nested(in_dict)),
        "repr of deques": lambda: repr(nested(in_deque)),
        "repr of OrderedDicts": lambda: repr(nested(in_ordered)),
        "repr of records": lambda: repr(nested(Record)),
        "repr of named tuples": lambda: repr(nested(Pair)),
        "repr of namespaces": lambda: repr(nested(in_namespace)),
        "repr of partials": lambda: repr(nested(lambda thing: functools.partial(print, thing))),
        "repr of slices": lambda: repr(nested(lambda thing: slice(thing))),
        "repr of generic aliases": lambda: repr(nested(lambda thing: list[thing], int, 3000)),
        "str of exceptions": lambda: str(nested(ValueError)),
        "format of lists": lambda: f"{nested(in_list)!s:>10}",
        "pprint of lists": lambda: pprint.pformat(nested(in_list)),
        "equality of lists": lambda: operator.eq(*twice(in_list)),
        "equality of tuples": lambda: operator.eq(*twice(in_tuple)),
        "equality of dicts": lambda: operator.eq(*twice(in_dict)),
        "equality of deques": lambda: operator.eq(*twice(in_deque)),
        "equality of OrderedDicts": lambda: operator.eq(*twice(in_ordered)),
        "equality of records": lambda: operator.eq(*twice(Record)),
        "order of lists": lambda: operator.lt(*twice(in_list)),
        "order of tuples": lambda: sorted(twice(in_tuple)),
        "membership": lambda: nested(in_list) in [nested(in_list)],
        "index": lambda: [nested(in_tuple)].index(nested(in_tuple)),
        "hash of tuples": lambda: hash(nested(in_tuple)),
        "hash of generic aliases": lambda: hash(nested(lambda thing: list[thing], int)),
        "hash of frozen sets": lambda: hash(nested(lambda thing: frozenset((thing,)))),
        "copy.copy": lambda: copy.copy(nested(in_list)),
        "deepcopy of lists": lambda: copy.deepcopy(nested(in_list)),
        "deepcopy of objects": lambda: copy.deepcopy(nested(Node)),
        "deepcopy of elements": lambda: copy.deepcopy(nested(in_element)),
        "pickle of lists": lambda: pickle.dumps(nested(in_list)),
        "pickle of objects": lambda: pickle.dumps(nested(Node)),
        "pickle in Python": lambda: pickle._dumps(nested(in_list)),
        "marshal of lists": lambda: marshal.dumps(nested(in_list)),
        "json of lists": lambda: json.dumps(nested(in_list)),
        "json of dicts": lambda: json.dumps(nested(in_dict)),
        "json with an indent": lambda: json.dumps(nested(in_list), indent=1),
        "dataclasses.asdict": lambda: dataclasses.asdict(nested(Record)),
        "isinstance of nested tuples": lambda: isinstance(1, nested(in_tuple, str)),
        "issubclass of nested tuples": lambda: issubclass(int, nested(in_tuple, str)),
        "str.startswith of nested tuples": lambda: "x".startswith(nested(in_tuple, "x")),
        "except of nested tuples": lambda: exception_of(nested(in_tuple, OSError)),
        "garbage collection": cyclic,
        "next of map": lambda: next(nested(lambda thing: map(int, thing), iter("1"))),
        "next of filter": lambda: next(nested(lambda thing: filter(None, thing), iter("1"))),
        "next of zip": lambda: next(nested(zip, iter("1"))),
        "next of enumerate": lambda: next(nested(enumerate, iter("1"))),
        "next of itertools.chain": lambda: next(nested(itertools.chain, iter("1"))),
        "next of itertools.islice": lambda: next(nested(lambda thing: itertools.islice(thing, 1), iter("1"))),
        "next of generators": lambda: next(nested(lambda thing: (value for value in thing), iter("1"))),
        "calls of partials": lambda: nested(lambda thing: functools.partial(lambda f: f(), thing), int)(),
        "calls of closures": lambda: nested(lambda thing: lambda: thing(), int)(),
        "class hierarchy": lambda: nested(lambda base: type("Thing", (base,), {}), object, 700)(),
        "mro of a wide class": lambda: type("Thing", tuple(type(f"T{n}", (), {}) for n in range(500)), {})(),
        "subclasses of an abstract class": lambda: abstract_chain(),
        "union of types": lambda: nested(lambda thing: list[thing] | None, int, 300),
        "Element.itertext": lambda: "".join(nested(in_element).itertext()),
        "Element.iter": lambda: sum(1 for _ in nested(in_element).iter()),
        "ElementTree.tostring": lambda: xml.etree.ElementTree.tostring(nested(in_element)),
        "ElementTree.indent": lambda: xml.etree.ElementTree.indent(nested(in_element)),
        "mapping proxies": lambda: nested(types.MappingProxyType, {"key": 1}, 5000)["key"],
        "ChainMap": lambda: nested(collections.ChainMap, {"key": 1})["key"],
        "functools.reduce": lambda: functools.reduce(lambda f, g: lambda: f(), [int] * DEPTH)(),
        "operator chain": lambda: nested(lambda thing: (*thing, thing), (), 15),
        "weakref proxies": lambda: proxies(),
        "bound methods": lambda: nested(lambda thing: types.MethodType(lambda f: f, thing), int)(),
        "exception chain, formatted": lambda: format_chain(nested(in_exception)),
        "exception groups": lambda: str(nested(lambda error: ExceptionGroup("group", [error]), ValueError(), 5000)),
        "split of exception groups": lambda: nested(lambda error: ExceptionGroup("group", [error]), ValueError()).split(
            OSError
        ),
    },
)


def exception_of(types_of_errors):
    try:
        raise ValueError
    except types_of_errors:
        pass


def abstract_chain():
    import abc

    base = abc.ABCMeta("Base", (), {})
    last = nested(lambda thing: abc.ABCMeta("Thing", (thing,), {}), base, 250)
    return isinstance(1, base), issubclass(last, base)


def proxies():
    things = [Node(None)]
    for _ in range(DEPTH // 10):
        things.append(Node(weakref.proxy(things[-1])))
    return str(things[-1].following), things.clear()


def format_chain(error):
    import traceback

    return "".join(traceback.format_exception(error))


# ---- source text -----------------------------------------------------------------------------


def source(text, mode="exec"):
    return lambda: compile(text, "case", mode)


def indented(line, depth):
    return "".join("  " * n + line + "\n" for n in range(depth)) + "  " * depth + "pass\n"


MANY = 5000

enter(
    "compile",
    {
        "parentheses": source("(" * MANY + "1" + ")" * MANY),
        "190 parentheses": source("(" * 190 + "1" + ")" * 190),
        "lists": source("[" * MANY + "]" * MANY),
        "190 lists": source("[" * 190 + "]" * 190),
        "dicts": source("{1:" * 190 + "1" + "}" * 190),
        "sets": source("{" * 190 + "1" + "}" * 190),
        "tuples": source("(" * 90 + "1" + ",)" * 90),
        "calls": source("f(" * 190 + ")" * 190),
        "calls of calls": source("f" + "()" * DEPTH),
        "attributes": source("a" + ".a" * DEPTH),
        "subscripts": source("a" + "[0]" * DEPTH),
        "subscripts inside": source("a[" * 190 + "0" + "]" * 190),
        "methods": source("a" + ".a()" * MANY),
        "unary minus": source("-" * DEPTH + "1"),
        "not": source("not " * DEPTH + "1"),
        "sums": source("+".join(["a"] * DEPTH)),
        "sums of constants": source("+".join(["1"] * DEPTH)),
        "powers": source("**".join(["a"] * MANY)),
        "strings": source("'a' " * DEPTH),
        "comparisons": source("<".join(["a"] * DEPTH)),
        "and": source(" and ".join(["a"] * DEPTH)),
        "and, or": source(" and a or ".join(["a"] * MANY)),
        "conditional expressions": source("a if a else " * MANY + "a"),
        "conditional expressions inside": source("(" * 190 + "a" + " if a else a)" * 190),
        "lambda": source("lambda: " * MANY + "1"),
        "await": source("async def f():\n  await " + "await " * 50 + "a"),
        "walrus": source("(" + "(a := " * 90 + "1" + ")" * 90 + ")"),
        "stars": source("[" + "*[" * 90 + "]" * 91),
        "comprehensions": source("[" * 15 + "a" + " for a in b]" * 15),
        "comprehension clauses": source("[a " + "for a in b " * 500 + "]"),
        "generator expressions": source("f(" * 15 + "a" + " for a in b)" * 15),
        "f-strings": source("f'" + "{a}" * MANY + "'"),
        "nested f-strings": source("f'{f\"{f'''{a}'''}\"}'"),
        "if": source(indented("if a:", 99)),
        "for": source(indented("for a in b:", 19)),
        "while": source(indented("while a:", 19)),
        "with": source(indented("with a:", 19)),
        "with items": source("with " + ", ".join(["a"] * 300) + ":\n  pass"),
        "try": source("".join("  " * n + "try:\n" for n in range(19)) + "  " * 19 + "pass\n"),
        "functions": source(indented("def f():", 99)),
        "classes": source(indented("class C:", 99)),
        "elif": source("if a: pass\n" + "elif a: pass\n" * 2000),
        "else if": source(
            "if a:\n pass\n" + "".join(" " * n + "else:\n" + " " * (n + 1) + "if a: pass\n" for n in range(90))
        ),
        "match": source("match a:\n  case " + "[" * 90 + "]" * 90 + ": pass"),
        "match alternatives": source("match a:\n  case " + " | ".join(["1"] * MANY) + ": pass"),
        "decorators": source("@a\n" * MANY + "def f(): pass"),
        "import": source("import " + ".".join(["a"] * MANY)),
        "annotations": source("a: " + "b[" * 190 + "c" + "]" * 190),
        "assignments": source("a = " * MANY + "1"),
        "assignment targets": source("(" * 190 + "a" + ",)" * 190 + " = b"),
        "slices": source("a[" + ":".join(["b"] * 3) + "]" + "[:]" * MANY),
        "statements": source("a = 1\n" * MANY),
        "yield": source("def f():\n  yield " + "(yield " * 180 + ")" * 180),
        "bytes": source("b'a' " * DEPTH),
        "a large tuple": source("(" + "1," * DEPTH + ")"),
        "del": source("del " + "(" * 190 + "a" + ",)" * 190),
        "a syntax error": source("(" * 180 + "1 +" + ")" * 180),
        "ast.parse": lambda: ast.parse("-" * DEPTH + "1"),
        "ast.literal_eval": lambda: ast.literal_eval("-" * 50_000 + "1"),
        "ast.literal_eval of brackets": lambda: ast.literal_eval("[" * 190 + "]" * 190),
        "a tree made by hand": lambda: compile(deep_tree(), "case", "eval"),
        "ast.dump": lambda: ast.dump(deep_tree()),
        "ast.unparse": lambda: ast.unparse(deep_tree()),
        "ast.walk": lambda: sum(1 for _ in ast.walk(deep_tree())),
        "ast.NodeVisitor": lambda: ast.NodeVisitor().visit(deep_tree()),
        "ast.fix_missing_locations": lambda: ast.fix_missing_locations(deep_tree()),
        "copy of a tree": lambda: copy.deepcopy(deep_tree()),
        "symtable": lambda: symtable.symtable(indented("def f():", 99), "case", "exec"),
        "symtable of sums": lambda: symtable.symtable("+".join(["a"] * DEPTH), "case", "exec"),
        "eval": lambda: eval("+".join(["1"] * 3000)),
        "tokenize": lambda: sum(1 for _ in tokenize.generate_tokens(io.StringIO("(" * 50 + ")" * 50).readline)),
        "nested code": lambda: marshal.dumps(compile(indented("def f():", 99), "case", "exec")),
    },
)


def deep_tree():
    position = {"lineno": 1, "col_offset": 0, "end_lineno": 1, "end_col_offset": 0}
    tree = ast.Constant(1, **position)
    for _ in range(MANY):
        tree = ast.UnaryOp(ast.USub(), tree, **position)
    return ast.Expression(tree)


# ---- input of parsers, large numbers ---------------------------------------------------------


def minidom():
    return xml.dom.minidom.parseString("<a>" * 3000 + "</a>" * 3000).toxml()


def interpolation():
    parser = configparser.ConfigParser()
    parser.read_string("[s]\n" + "".join(f"k{n} = %(k{n + 1})s\n" for n in range(200)) + "k200 = end\n")
    return parser.get("s", "k0")


def mail():
    text = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(1500))
    return len(email.message_from_string(text).as_string())


def forward_reference():
    text = "list[" * 90 + "int" + "]" * 90
    function = types.FunctionType((lambda: None).__code__, {})
    function.__annotations__ = {"a": text}
    return typing.get_type_hints(function)


def database(expression):
    connection = sqlite3.connect(":memory:")
    try:
        return connection.execute(f"select {expression}").fetchone()
    finally:
        connection.close()


def big_decimal(power):
    with decimal.localcontext() as context:
        context.prec = 200_000
        number = decimal.Decimal(7) ** power
        return number * number


enter(
    "parse",
    {
        "json.loads of lists": lambda: json.loads("[" * DEPTH + "]" * DEPTH),
        "json.loads of objects": lambda: json.loads('{"a":' * DEPTH + "1" + "}" * DEPTH),
        "json.loads in Python": lambda: json.JSONDecoder(object_pairs_hook=list).decode("[" * DEPTH + "]" * DEPTH),
        "pickle.loads": lambda: pickle.loads(b"\x80\x02]" + b"\x85" * DEPTH + b"."),
        "marshal.loads of tuples": lambda: marshal.loads(b"(\x01\x00\x00\x00" * 1990 + b"N"),
        "marshal.loads of small tuples": lambda: marshal.loads(b")\x01" * DEPTH + b"N"),
        "ElementTree": lambda: xml.etree.ElementTree.fromstring("<a>" * DEPTH + "</a>" * DEPTH),
        "minidom": minidom,
        "html.parser": lambda: html.parser.HTMLParser().feed("<a>" * MANY),
        "regular expressions": lambda: re.compile("(" * MANY + ")" * MANY),
        "nested regular expressions": lambda: re.compile("(?:a|" * 150 + ")" * 150).match("a"),
        "matching": lambda: re.match("(?:ab|c)*d", "ab" * DEPTH),
        "matching lazily": lambda: re.match("(?:a|b)*?c", "ab" * DEPTH + "c"),
        "str.format": lambda: ("{0" + "[0]" * MANY + "}").format(nested(in_list, 1, MANY)),
        "str.format, nested": lambda: ("{:" * MANY + "}" * MANY).format(*range(MANY)),
        "percent": lambda: operator.mod("%(a" + "(" * MANY + ")" * MANY + ")s", {}),
        "configparser": interpolation,
        "email": mail,
        "type hints": forward_reference,
        "sqlite3": lambda: database("(" * 900 + "1" + ")" * 900),
        "sqlite3, sums": lambda: database("+".join(["1"] * 900)),
        "int of text": lambda: int("7" * 4000),
        "fractions": lambda: sum(fractions.Fraction(1, n) for n in range(1, 300)),
    },
)

enter(
    "number",
    {
        "Decimal multiplication": lambda: big_decimal(200_000),
        "Decimal of medium size": lambda: big_decimal(20_000),
        "Decimal square root": lambda: decimal.Context(prec=20_000).sqrt(decimal.Decimal(2)),
        "Decimal division": lambda: decimal.Context(prec=50_000).divide(decimal.Decimal(1), decimal.Decimal(7)),
        "Decimal logarithm": lambda: decimal.Context(prec=1500).ln(decimal.Decimal(7)),
        "Decimal to text": lambda: str(big_decimal(50_000)),
        "int multiplication": lambda: (7**100_000) * (11**100_000),
        "int power": lambda: pow(7, 50_001, 10**500 + 7),
        "int division": lambda: 7**60_000 // 11**20_000,
        "int square root": lambda: math.isqrt(7**20_000),
        "factorial": lambda: math.factorial(5000),
        "combinations": lambda: math.comb(10_000, 5_000),
        "greatest common divisor": lambda: math.gcd(7**10_000 * 3, 7**9_000 * 5),
        "float of a large int": lambda: float(7**1000),
        "int as bytes": lambda: int.from_bytes((7**100_000).to_bytes(40_000, "big"), "big"),
    },
)
