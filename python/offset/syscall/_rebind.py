"""Rebound copies of pure-Python standard modules: the same code on a namespace in which some names mean something else.

`rebind(queue, namespace, proxies=["threading"])` fills `namespace`, the globals of a proxy module, with a copy of
`queue` whose functions look their names up there, and there `threading` is `offset.syscall.threading`. The original
is left as it is. What a value of the original becomes in the copy is its *twin*:

* A function of the module is cloned on the new namespace: its code, defaults, closure, annotations, attributes.
  Imports inside its body give proxies, too. A function of another module that carries one of these in its closure
  (a decorator's wrapper) is cloned around it.
* A class of the module gets a subclass, `class C(C of the module, *twins of its bases)`, in which all methods are
  clones. So an instance is one of the original, too, and `super()`, whose `__class__` cell names the original, goes on
  to the twins of the bases, as they come next in the order of resolution. A class attribute that names
  something with a twin (`response_class = HTTPResponse`) names the twin.
* A module with a proxy becomes the proxy, and what was imported by name from it, that of the proxy.
* A tuple, list, dict or set that holds something with a twin is copied with the twins in place.
* Everything else stays what it is, and is shared with the original: exceptions (`except` clauses match), enums, named
  tuples, dataclasses, protocols, what is written in C, and every object that the module made when it was imported.

Invariants:

* A value has one twin, so what was one object under two names is one object again.
* Twins of functions and classes are made before anything that may refer to them is filled in: defaults, cells, class
  attributes and containers come last.
* An instance of an original class is none of its twin.
"""

from __future__ import annotations

import builtins
import enum
import functools
import importlib
import opcode
import sys
import types
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

PROXIES: dict[str, str] = {
    name: f"offset.syscall.{name}"
    for name in (
        "_thread",
        "concurrent",
        "concurrent.futures",
        "concurrent.futures._base",
        "concurrent.futures.process",
        "concurrent.futures.thread",
        "ftplib",
        "http",
        "http.client",
        "http.server",
        "imaplib",
        "os",
        "poplib",
        "queue",
        "select",
        "selectors",
        "signal",
        "smtplib",
        "socket",
        "socketserver",
        "ssl",
        "subprocess",
        "threading",
        "time",
        "urllib",
        "urllib.request",
    )
}
"""The modules that have a proxy, and where it is."""

LIBRARIES: dict[str, str] = {"psycopg": "offset.syscall.psycopg"}
"""The libraries that have one, for those who have the library."""


class Record(NamedTuple):
    """What a proxy was made of."""

    module: types.ModuleType
    """The original."""
    values: dict[str, Any]
    """Its names and their values at that moment."""
    replaced: frozenset[str]
    """The names for which the proxy has something of its own."""


COPIED: dict[str, Record] = {}
"""The modules of which a proxy was made, for `offset.patch`."""

# What the import system and the interpreter keep in a module, and the proxy has of its own.
_OF_A_MODULE = frozenset(
    (
        "__builtins__",
        "__cached__",
        "__doc__",
        "__file__",
        "__loader__",
        "__name__",
        "__package__",
        "__path__",
        "__spec__",
    )
)

# What `type` puts into a class by itself.
_OF_A_CLASS = frozenset(
    (
        "__abstractmethods__",
        "__annotate__",
        "__annotate_func__",
        "__annotations__",
        "__annotations_cache__",
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__module__",
        "__orig_bases__",
        "__parameters__",
        "__qualname__",
        "__slots__",
        "__static_attributes__",
        "__type_params__",
        "__weakref__",
        "_abc_impl",
    )
)

# What `super` is called in functions that say `super(C, self)`.
_SUPER = "__super_of__"

_CONTAINERS = (tuple, list, dict, set, frozenset)

# Py_TPFLAGS_BASETYPE.
_CAN_BE_EXTENDED = 1 << 10
_LRU_CACHE = type(functools.lru_cache(lambda: None))


