"""`offset.syscall._rebind`: a copy of a module on another namespace, and what in it is a copy and what is not."""

import functools
import importlib
import inspect
import pickle
import sys
import textwrap
import types

import pytest
from offset.syscall import _rebind
from offset.syscall import queue as queue_proxy
from offset.syscall import threading as threading_proxy
from offset.syscall.concurrent import futures as futures_proxy
from offset.syscall.concurrent.futures import process as process_proxy

ORIGINAL = '''
"""A module of every shape."""
import abc, collections, dataclasses, enum, functools, itertools, types, typing
import threading
import threading as alias
from threading import Event as Flag, Lock
from queue import Queue

CONSTANT = 12345
_count = itertools.count().__next__
state = {}
SENTINEL = object()


def helper():
    return "the original's"


def calls_helper(n=1, *, flag=None):
    """Call it."""
    return helper(), n, flag


calls_helper.mark = helper


def counter():
    global total
    total += 1
    return total


total = 0


def makes_threading():
    return threading, alias, Flag, Lock, Queue


def imports_threading():
    import threading as local
    from threading import Event
    import concurrent.futures
    import queue, json
    from concurrent.futures import process

    def deeper():
        import threading

        return threading

    return local, Event, queue, json, deeper(), concurrent.futures, process


def with_default(factory=threading.Event, *, other=helper, table=(helper, 1)):
    return factory, other, table


def decorate(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        return "decorated", function(*args, **kwargs)

    return call


@decorate
def decorated():
    return helper()


@functools.lru_cache(maxsize=7)
def cached():
    return helper()


partial = functools.partial(calls_helper, 5, flag=helper)


def recursive():
    def down(n):
        return helper() if n == 0 else down(n - 1)

    return down


recursion = recursive()


def shared():
    value = [0]

    def add(n):
        value[0] += n
        return value[0], helper()

    return add


add = shared()


class Base:
    """The base."""

    shared_attribute = []

    def __init__(self, value=0):
        self.value = value

    def who(self):
        return [f"base {helper()}"]

    @classmethod
    def make(cls):
        return cls(helper())

    @staticmethod
    def static():
        return helper()

    @property
    def prop(self):
        """A property."""
        return helper(), self.value

    @prop.setter
    def prop(self, value):
        self.value = (helper(), value)

    @functools.cached_property
    def cached(self):
        return helper()

    alias_of_who = who
    bound = functools.partialmethod(lambda self, n: (helper(), n), 3)


class Derived(Base):
    kind = None

    def who(self):
        return [f"derived {helper()}", *super().who(), *super(Derived, self).who()]

    def cell(self):
        return __class__

    class Inner:
        def who(self):
            return helper()


class Other(Base):
    partner = Derived
    table = {"derived": Derived, "helper": helper, 1: [Derived, None]}
    borrowed = Derived.who

    def who(self):
        return ["other", *super().who()]


class Diamond(Derived, Other):
    def who(self):
        return ["diamond", *super().who()]


class Slotted:
    __slots__ = ("a",)

    def __init__(self):
        self.a = helper()


class Equal:
    def __eq__(self, other):
        return helper() == "the copy's"

    def __hash__(self):
        return 7


class Unhashable:
    def __eq__(self, other):
        return True


class Abstract(abc.ABC):
    @abc.abstractmethod
    def must(self): ...

    def may(self):
        return helper()


class Concrete(Abstract):
    def must(self):
        return helper(), self.may()


class Meta(type):
    def __call__(cls, *args):
        made = super().__call__(*args)
        made.by = helper()
        return made


class Made(metaclass=Meta):
    pass


class Error(Exception):
    def text(self):
        return helper()


class Colour(enum.Enum):
    RED = 1


Point = collections.namedtuple("Point", "x y")


class Pair(typing.NamedTuple):
    x: int


@dataclasses.dataclass
class Data:
    x: int = 1


class Shape(typing.Protocol):
    def area(self) -> int: ...


class Thread(threading.Thread):
    def run(self):
        self.seen = threading, threading.current_thread()


instance = Base("made by the original")
made_by_class_method = Base.make
dispatch = {"helper": helper, "base": Base, "plain": 1}
registry = {"plain": instance}
classes = [Base, (Derived, [Other])]
cyclic = []
cyclic.append(cyclic)


def __getattr__(name):
    if name == "dynamic":
        return helper()
    raise AttributeError(name)
'''


