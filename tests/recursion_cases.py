"""Ways to recurse deeply in CPython, in Python code, through C and in C alone, as a table of functions.

As a program it runs the cases named by its arguments, each in a goroutine of its own with the name of the
case, and prints "begin NAME", "end NAME OUTCOME" for each: OUTCOME is "result" or the name of an exception.
With `--plain` each runs on the main thread instead, and offset is not imported: that shows what CPython does
by itself.

Invariants:

* A case's name is "KIND: WORDS"; the kind says with which others it is run in one process.
* A case takes no time to speak of, leaves nothing behind, and depends on no other case.
* `DEPTH` is far beyond what any stack of a goroutine holds; data is that deep, calls have no end but where
  CPython would not end them.
"""

import array
import asyncio
import bisect
import codecs
import collections
import contextlib
import contextvars
import copy
import csv
import ctypes
import dataclasses
import enum
import functools
import gc
import heapq
import io
import itertools
import json
import math
import operator
import os
import pickle
import pprint
import re
import sqlite3
import string
import sys
import threading
import traceback
import types
import warnings
import weakref
import xml.etree.ElementTree

DEPTH = 100_000

CASES = {}


def case(name):
    """Enter a function into the table."""

    def enter(function):
        assert name not in CASES, name
        CASES[name] = function
        return function

    return enter


# ---- calls without end -----------------------------------------------------------------------

# A special method that does to its object what the expression does, and so is called by it again.
SPECIAL_METHODS = {
    "__abs__": abs,
    "__add__": lambda x: x + 1,
    "__radd__": lambda x: 1 + x,
    "__iadd__": lambda x: operator.iadd(x, 1),
    "__and__": lambda x: x & 1,
    "__bool__": bool,
    "__bytes__": bytes,
    "__call__": lambda x: x(),
    "__complex__": complex,
    "__contains__": lambda x: 1 in x,
    "__copy__": copy.copy,
    "__delattr__": lambda x: delattr(x, "attribute"),
    "__delitem__": lambda x: operator.delitem(x, 0),
    "__dir__": dir,
    "__divmod__": lambda x: divmod(x, 1),
    "__enter__": lambda x: contextlib.ExitStack().enter_context(x),
    "__eq__": lambda x: x == 1,
    "__float__": float,
    "__format__": lambda x: f"{x:>10}",
    "__fspath__": os.fspath,
    "__ge__": lambda x: x >= 1,
    "__getattr__": lambda x: x.attribute,
    "__getattribute__": lambda x: x.attribute,
    "__getitem__": lambda x: x[0],
    "__hash__": hash,
    "__index__": operator.index,
    "__int__": int,
    "__invert__": operator.invert,
    "__iter__": iter,
    "__len__": len,
    "__length_hint__": operator.length_hint,
    "__lt__": lambda x: x < 1,
    "__matmul__": lambda x: x @ 1,
    "__ne__": lambda x: x != 1,
    "__neg__": operator.neg,
    "__next__": next,
    "__or__": lambda x: x | 1,
    "__pow__": lambda x: x**1,
    "__reduce__": pickle.dumps,
    "__repr__": repr,
    "__reversed__": reversed,
    "__round__": round,
    "__setattr__": lambda x: setattr(x, "attribute", 1),
    "__setitem__": lambda x: operator.setitem(x, 0, 1),
    "__str__": str,
    "__truediv__": lambda x: x / 1,
    "__trunc__": math.trunc,
}


def special_method(name, expression):
    def recurse():
        def method(self, *args):
            return expression(self)

        thing = type("Thing", (), {name: method, "__exit__": lambda *args: None})()
        expression(thing)

    return recurse


for _name, _expression in SPECIAL_METHODS.items():
    case(f"method: {_name}")(special_method(_name, _expression))


@case("call: a function")
def _():
    def f():
        return f()

    f()


@case("call: keywords and stars")
def _():
    # With an end: CPython 3.15 does not count such calls against the recursion limit.
    depth = itertools.count()

    def f(*args, **kwargs):
        return f(*args, **kwargs) if next(depth) < DEPTH else args

    f(1, key="value")


@case("call: a method of a class")
def _():
    class Thing:
        @classmethod
        def f(cls):
            return cls().g()

        def g(self):
            return type(self).h()

        @staticmethod
        def h():
            return Thing.f()

    Thing.f()


@case("call: a list of comprehensions")
def _():
    def f():
        return [f() for _ in (1,)]

    f()


@case("call: generator expressions")
def _():
    def f():
        return next(f() for _ in (1,))

    f()


@case("call: yield from")
def _():
    def f():
        yield from f()

    next(f())


@case("call: await")
def _():
    async def f():
        await f()

    f().send(None)