def proxy(name: str) -> types.ModuleType:
    """Import the proxy of the module `name`."""
    return importlib.import_module(PROXIES[name])


def rebind(
    original: types.ModuleType,
    namespace: dict[str, Any],
    *,
    proxies: Iterable[str] = (),
    replace: Mapping[str, Any] | None = None,
    keep: Collection[str] = (),
) -> types.ModuleType:
    """Fill `namespace`, the globals of a module, with a rebound copy of the module `original`; give that module.

    `proxies` names the modules whose proxies take their place. `replace` gives values for names of the original;
    whatever refers to the value that a name had refers to the new one. Names in `keep` keep their value. Names that
    `namespace` has already, other than those of every module, are not touched.
    """
    copy = _Copy(original, namespace)
    for name in proxies:
        copy.learn_proxy(importlib.import_module(name), proxy(name))
    replaced = dict(replace or {})
    for name, value in replaced.items():
        if name not in vars(original):
            raise AttributeError(f"{original.__name__} has no {name} to replace")
        copy.learn(vars(original)[name], value)
    for name in keep:
        copy.learn(vars(original)[name], vars(original)[name])
    copy.fill(replaced)
    if original.__name__ in PROXIES:
        COPIED[original.__name__] = Record(original, copy.values, frozenset(replaced))
    return sys.modules[namespace["__name__"]]