def replacement():
    return "the copy's"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    directory = tmp_path_factory.mktemp("rebind")
    (directory / "every_shape.py").write_text(textwrap.dedent(ORIGINAL))
    sys.path.insert(0, str(directory))
    try:
        yield importlib.import_module("every_shape")
    finally:
        sys.path.remove(str(directory))
        del sys.modules["every_shape"]


@pytest.fixture(scope="module")
def copy(original):
    module = types.ModuleType("every_shape_copy")
    sys.modules["every_shape_copy"] = module
    try:
        made = _rebind.rebind(original, vars(module), proxies=["threading", "queue"], replace={"helper": replacement})
        assert made is module
        yield module
    finally:
        del sys.modules["every_shape_copy"]


# ---- functions -------------------------------------------------------------------------------


def test_a_function_looks_names_up_in_the_copy(original, copy):
    assert copy.helper is replacement
    assert copy.calls_helper() == ("the copy's", 1, None)
    assert original.calls_helper() == ("the original's", 1, None)
    assert copy.calls_helper.mark is replacement


def test_a_clone_is_described_as_the_original(original, copy):
    clone, function = copy.calls_helper, original.calls_helper
    assert clone is not function
    assert clone.__globals__ is vars(copy)
    assert clone.__code__ == function.__code__
    # What the interpreter learns about the globals is kept in the code.
    assert clone.__code__ is not function.__code__
    assert inspect.signature(clone) == inspect.signature(function)
    assert (clone.__name__, clone.__qualname__, clone.__doc__) == ("calls_helper", "calls_helper", "Call it.")
    assert clone.__module__ == "every_shape_copy"
    assert pickle.loads(pickle.dumps(clone)) is clone


def test_globals_that_are_written_are_the_copys(original, copy):
    before = original.total
    assert [copy.counter() for _ in range(3)] == [1, 2, 3]
    assert (original.total, copy.total) == (before, 3)


def test_modules_and_names_from_them_are_proxies(copy):
    assert copy.makes_threading() == (
        threading_proxy,
        threading_proxy,
        threading_proxy.Event,
        threading_proxy.Lock,
        queue_proxy.Queue,
    )
    assert copy.threading is copy.alias is threading_proxy


def test_imports_inside_functions_give_proxies(original, copy):
    import concurrent.futures.process
    import json
    import queue
    import threading

    assert copy.imports_threading() == (
        threading_proxy,
        threading_proxy.Event,
        queue_proxy,
        json,
        threading_proxy,
        futures_proxy,
        process_proxy,
    )
    assert original.imports_threading() == (
        threading,
        threading.Event,
        queue,
        json,
        threading,
        concurrent.futures,
        concurrent.futures.process,
    )


def test_defaults_are_twins(original, copy):
    assert copy.with_default() == (threading_proxy.Event, replacement, (replacement, 1))
    assert original.with_default()[1] is original.helper


def test_a_decorated_function_is_cloned_inside_its_wrapper(original, copy):
    assert copy.decorated() == ("decorated", "the copy's")
    assert original.decorated() == ("decorated", "the original's")
    assert copy.decorated.__wrapped__() == "the copy's"
    assert copy.decorated.__wrapped__ is inspect.getclosurevars(copy.decorated).nonlocals["function"]