@case("call: async for")
def _():
    async def f():
        async for _ in f():
            yield

    f().__anext__().send(None)


@case("call: async with")
def _():
    class Thing:
        async def __aenter__(self):
            async with Thing():
                pass

        async def __aexit__(self, *args):
            return None

    Thing().__aenter__().send(None)


@case("call: tasks of asyncio")
def _():
    async def f(n=0):
        return await asyncio.ensure_future(f(n + 1)) if n < 3000 else n

    asyncio.run(f())


@case("call: a property")
def _():
    Thing = type("Thing", (), {"f": property(lambda self: self.f)})
    Thing().f


@case("call: a descriptor")
def _():
    class Descriptor:
        def __get__(self, instance, owner):
            return owner.attribute

        def __set__(self, instance, value):
            instance.attribute = value

    Thing = type("Thing", (), {"attribute": Descriptor()})
    try:
        Thing().attribute
    finally:
        Thing().attribute = 1


@case("call: an object that is its own __call__")
def _():
    class Thing:
        pass

    Thing.__call__ = Thing()
    Thing()()


@case("call: constructors")
def _():
    class Thing:
        def __init__(self):
            self.next = Thing()

    Thing()


@case("call: __new__")
def _():
    class Thing:
        def __new__(cls):
            return cls()

    Thing()


@case("call: a metaclass")
def _():
    class Meta(type):
        def __call__(cls):
            return cls()

    Meta("Thing", (), {})()


@case("call: attributes of a metaclass")
def _():
    class Meta(type):
        def __getattr__(cls, name):
            return getattr(cls, name)

    Meta("Thing", (), {}).missing


@case("call: class creation")
def _():
    class Base:
        def __init_subclass__(cls):
            type("Derived", (cls,), {})

    type("Derived", (Base,), {})


@case("call: __set_name__")
def _():
    class Named:
        def __set_name__(self, owner, name):
            type("Other", (), {name: self})

    type("Owner", (), {"name": Named()})


@case("call: __prepare__")
def _():
    class Meta(type):
        @classmethod
        def __prepare__(cls, name, bases):
            return types.prepare_class(name, (), {"metaclass": cls})[2]

    types.new_class("Thing", (), {"metaclass": Meta})


@case("call: __mro_entries__")
def _():
    class Base:
        def __mro_entries__(self, bases):
            return types.resolve_bases((self,))

    types.resolve_bases((Base(),))


@case("call: __class_getitem__")
def _():
    class Thing:
        def __class_getitem__(cls, item):
            return cls[item]

    Thing[int]


@case("call: __instancecheck__")
def _():
    class Meta(type):
        def __instancecheck__(cls, instance):
            return isinstance(instance, cls)

    isinstance(1, Meta("Thing", (), {}))


@case("call: __subclasscheck__")
def _():
    class Meta(type):
        def __subclasscheck__(cls, other):
            return issubclass(other, cls)

    issubclass(int, Meta("Thing", (), {}))


@case("call: __class__ as a property")
def _():
    Thing = type("Thing", (), {"__class__": property(lambda self: isinstance(self, int))})
    isinstance(Thing(), int)


@case("call: __bases__ as a property")
def _():
    Thing = type("Thing", (), {"__bases__": property(lambda self: (type(self)(), type(self)()))})
    issubclass(Thing(), int)


@case("call: __missing__")
def _():
    class Thing(dict):
        def __missing__(self, key):
            return self[key]

    Thing()["key"]


@case("call: a default factory")
def _():
    thing = collections.defaultdict(lambda: thing["key"])
    thing["key"]


@case("call: decorators and context managers")
def _():
    @contextlib.contextmanager
    def f():
        with f():
            yield

    with f():
        pass


@case("call: exit functions")
def _():
    class Thing:
        def __enter__(self):
            return self

        def __exit__(self, *args):
            with self:
                pass

    with Thing():
        pass


@case("call: exec")
def _():
    namespace = {}
    namespace["code"] = compile("exec(code)", "case", "exec")
    exec(namespace["code"], namespace)


@case("call: eval of source")
def _():
    namespace = {}
    namespace["source"] = "eval(source)"
    eval("eval(source)", namespace)


@case("call: super")
def _():
    class Base:
        def f(self):
            return self.f()

    class Derived(Base):
        def f(self):
            return super().f()

    Derived().f()


@case("call: finally blocks")
def _():
    def f():
        try:
            f()
        finally:
            0

    f()


@case("call: except blocks")
def _():
    def f(n):
        try:
            raise ValueError
        except ValueError:
            f(n + 1)

    f(0)


@case("call: match")
def _():
    class Thing:
        __match_args__ = ("x",)

        @property
        def x(self):
            match self:
                case Thing(_):
                    return 1

    Thing().x