def method(cls: type, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a decorator that puts a function in the place of a method of a copied class; it gets the method first."""

    def put(function: Callable[..., Any]) -> Callable[..., Any]:
        before = vars(cls)[name]

        @functools.wraps(before)
        def call(*args: Any, **kwargs: Any) -> Any:
            return function(before, *args, **kwargs)

        setattr(cls, name, call)
        return function

    return put


class _Copy:
    """One copy in the making."""

    def __init__(self, original: types.ModuleType, namespace: dict[str, Any]) -> None:
        self.original = original
        self.home = vars(original)
        self.values = values(original)
        self.namespace = namespace
        # By identity of the value; the value is kept, so that its identity is not given to another.
        self.twins: dict[int, tuple[object, object]] = {}
        self.cells: dict[int, tuple[types.CellType, types.CellType]] = {}
        self.late: list[Callable[[], None]] = []

    # What is known before.

    def learn(self, value: object, twin: object) -> None:
        """Take note of a twin. Plain values have none: another name may have the same one by chance."""
        if callable(value) or isinstance(value, types.ModuleType):
            self.twins[id(value)] = (value, twin)

    def learn_proxy(self, module: types.ModuleType, proxy: types.ModuleType) -> None:
        """Take note of a module's proxy, and of what it has in place of what is in the module."""
        self.learn(module, proxy)
        for name, value in values(module).items():
            twin = vars(proxy).get(name, value)
            if twin is not value:
                self.learn(value, twin)

    # The work.

    def fill(self, replaced: Mapping[str, Any]) -> None:
        """Make the copy."""
        namespace = self.namespace
        if any(imports(code) for code in self._codes()):
            namespace["__builtins__"] = _rebound_builtins()
            namespace["__original__"] = self.original
        namespace[_SUPER] = self.make_super()
        namespace.update(replaced)
        taken = frozenset(namespace)
        for name, value in self.values.items():
            if name not in taken:
                namespace[name] = self.twin(value)
        while self.late:
            self.late.pop(0)()
        for name, value in self.values.items():
            if name not in taken:
                namespace[name] = self.contained(value)

    def _codes(self) -> Iterable[types.CodeType]:
        for value in self.values.values():
            members = vars(value).values() if isinstance(value, type) and self.is_ours(value) else [value]
            for member in list(members):
                inner = getattr(member, "__func__", getattr(member, "fget", member))
                if isinstance(inner, types.FunctionType) and inner.__globals__ is self.home:
                    yield inner.__code__

    def twin(self, value: Any) -> Any:
        """Give the twin of a value: itself if it needs none. Containers are not looked into."""
        known = self.twins.get(id(value))
        if known is not None:
            return known[1]
        made = value
        if isinstance(value, type):
            if self.is_ours(value):
                return self.make_class(value)
        elif isinstance(value, types.FunctionType):
            if self.reaches(value):
                return self.make_function(value)
        elif isinstance(value, types.MethodType):
            if isinstance(value.__self__, type) and self.twin(value.__self__) is not value.__self__:
                made = getattr(self.twin(value.__self__), value.__name__)
        else:
            made = self.make_wrapper(value)
        if made is not value:
            self.twins[id(value)] = (value, made)
        return made

    def contained(self, value: Any) -> Any:
        """Give a container with the twins of what it holds; the container itself if there are none. See `twin`."""
        if type(value) not in _CONTAINERS:
            return self.twin(value)
        known = self.twins.get(id(value))
        if known is not None:
            return known[1]
        # Until its twin is known a container that holds itself is what it was.
        self.twins[id(value)] = (value, value)
        made: Any
        if isinstance(value, dict):
            made = {self.contained(key): self.contained(item) for key, item in value.items()}
            same = all(key is twin for key, twin in zip(value, made, strict=True))
            same = same and all(item is twin for item, twin in zip(value.values(), made.values(), strict=True))
        else:
            items = [self.contained(item) for item in value]
            same = all(one is other for one, other in zip(items, value, strict=True))
            made = type(value)(items)
        if not same:
            self.twins[id(value)] = (value, made)
        return self.twins[id(value)][1]

    def make_super(self) -> Callable[..., Any]:
        """Give a `super` for those who name the class: in the copy the name means the twin, which comes before it."""

        def super_of(*args: Any) -> Any:
            if args:
                return super(originals.get(args[0], args[0]), *args[1:])
            # What the builtin does in its caller's frame.
            frame = sys._getframe(1)
            return super(frame.f_locals["__class__"], frame.f_locals[frame.f_code.co_varnames[0]])

        originals: dict[Any, Any] = {}
        self.late.append(
            lambda: originals.update({twin: value for value, twin in self.twins.values() if _extends(twin, value)})
        )
        return super_of

    # Functions.

    def reaches(self, value: Any, seen: set[int] | None = None) -> bool:
        """Tell whether a value is, or carries in its closure or as a wrapped function, something that is cloned."""
        if id(value) in self.twins:
            return self.twins[id(value)][1] is not value
        seen = set() if seen is None else seen
        if id(value) in seen:
            return False
        seen.add(id(value))
        if isinstance(value, type):
            return self.is_ours(value)
        if not isinstance(value, types.FunctionType):
            return any(self.reaches(each, seen) for each in wrapped(value) or ())
        if value.__globals__ is self.home:
            return True
        return any(self.reaches(content, seen) for name, content in _closure(value) if name != "__class__")

    def make_function(self, function: types.FunctionType) -> types.FunctionType:
        """Clone a function: on the new namespace if it is the module's own, else on its own."""
        ours = function.__globals__ is self.home
        space = self.namespace if ours else function.__globals__
        code = function.__code__
        cells = None
        if function.__closure__ is not None:
            pairs = zip(code.co_freevars, function.__closure__, strict=True)
            cells = tuple(self.make_cell(name, cell) for name, cell in pairs)
        clone = types.FunctionType(_own_code(code), space, function.__name__, function.__defaults__, cells)
        self.twins[id(function)] = (function, clone)
        clone.__qualname__ = function.__qualname__
        clone.__module__ = self.namespace["__name__"] if ours else function.__module__
        clone.__doc__ = function.__doc__
        # Now, as the class may be made by a metaclass that looks at it; its twins come later.
        clone.__dict__.update(function.__dict__)
        if hasattr(function, "__type_params__"):
            setattr(clone, "__type_params__", function.__type_params__)  # noqa: B010 - not in 3.11
        if hasattr(function, "__annotate__"):
            # Asked for only where somebody wants annotations.
            setattr(clone, "__annotate__", self.twin(function.__annotate__))  # noqa: B010 - since 3.14
        else:
            clone.__annotations__ = dict(function.__annotations__)
        self.late.append(lambda: self.finish_function(function, clone))
        return clone

    def finish_function(self, function: types.FunctionType, clone: types.FunctionType) -> None:
        """Fill in what may refer to other twins."""
        if function.__defaults__ is not None:
            clone.__defaults__ = tuple(self.contained(value) for value in function.__defaults__)
        if function.__kwdefaults__ is not None:
            clone.__kwdefaults__ = {name: self.contained(value) for name, value in function.__kwdefaults__.items()}
        clone.__dict__.update({name: self.twin(value) for name, value in function.__dict__.items()})

    def make_cell(self, name: str, cell: types.CellType) -> types.CellType:
        """Give the cell of a clone's closure: a new one if what it holds has a twin."""
        known = self.cells.get(id(cell))
        if known is not None:
            return known[1]
        made = cell
        # `super()` needs the class where the method was written; what follows it are the twins of its bases.
        if name != "__class__" and any(self.reaches(content) for content in _contents(cell)):
            made = types.CellType()

            def finish() -> None:
                made.cell_contents = self.twin(cell.cell_contents)

            self.late.append(finish)
        self.cells[id(cell)] = (cell, made)
        return made

    def make_wrapper(self, value: Any) -> Any:
        """Give the twin of an object that wraps functions in a way known here; otherwise the object itself."""
        inside = wrapped(value)
        if inside is None or not any(self.reaches(each) for each in inside):
            return value
        if isinstance(value, property):
            getter, setter, deleter = (self.twin(each) for each in inside)
            made: Any = type(value)(getter, setter, deleter, value.__doc__)
        elif isinstance(value, functools.partial):
            keywords = {name: self.twin(each) for name, each in value.keywords.items()}
            made = type(value)(self.twin(value.func), *[self.twin(each) for each in value.args], **keywords)
        elif isinstance(value, functools.partialmethod):
            made = type(value)(self.twin(value.func), *value.args, **value.keywords)
        elif isinstance(value, _LRU_CACHE):
            made = functools.lru_cache(**value.cache_parameters())(self.twin(value.__wrapped__))
        else:
            made = type(value)(self.twin(inside[0]))
        return made

    # Classes.

    def is_ours(self, cls: type) -> bool:
        """Tell whether a class is one of the module for which a subclass is made."""
        return cls.__module__ == self.original.__name__ and not (
            # os.statx_result of 3.15 is one that nobody can extend.
            not cls.__flags__ & _CAN_BE_EXTENDED
            or issubclass(cls, BaseException)
            or isinstance(cls, enum.EnumMeta)
            or issubclass(cls, tuple)
            or hasattr(cls, "__dataclass_fields__")
            or getattr(cls, "_is_protocol", False)
            or hasattr(cls, "__total__")
        )

    def make_class(self, cls: type) -> type:
        """Make the subclass that stands for a class of the module."""
        twins = [self.twin(base) for base in cls.__bases__]
        bases = [twin for base, twin in zip(cls.__bases__, twins, strict=True) if _extends(twin, base)]
        # No room of its own in an instance.
        body: dict[str, Any] = {
            "__doc__": cls.__doc__,
            "__module__": self.namespace["__name__"],
            "__qualname__": cls.__qualname__,
            "__slots__": (),
        }
        members = {name: value for name, value in vars(cls).items() if name not in _OF_A_CLASS}
        for name, value in members.items():
            if name == "__hash__" or (not isinstance(value, type) and self.reaches(value)):
                body[name] = _unbound(value, self.twin(value))
        made = type(cls)(cls.__name__, (cls, *bases), body)
        self.twins[id(cls)] = (cls, made)
        self.late.append(lambda: self.finish_class(made, members))
        return made

    def finish_class(self, made: type, members: Mapping[str, Any]) -> None:
        """Fill in the attributes that are no methods and refer to other twins."""
        for name, value in members.items():
            twin = self.contained(value)
            if twin is not value and name not in vars(made):
                setattr(made, name, _unbound(value, twin))


def values(module: types.ModuleType) -> dict[str, Any]:
    """The names of a module, besides those that every module has, and their values. Lazy imports happen now."""
    lazy = getattr(types, "LazyImportType", ())
    return {
        name: getattr(module, name) if isinstance(value, lazy) else value
        for name, value in list(vars(module).items())
        if name not in _OF_A_MODULE
    }


def _unbound(value: Any, twin: Any) -> Any:
    """Give a twin for a class to have: what stands for a function of C is not bound to an instance, as that is not."""
    if isinstance(twin, types.FunctionType) and isinstance(value, types.BuiltinFunctionType):
        return staticmethod(twin)
    return twin


def _extends(twin: object, base: object) -> bool:
    return twin is not base and isinstance(base, type) and isinstance(twin, type) and issubclass(twin, base)


def _contents(cell: types.CellType) -> list[Any]:
    """What a cell holds: one value, or none."""
    try:
        return [cell.cell_contents]
    except ValueError:
        return []


def _closure(function: types.FunctionType) -> Iterable[tuple[str, Any]]:
    """The names and values of a function's closure."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        for content in _contents(cell):
            yield name, content


def wrapped(value: Any) -> list[Any] | None:
    """The functions inside a descriptor or wrapper that can be made anew around others; None for anything else."""
    if isinstance(value, classmethod | staticmethod):
        return [value.__func__]
    if isinstance(value, property):
        return [value.fget, value.fset, value.fdel]
    if isinstance(value, functools.cached_property | functools.partialmethod):
        return [value.func]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, _LRU_CACHE):
        return [value.__wrapped__]
    return None


def _own_code(code: types.CodeType) -> types.CodeType:
    """Copy a code object: the interpreter keeps in it what it has learnt about the globals, which are others here."""
    constants = tuple(_own_code(each) if isinstance(each, types.CodeType) else each for each in code.co_consts)
    names = code.co_names
    if _names_super(code):
        names = tuple(_SUPER if name == "super" else name for name in names)
    return code.replace(co_consts=constants, co_names=names)


def _names_super(code: types.CodeType) -> bool:
    """Tell whether code says `super(C, self)`, and not only `super()`."""
    if "super" in code.co_names:
        import dis

        named = False
        for step in dis.get_instructions(code):
            if step.opname in ("CACHE", "PRECALL", "PUSH_NULL", "EXTENDED_ARG"):
                continue
            if named and not (step.opname == "CALL" and step.arg == 0) and step.argval != "__class__":
                return True
            named = step.opname.startswith("LOAD_") and step.argval == "super"
    return False


# Imports inside functions.

_IMPORT_NAME = opcode.opmap["IMPORT_NAME"]


def imports(code: types.CodeType) -> bool:
    """Tell whether code may import a module that has a proxy."""
    if _IMPORT_NAME in code.co_code[::2] and any(name in PROXIES for name in code.co_names):
        return True
    return any(imports(each) for each in code.co_consts if isinstance(each, types.CodeType))


@functools.cache
def _rebound_builtins() -> dict[str, Any]:
    # A copy, so that only the copied modules' code imports in this way. Their namespaces share it.
    return {**vars(builtins), "__import__": _import}


def _import(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> types.ModuleType:
    """Import as the statement in a copied module does: what has a proxy gives it."""
    if level and globals is not None:
        # Relative to the package of the original.
        globals = vars(globals["__original__"])
    module = builtins.__import__(name, globals, locals, fromlist or (), level)
    # So that `import a.b`, which gives the proxy of a, finds the proxy of b in it; so does `from a import b`.
    for each in (name, *(f"{module.__name__}.{part}" for part in fromlist or ())):
        if each in PROXIES:
            proxy(each)
    return proxy(module.__name__) if module.__name__ in PROXIES else module