def test_caches_and_partials_are_made_anew(original, copy):
    assert (copy.cached(), original.cached()) == ("the copy's", "the original's")
    assert copy.cached.cache_info().maxsize == 7
    assert copy.partial() == ("the copy's", 5, replacement)
    assert isinstance(copy.partial, functools.partial)


def test_closures(original, copy):
    assert copy.recursion(5) == "the copy's"
    assert original.recursion(5) == "the original's"
    # What a closure holds and nobody replaces is shared.
    first, text = original.add(1)
    assert copy.add(1) == (first + 1, "the copy's")
    assert text == "the original's"


def test_the_modules_getattr(original, copy):
    assert (copy.dynamic, original.dynamic) == ("the copy's", "the original's")
    with pytest.raises(AttributeError):
        copy.nothing


# ---- classes ---------------------------------------------------------------------------------


def test_a_class_is_a_subclass_of_the_original(original, copy):
    for name in ("Base", "Derived", "Other", "Diamond", "Slotted", "Equal", "Concrete", "Made"):
        cls, source = getattr(copy, name), getattr(original, name)
        assert cls is not source
        assert issubclass(cls, source)
        assert (cls.__name__, cls.__qualname__, cls.__doc__) == (name, name, source.__doc__)
        assert cls.__module__ == "every_shape_copy"
    assert issubclass(copy.Diamond, copy.Other)
    assert not isinstance(original.Base(), copy.Base)


def test_methods_of_every_kind(original, copy):
    base = copy.Base()
    assert base.who() == base.alias_of_who() == ["base the copy's"]
    assert vars(copy.Base)["who"] is vars(copy.Base)["alias_of_who"]
    assert base.static() == base.cached == "the copy's"
    assert base.bound() == ("the copy's", 3)
    made = copy.Base.make()
    assert type(made) is copy.Base
    assert made.prop == ("the copy's", "the copy's")
    made.prop = 5
    assert made.value == ("the copy's", 5)
    assert copy.Base.prop.__doc__ == "A property."
    assert original.Base().prop == ("the original's", 0)
    assert copy.made_by_class_method().value == "the copy's"
    assert type(copy.made_by_class_method()) is copy.Base


def test_super_finds_the_twins_of_the_bases(original, copy):
    assert copy.Derived().who() == ["derived the copy's", "base the copy's", "base the copy's"]
    diamond = ["diamond", "derived the copy's", "other", "base the copy's", "other", "base the copy's"]
    assert copy.Diamond().who() == diamond
    assert original.Diamond().who() == [text.replace("copy", "original") for text in diamond]
    assert copy.Derived().cell() is original.Derived

    class Mine(copy.Derived):
        def who(self):
            return ["mine", *super().who()]

    assert Mine().who() == ["mine", "derived the copy's", "base the copy's", "base the copy's"]


def test_class_attributes_name_twins(original, copy):
    assert copy.Other.partner is copy.Derived
    assert copy.Other.table == {"derived": copy.Derived, "helper": replacement, 1: [copy.Derived, None]}
    assert copy.Other.borrowed is copy.Derived.who
    assert original.Other.partner is original.Derived
    assert copy.Derived.Inner().who() == "the copy's"
    assert issubclass(copy.Derived.Inner, original.Derived.Inner)
    # What has no twin in it is the same object.
    assert copy.Base.shared_attribute is original.Base.shared_attribute


def test_instances_have_no_more_room_than_the_originals(original, copy):
    assert copy.Slotted().a == "the copy's"
    assert not hasattr(copy.Slotted(), "__dict__")
    assert sys.getsizeof(copy.Slotted()) == sys.getsizeof(original.Slotted())


def test_equality_and_hash_go_together(copy):
    assert copy.Equal() == 1
    assert hash(copy.Equal()) == 7
    with pytest.raises(TypeError):
        hash(copy.Unhashable())


def test_abstract_classes_and_metaclasses(original, copy):
    with pytest.raises(TypeError):
        copy.Abstract()
    assert copy.Concrete().must() == ("the copy's", "the copy's")
    assert copy.Made().by == "the copy's" or copy.Made().by == "the original's"
    assert type(copy.Made) is original.Meta


