"""The plugin of pytest, which finds it by itself where offset is installed.

    @pytest.mark.goroutine                      the test is the main goroutine of a run
    @pytest.mark.bubble                         the test is the main goroutine of a bubble (testing.bubble)
    @pytest.mark.bubble(seed=7)                 with a schedule that follows from the seed
    @pytest.mark.bubble(schedules=200)          with so many schedules (testing.explore)
    @pytest.mark.leaves_goroutines              the test is allowed to

    [tool.pytest.ini_options]
    offset_goroutines = true                    every test function is marked goroutine that is not marked bubble
    offset_leak_check = true                    a test that leaves goroutines behind fails, with their stacks

A test that is marked goroutine or bubble fails if it leaves goroutines behind. `--offset-seed N` is the seed of all
tests in bubbles; the seed of one that fails is in its report.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MARKERS = (
    "goroutine: run the test as the main goroutine of a program (offset)",
    "bubble(seed=None, schedules=1): run the test in a bubble, on a clock that jumps (offset)",
    "leaves_goroutines: the test may leave goroutines behind (offset)",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what the plugin can be told."""
    group = parser.getgroup("offset")
    group.addoption("--offset-seed", type=int, default=None, metavar="N", help="the seed of tests in bubbles")
    parser.addini("offset_goroutines", "run each test as a goroutine", type="bool", default=False)
    parser.addini("offset_leak_check", "fail tests that leave goroutines behind", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Tell of the markers."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)


# Not a wrapper of the new kind: the plugin is loaded wherever offset is installed, beside a pytest of before 8, too.
@pytest.hookimpl(hookwrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Run the test function where it is to be run."""
    place = _place(pyfuncitem)
    if place is None:
        yield
        return
    original = pyfuncitem.obj
    pyfuncitem.obj = functools.wraps(original)(functools.partial(place, original))
    try:
        yield
    finally:
        pyfuncitem.obj = original


def _place(item: pytest.Function) -> Callable[..., None] | None:
    """Give what calls a test's function; None for the ordinary way."""
    bubble = item.get_closest_marker("bubble")
    wanted = bubble is not None or item.get_closest_marker("goroutine") is not None
    if not wanted and not item.config.getini("offset_goroutines"):
        return functools.partial(_plainly, item) if item.config.getini("offset_leak_check") else None
    if inspect.iscoroutinefunction(item.obj):
        return functools.partial(_refuse, "a coroutine function cannot be run as a goroutine") if wanted else None
    if bubble is not None:
        return functools.partial(_in_bubble, item, bubble)
    return functools.partial(_as_goroutine, item)


def _refuse(why: str, *_: object, **arguments: object) -> None:
    raise pytest.UsageError(why)


def _in_bubble(item: pytest.Function, marker: pytest.Mark, function: Callable[..., object], **arguments: Any) -> None:
    from offset import testing

    known: dict[str, Any] = {**dict(zip(("seed", "schedules"), marker.args, strict=False)), **marker.kwargs}
    if set(known) - {"seed", "schedules"} or len(marker.args) > 2:
        _refuse("the marker bubble takes seed and schedules")
    seed = item.config.getoption("--offset-seed")
    if seed is None:
        seed = known.get("seed")
    schedules = known.get("schedules", 1)

    def call() -> None:
        function(**arguments)

    try:
        if schedules == 1:
            testing.bubble(call, seed)
        else:
            testing.explore(call, schedules, seed)
    except BaseException as error:
        notes = " ".join(getattr(error, "__notes__", ()))
        if seed is not None or notes:
            item.add_report_section("call", "offset", notes or f"the seed was {seed}")
        raise


def _as_goroutine(item: pytest.Function, function: Callable[..., object], **arguments: Any) -> None:
    from offset import run

    def main() -> None:
        function(**arguments)
        # Here, as the end of the run would end them.
        _check(item, set())

    run(main)


def _plainly(item: pytest.Function, function: Callable[..., object], **arguments: Any) -> None:
    from offset import runtime

    before = {goroutine.id for goroutine in runtime.goroutines()}
    function(**arguments)
    _check(item, before)


def _check(item: pytest.Function, before: set[int]) -> None:
    from offset.testing import _leaks

    if item.get_closest_marker("leaves_goroutines") is None:
        left = _leaks.remaining(before, _leaks.PATIENCE)
        if left:
            raise _leaks.LeakError(_leaks.describe(left))