@case("call: a finalizer")
def _():
    class Thing:
        def __del__(self):
            nonlocal count
            count += 1
            if count < DEPTH:
                Thing()

    count = 0
    with silence():
        Thing()


@case("call: a weak reference's callback")
def _():
    class Thing:
        pass

    def callback(reference):
        nonlocal count
        count += 1
        if count < DEPTH:
            other = Thing()
            kept.append(weakref.ref(other, callback))

    count, kept = 0, []
    with silence():
        thing = Thing()
        kept.append(weakref.ref(thing, callback))
        del thing
    kept.clear()


@contextlib.contextmanager
def silence():
    """No report of exceptions that finalizers raise; there may be thousands."""
    previous, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    try:
        yield
    finally:
        sys.unraisablehook = previous


# ---- calls without end, through functions of C -----------------------------------------------

# What calls its argument, a function of any arguments, from C.
CALLERS = {
    "sorted with a key": lambda f: sorted((1, 2), key=f),
    "list.sort with a key": lambda f: [1, 2].sort(key=f),
    "sorted with a comparison": lambda f: sorted((1, 2), key=functools.cmp_to_key(f)),
    "min with a key": lambda f: min((1, 2), key=f),
    "max with a key": lambda f: max((1, 2), key=f),
    "map": lambda f: list(map(f, (1,))),
    "filter": lambda f: list(filter(f, (1,))),
    "reduce": lambda f: functools.reduce(f, (1, 2)),
    "partial": lambda f: functools.partial(f, 1)(),
    "lru_cache": lambda f: functools.lru_cache(None)(f)(),
    "cached_property": lambda f: cached(f),
    "singledispatch": lambda f: functools.singledispatch(f)(1),
    "wraps": lambda f: functools.wraps(f)(lambda: f())(),
    "iter with a sentinel": lambda f: next(iter(f, None)),
    "itertools.starmap": lambda f: list(itertools.starmap(f, [()])),
    "itertools.takewhile": lambda f: list(itertools.takewhile(f, (1,))),
    "itertools.dropwhile": lambda f: list(itertools.dropwhile(f, (1,))),
    "itertools.filterfalse": lambda f: list(itertools.filterfalse(f, (1,))),
    "itertools.groupby": lambda f: list(itertools.groupby((1,), f)),
    "itertools.accumulate": lambda f: list(itertools.accumulate((1, 2), f)),
    "zip of a generator": lambda f: list(zip(lazily(f))),
    "enumerate of a generator": lambda f: list(enumerate(lazily(f))),
    "any": lambda f: any(lazily(f)),
    "sum": lambda f: sum(lazily(f)),
    "str.join": lambda f: "".join(lazily(f)),
    "tuple of a generator": lambda f: tuple(lazily(f)),
    "dict of a generator": lambda f: dict(lazily(f)),
    "set of a generator": lambda f: set(lazily(f)),
    "bytes of a generator": lambda f: bytes(lazily(f)),
    "array of a generator": lambda f: array.array("i", lazily(f)),
    "deque of a generator": lambda f: collections.deque(lazily(f)),
    "list.extend": lambda f: [].extend(lazily(f)),
    "unpacking": lambda f: [*lazily(f)],
    "csv.writer": lambda f: csv.writer(io.StringIO()).writerows(lazily(f)),
    "re.sub": lambda f: re.sub("a", f, "a"),
    "json.dumps with a default": lambda f: json.dumps(object(), default=f),
    "json.loads with a hook": lambda f: json.loads("{}", object_hook=f),
    "pickle with a reducer": lambda f: pickle.dumps(reduced_by(f)),
    "an error handler of codecs": lambda f: encoded_with(f),
    "bisect with a key": lambda f: bisect.bisect([1], 1, key=f),
    "heapq.nsmallest": lambda f: heapq.nsmallest(1, (1, 2), key=f),
    "operator.methodcaller": lambda f: operator.methodcaller("f")(types.SimpleNamespace(f=f)),
    "Context.run": lambda f: contextvars.copy_context().run(f),
    "a function of sqlite3": lambda f: called_by_sqlite(f),
    "a callback of ctypes": lambda f: ctypes.CFUNCTYPE(ctypes.c_int)(f)(),
    "a tracing function": lambda f: traced_by(f),
    "xml.etree with a target": lambda f: xml.etree.ElementTree.XMLParser(target=target(f)).feed("<a/>"),
    "a warning shown": lambda f: warned(f),
    "print to a file": lambda f: print("x", file=types.SimpleNamespace(write=f)),
    "string.Template": lambda f: string.Template("$x").substitute(Lookup(f)),
    "str.format_map": lambda f: "{x}".format_map(Lookup(f)),
    "percent": lambda f: "%(x)s" % Lookup(f),
    "eval with a mapping": lambda f: eval("x", {}, Lookup(f)),
    "str.translate": lambda f: "x".translate(Lookup(f)),
    "a class statement": lambda f: types.new_class("Thing", (), {}, f),
    "an enumeration's _missing_": lambda f: missing_member(f),
    "a dataclass": lambda f: repr(dataclasses.make_dataclass("Thing", ["x"])(Shown(f))),
    "a named tuple": lambda f: repr(collections.namedtuple("Thing", "x")(Shown(f))),
    "a buffered file": lambda f: io.BufferedReader(raw_file(f), 1).read(1),
    "gc.callbacks": lambda f: collected(f),
    "threading.local": lambda f: local_with(f),
    "repr of a list": lambda f: repr([Shown(f)]),
    "repr of a dict": lambda f: repr({1: Shown(f)}),
    "pprint": lambda f: pprint.pformat([Shown(f)]),
    "an attribute of a module": lambda f: module_attribute(f),
    "a trace of an exception": lambda f: formatted(f),
}