def test_a_class_over_a_proxied_one(original, copy):
    assert copy.Thread.__mro__[:4] == (
        copy.Thread,
        original.Thread,
        threading_proxy.Thread,
        threading_proxy.Thread.__mro__[1],
    )
    thread = copy.Thread()
    thread.start()
    thread.join()
    assert thread.seen == (threading_proxy, thread)


# ---- what is kept ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("CONSTANT", "SENTINEL", "state", "instance", "registry", "cyclic", "_count", "collections"),
        *("Error", "Colour", "Point", "Pair", "Data", "Shape"),
    ],
)
def test_what_is_shared(original, copy, name):
    assert getattr(copy, name) is getattr(original, name)


def test_containers_of_twins_are_copied(original, copy):
    assert copy.dispatch == {"helper": replacement, "base": copy.Base, "plain": 1}
    assert copy.classes == [copy.Base, (copy.Derived, [copy.Other])]
    assert original.dispatch["base"] is original.Base
    assert original.classes[1][0] is original.Derived


def test_names_that_are_there_are_not_touched(original):
    module = types.ModuleType("another_copy")
    sys.modules["another_copy"] = module
    try:
        module.calls_helper = module.CONSTANT = "mine"
        _rebind.rebind(original, vars(module), keep=["helper", "Base"])
        assert (module.calls_helper, module.CONSTANT) == ("mine", "mine")
        assert module.helper is original.helper
        assert module.Base is original.Base
        assert module.Derived.__mro__[:3] == (module.Derived, original.Derived, original.Base)
        assert module.__name__ == "another_copy"
        assert module.__doc__ is None
        with pytest.raises(AttributeError, match="nothing"):
            _rebind.rebind(original, vars(module), replace={"nothing": 1})
    finally:
        del sys.modules["another_copy"]


def test_annotations(tmp_path, monkeypatch):
    (tmp_path / "annotated.py").write_text(
        "class Base:\n    x: int = 1\n    def method(self, other: 'Base') -> int: return other\n"
        "def function(a: int, *b: str, c: Base = None) -> Base: return c\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    original = importlib.import_module("annotated")
    module = types.ModuleType("annotated_copy")
    monkeypatch.setitem(sys.modules, "annotated_copy", module)
    _rebind.rebind(original, vars(module))
    assert set(module.function.__annotations__) == {"a", "b", "c", "return"}
    assert module.function.__annotations__["a"] is int
    assert module.Base.method.__annotations__ == {"other": "Base", "return": int}
    del sys.modules["annotated"]


def test_every_proxy_is_there_and_has_the_names_of_the_original():
    for name in _rebind.PROXIES:
        original, proxy = importlib.import_module(name), _rebind.proxy(name)
        public = getattr(original, "__all__", [each for each in vars(original) if not each.startswith("_")])
        missing = [each for each in public if not hasattr(proxy, each)]
        assert not missing, name
        assert set(getattr(original, "__all__", [])) <= set(getattr(proxy, "__all__", [])), name


def test_exceptions_are_the_originals():
    for name in _rebind.PROXIES:
        original, proxy = importlib.import_module(name), _rebind.proxy(name)
        for each, value in vars(original).items():
            if isinstance(value, type) and issubclass(value, BaseException):
                assert getattr(proxy, each) is value, each


def test_classes_of_proxies_are_subclasses_of_the_originals():
    """Where the original is a class that can be subclassed; some that are made in C cannot."""
    own = ("Lock", "LockType", "RLock", "epoll", "lock")
    for name in _rebind.PROXIES:
        original, proxy = importlib.import_module(name), _rebind.proxy(name)
        for each, value in vars(original).items():
            if isinstance(value, type) and not each.startswith("_") and each not in own:
                assert issubclass(getattr(proxy, each), value), f"{name}.{each}"