def lazily(f):
    yield f()


def cached(f):
    Thing = type("Thing", (), {})
    Thing.attribute = functools.cached_property(f)
    Thing.attribute.__set_name__(Thing, "attribute")
    return Thing().attribute


class Lookup(dict):
    def __init__(self, f):
        self.f = f

    def __missing__(self, key):
        return self.f()


class Shown:
    def __init__(self, f):
        self.f = f

    def __repr__(self):
        return self.f() or ""


def reduced_by(f):
    return type("Thing", (), {"__reduce_ex__": lambda self, protocol: f()})()


def encoded_with(f):
    codecs.register_error("offset.recursion", f)
    return "\u20ac".encode("ascii", "offset.recursion")


def called_by_sqlite(f):
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.create_function("f", 0, f)
        return connection.execute("select f()").fetchone()


def traced_by(f):
    previous = sys.gettrace()
    sys.settrace(lambda *args: f())
    try:
        return lazily(int)
    finally:
        sys.settrace(previous)


def target(f):
    return types.SimpleNamespace(start=f, end=lambda *args: None, data=lambda *args: None)


def warned(f):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = f
        warnings.warn("x", stacklevel=1)


def missing_member(f):
    class Members(enum.Enum):
        A = 1

        @classmethod
        def _missing_(cls, value):
            return f()

    return Members(2)


def raw_file(f):
    class Raw(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            return f() or 0

    return Raw()


def collected(f):
    def callback(phase, info):
        return f()

    gc.callbacks.append(callback)
    try:
        with silence():
            gc.collect(0)
    finally:
        gc.callbacks.remove(callback)


def local_with(f):
    class Local(threading.local):
        def __init__(self):
            f()

    return Local()


def module_attribute(f):
    module = types.ModuleType("module")
    module.__getattr__ = lambda name: f()
    return module.missing


def formatted(f):
    class Error(Exception):
        def __str__(self):
            return f() or ""

    return traceback.format_exception_only(Error())


def without_end(caller):
    def recurse():
        # As a main thread would: a function that is called again by what it calls.
        def f(*args, **kwargs):
            return caller(f)

        f()

    return recurse


for _name, _caller in CALLERS.items():
    case(f"through C: {_name}")(without_end(_caller))


# ---- the program -----------------------------------------------------------------------------


def outcome(function):
    """What a call ends with: "result" or the name of an exception's class."""
    try:
        function()
    except Exception as error:
        return type(error).__name__
    return "result"


def afterwards():
    """Show that the stack and the budget of recursion are whole again."""

    def down(depth):
        return depth and 1 + down(depth - 1)

    assert down(400) == 400
    assert repr([[[[]]]]) == "[[[[]]]]"
    assert compile("((((1))))", "case", "eval")


def main(arguments):
    """Run the cases named by the arguments."""
    plainly = "--plain" in arguments
    names = [name for name in arguments if name != "--plain"]

    def run_all(run):
        for name in names:
            print("begin", name, flush=True)
            outcomes = []
            run(lambda name=name, outcomes=outcomes: outcomes.append(outcome(CASES[name])), name)
            run(afterwards, "afterwards")
            print("end", name, *outcomes, flush=True)

    if plainly:
        run_all(lambda function, name: function())
        return
    import offset

    def run_in_goroutine(function, name):
        goroutine = offset.go(function)
        goroutine.name = name
        goroutine.join()

    offset.run(run_all, run_in_goroutine)


if __name__ == "__main__":
    # The table belongs to the module, which recursion_data fills.
    import recursion_cases
    import recursion_data  # noqa: F401

    recursion_cases.main(sys.argv[1:])
