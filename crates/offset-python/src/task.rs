//! What tasks of asyncio and trio await: operations on channels, selects, the ends of goroutines.
//!
//! An `Operation` is a coroutine to whoever awaits it. It tries first; if it must wait it asks `offset.aio._tasks.park` for something to
//! await in its place, which is given by the library that runs the task, and has called `begin` by then. When that is over, so is the
//! wait, or it was a false alarm and there is another one.
//!
//! Invariants:
//! * An operation is used by one thread state at a time, whose address is in `user` meanwhile: that of its task, on the thread of its loop.
//!   Everybody else gets RuntimeError (test_an_operation_belongs_to_one_task_at_a_time). Only its end may come on another thread.
//! * An operation has happened, or it raises, never both. If its task is cancelled after a value was handed to it, the value goes back into
//!   the channel, before all others; a value that was sent stays sent, and the cancellation comes at the next await (`sent`).
//! * The tag of a post is a reference to what wakes the task, and so keeps the task, as a goroutine that waits is kept. No
//!   collector sees it: a task that only a channel knows is no garbage.

use crate::error::*;
use crate::method::*;
use crate::object::Value;
use crate::shim::{Py_DECREF, Py_XDECREF, PyErr_Clear};
use offset_runtime::chan::Wait;
use offset_runtime::error::{RecvError, SendError};
use offset_runtime::select::Selected;
use offset_runtime::task::{TaskCase, TaskWait};
use pyo3_ffi::*;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

static OPERATION: AtomicPtr<PyTypeObject> = AtomicPtr::new(null_mut());

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Recv,
    /// For `async for`.
    Next,
    Send,
    Select,
    /// The end of a goroutine.
    End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Waiting,
    Over,
}

#[repr(C)]
struct OperationObject {
    head: PyObject,
    /// The thread state that is in one of its methods, or 0. All below belongs to that one.
    user: AtomicUsize,
    kind: Kind,
    state: State,
    /// A channel, a tuple of cases, a goroutine.
    subject: Object,
    /// What is sent; else null.
    value: Object,
    /// As it was given, or null.
    timeout: Object,
    /// The mailbox of the loop, from the first `begin` on.
    mailbox: Object,
    /// What is awaited in its place while it waits.
    inner: Object,
    wait: Option<TaskWait<Value>>,
    /// `begin` found that it could be done.
    done: Option<Selected<Value>>,
}

fn it<'a>(object: Object) -> &'a mut OperationObject {
    // SAFETY: `object` is an operation, alive as the caller's argument, and used by one task.
    unsafe { &mut *object.cast::<OperationObject>() }
}

/// The use of an operation by the caller. One that a method called by another has is the other's.
struct Use<'a>(Option<&'a AtomicUsize>);

impl Use<'_> {
    /// # Safety
    /// Attached; `object` is an operation that stays alive meanwhile. If there is none an exception is set.
    unsafe fn begin(object: Object) -> Option<Use<'static>> {
        // SAFETY: by contract. The word is shared; the rest is not looked at.
        let (user, me) = unsafe { (&(*object.cast::<OperationObject>()).user, PyThreadState_Get() as usize) };
        // Acquire pairs with the Release of `drop`: what the last user has written is seen.
        if user.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            return Some(Use(Some(user)));
        }
        runtime_error("the operation is in use: it is awaited by one task, and by nobody else at the same time");
        None
    }

    /// As `begin`, for what is called in the middle of a step, too.
    ///
    /// # Safety
    /// As for `begin`.
    unsafe fn join(object: Object) -> Option<Use<'static>> {
        // SAFETY: by contract.
        unsafe {
            // Relaxed: if it is ours we have written it.
            if (*object.cast::<OperationObject>()).user.load(Ordering::Relaxed) == PyThreadState_Get() as usize {
                return Some(Use(None));
            }
            Use::begin(object)
        }
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        if let Some(user) = self.0 {
            // Pairs with the Acquire of `begin`.
            user.store(0, Ordering::Release);
        }
    }
}

/// # Safety
/// Attached; the objects are alive or null.
unsafe fn make(kind: Kind, subject: Object, value: Object, timeout: Object) -> Object {
    // SAFETY: by contract. What `wait` and `done` are, all zeroes, need not be None.
    unsafe {
        // Says at once what is wrong with it.
        if deadline(timeout).is_none() {
            return NULL;
        }
        let object = allocate::<OperationObject>(OPERATION.load(Ordering::Relaxed));
        if object.is_null() {
            return NULL;
        }
        let own = |part: Object| if part.is_null() || Py_IsNone(part) != 0 { NULL } else { Py_NewRef(part) };
        std::ptr::write(&raw mut (*object).kind, kind);
        std::ptr::write(&raw mut (*object).state, State::Fresh);
        std::ptr::write(&raw mut (*object).wait, None);
        std::ptr::write(&raw mut (*object).done, None);
        (*object).subject = Py_NewRef(subject);
        (*object).value = if value.is_null() { NULL } else { Py_NewRef(value) };
        (*object).timeout = own(timeout);
        object.cast()
    }
}

pub(crate) unsafe extern "C" fn arecv(
    object: Object,
    args: *const Object,
    count: Py_ssize_t,
    keywords: Object,
) -> Object {
    let mut out = [NULL; 1];
    // SAFETY: the calling convention.
    unsafe {
        if count + Py_ssize_t::from(!keywords.is_null()) != 0
            && !parse("arecv", args, count, keywords, &["timeout"], 0, &mut out)
        {
            return NULL;
        }
        make(Kind::Recv, object, NULL, out[0])
    }
}

pub(crate) unsafe extern "C" fn asend(
    object: Object,
    args: *const Object,
    count: Py_ssize_t,
    keywords: Object,
) -> Object {
    let mut out = [NULL; 2];
    // SAFETY: the calling convention.
    unsafe {
        if !parse("asend", args, count, keywords, &["value", "timeout"], 1, &mut out) {
            return NULL;
        }
        make(Kind::Send, object, out[0], out[1])
    }
}

/// What `async for` awaits.
pub(crate) unsafe fn anext(chan: Object) -> Object {
    // SAFETY: attached; the channel is alive.
    unsafe { make(Kind::Next, chan, NULL, NULL) }
}

unsafe extern "C" fn select_async(_: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        let Some((timeout, _)) = crate::select::arguments("select_async", args, count, keywords) else { return NULL };
        let cases = PyTuple_New(count);
        if cases.is_null() {
            return NULL;
        }
        for index in 0..count {
            PyTuple_SET_ITEM(cases, index, Py_NewRef(*args.add(index as usize)));
        }
        let operation = make(Kind::Select, cases, NULL, timeout);
        Py_DECREF(cases);
        operation
    }
}

unsafe extern "C" fn ended(_: Object, goroutine: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        if !crate::goroutine::is_handle(goroutine) {
            return type_error("ended() takes a goroutine");
        }
        make(Kind::End, goroutine, NULL, NULL)
    }
}

/// What a step came to.
enum Step {
    /// The task yields this to its loop.
    Yields(Object),
    /// The operation is over with this result.
    Returns(Object),
    /// An exception is set.
    Raises,
}

impl Step {
    fn of(result: Object) -> Step {
        if result.is_null() { Step::Raises } else { Step::Returns(result) }
    }
}

/// The cases of a select, of which the tuple keeps what is pointed to.
unsafe fn cases(object: Object) -> (*const Object, usize) {
    // SAFETY: the subject of a select is a tuple, which the operation holds.
    unsafe {
        let tuple = it(object).subject;
        ((&raw const (*tuple.cast::<PyTupleObject>()).ob_item).cast(), PyTuple_GET_SIZE(tuple) as usize)
    }
}

/// Does the operation if that is possible at once; None if it must wait.
unsafe fn attempt(object: Object) -> Option<Step> {
    let op = it(object);
    // SAFETY: attached; the subject is alive.
    unsafe {
        match op.kind {
            Kind::Recv | Kind::Next => match crate::chan::core(op.subject)?.recv(Wait::No) {
                Ok(value) => Some(Step::of(value.receive())),
                Err(RecvError::Closed) => Some(closed(object)),
                Err(_) => None,
            },
            Kind::Send => match crate::chan::core(op.subject)?.send(Value::new(op.value), Wait::No) {
                Ok(()) => Some(Step::of(none())),
                Err(SendError::Closed(_)) => Some(Step::of(sent_on_closed(&crate::chan::describe(op.subject)))),
                Err(_) => None,
            },
            Kind::Select => {
                let (args, count) = cases(object);
                crate::select::attempt(args, count).map(Step::of)
            }
            Kind::End => {
                let over = crate::goroutine::core(op.subject).ended();
                over.then(|| Step::of(none()))
            }
        }
    }
}

fn closed(object: Object) -> Step {
    if it(object).kind == Kind::Next {
        // SAFETY: a constant of the interpreter.
        unsafe { PyErr_SetNone(PyExc_StopAsyncIteration) };
        return Step::Raises;
    }
    Step::of(crate::chan::recv_error(it(object).subject, RecvError::Closed))
}

/// What a wait that is over has come to.
unsafe fn conclude(object: Object, selected: Selected<Value>) -> Step {
    let op = it(object);
    op.state = State::Over;
    // Trio ends a wait whose time is over as it ends one that is cancelled.
    let selected = if matches!(selected, Selected::Cancelled) { Selected::TimedOut } else { selected };
    // SAFETY: attached; the subject is alive.
    unsafe {
        match (op.kind, selected) {
            (Kind::Select, selected) => Step::of(crate::select::finish_async(selected, cases(object).0)),
            (Kind::End, Selected::Received(..)) | (Kind::Send, Selected::Sent(_)) => Step::of(none()),
            (Kind::Send, Selected::SendClosed(_)) => Step::of(sent_on_closed(&crate::chan::describe(op.subject))),
            (Kind::Send, _) => Step::of(timed_out(&format!("send on {}", crate::chan::describe(op.subject)))),
            (_, Selected::Received(_, Some(value))) => Step::of(value.receive()),
            (_, Selected::Received(_, None)) => closed(object),
            _ => Step::of(crate::chan::recv_error(op.subject, RecvError::TimedOut)),
        }
    }
}

/// Takes a wait back. True if that was too late for a send.
unsafe fn abandon(object: Object) -> bool {
    let op = it(object);
    op.state = State::Over;
    // SAFETY: attached; the subject is alive.
    unsafe {
        let inner = std::mem::replace(&mut op.inner, NULL);
        let selected = op.done.take().or_else(|| take_wait(object).map(TaskWait::withdraw));
        let happened = match selected {
            Some(Selected::Received(index, Some(value))) => {
                let chan = if op.kind == Kind::Select {
                    crate::select::chan_of(*cases(object).0.add(index))
                } else {
                    op.subject
                };
                match crate::chan::core(chan) {
                    Some(core) => core.put_back(value),
                    None => drop(value),
                }
                false
            }
            Some(Selected::Sent(index)) => {
                if op.kind == Kind::Select {
                    let result = crate::select::finish_async(Selected::Sent(index), cases(object).0);
                    Py_XDECREF(std::mem::replace(&mut op.value, result));
                }
                true
            }
            _ => false,
        };
        Py_XDECREF(inner);
        happened
    }
}

/// Takes the wait out, with nobody about to wake the task any more.
unsafe fn take_wait(object: Object) -> Option<TaskWait<Value>> {
    let wait = it(object).wait.take()?;
    if let Some(tag) = wait.unpost() {
        // SAFETY: attached; the reference was the post's.
        unsafe { Py_DECREF(tag as Object) };
    }
    Some(wait)
}

/// `offset.aio._tasks.NAME`, borrowed, kept for ever; null with an exception set if it cannot be had.
unsafe fn hook(place: &AtomicPtr<PyObject>, name: &std::ffi::CStr) -> Object {
    // SAFETY: attached.
    unsafe {
        let known = place.load(Ordering::Acquire);
        if !known.is_null() {
            return known;
        }
        let module = PyImport_ImportModule(c"offset.aio._tasks".as_ptr());
        if module.is_null() {
            return NULL;
        }
        let found = PyObject_GetAttrString(module, name.as_ptr());
        Py_DECREF(module);
        // Another thread may have stored the same one: it has a reference too many, for ever.
        place.store(found, Ordering::Release);
        found
    }
}

/// What `__await__` of a goroutine gives.
pub(crate) unsafe fn join(goroutine: Object) -> Object {
    // SAFETY: attached; the goroutine is alive.
    unsafe {
        let join = hook(&JOIN, c"join");
        if join.is_null() { NULL } else { PyObject_CallOneArg(join, goroutine) }
    }
}

static JOIN: AtomicPtr<PyObject> = AtomicPtr::new(null_mut());
static PARK: AtomicPtr<PyObject> = AtomicPtr::new(null_mut());
static SENT: AtomicPtr<PyObject> = AtomicPtr::new(null_mut());

/// One step: begins, or goes on with, what is awaited.
unsafe fn step(object: Object, value: Object) -> Step {
    // SAFETY: attached; the object is alive as the caller's argument.
    let Some(_use) = (unsafe { Use::begin(object) }) else { return Step::Raises };
    let op = it(object);
    // SAFETY: attached; the objects are alive.
    unsafe {
        match op.state {
            State::Over => {
                return Step::of(runtime_error("an operation is awaited twice; make another one for each await"));
            }
            State::Waiting => {
                let mut result = null_mut();
                // It is not gone before it has returned, whatever it does to the operation.
                let inner = Py_NewRef(op.inner);
                let sent = PyIter_Send(inner, value, &raw mut result);
                Py_DECREF(inner);
                match sent {
                    PySendResult::PYGEN_NEXT => return Step::Yields(result),
                    PySendResult::PYGEN_RETURN => Py_XDECREF(result),
                    PySendResult::PYGEN_ERROR => return failed(object),
                }
            }
            State::Fresh => {
                op.state = State::Over;
                if let Some(step) = attempt(object) {
                    return step;
                }
                if !op.timeout.is_null() && deadline(op.timeout) == Some(Some(0)) {
                    return conclude(object, Selected::TimedOut);
                }
                op.state = State::Waiting;
            }
        }
        go_on(object)
    }
}

/// After what was awaited has ended: gives the result, or waits once more.
unsafe fn go_on(object: Object) -> Step {
    let op = it(object);
    // SAFETY: attached; the objects are alive.
    unsafe {
        loop {
            if let Some(selected) = op.done.take() {
                return conclude(object, selected);
            }
            if op.wait.as_ref().is_some_and(TaskWait::over)
                && let Some(wait) = take_wait(object)
            {
                return conclude(object, wait.finish());
            }
            let park = hook(&PARK, c"park");
            let inner = if park.is_null() { NULL } else { PyObject_CallOneArg(park, object) };
            if inner.is_null() {
                return failed(object);
            }
            Py_XDECREF(std::mem::replace(&mut op.inner, inner));
            if Py_IsNone(inner) != 0 {
                // It is over already.
                continue;
            }
            let mut result = null_mut();
            // As in `step`.
            Py_INCREF(inner);
            let sent = PyIter_Send(inner, Py_None(), &raw mut result);
            Py_DECREF(inner);
            match sent {
                PySendResult::PYGEN_NEXT => return Step::Yields(result),
                PySendResult::PYGEN_RETURN => Py_XDECREF(result),
                PySendResult::PYGEN_ERROR => return failed(object),
            }
        }
    }
}

/// What was awaited has raised, as its task was cancelled: so does the operation, unless it has happened and cannot be taken back.
unsafe fn failed(object: Object) -> Step {
    // SAFETY: attached, with an exception set.
    unsafe {
        let raised = take_raised();
        if abandon(object) {
            let sent = hook(&SENT, c"sent");
            let answer = if sent.is_null() { NULL } else { PyObject_CallOneArg(sent, raised) };
            if answer.is_null() {
                PyErr_Clear();
            }
            let told = !answer.is_null() && PyObject_IsTrue(answer) == 1;
            Py_XDECREF(answer);
            if told {
                Py_DECREF(raised);
                let op = it(object);
                let result = if op.kind == Kind::Select { Py_NewRef(op.value) } else { none() };
                return Step::of(result);
            }
        }
        raise_object(raised);
        Py_DECREF(raised);
        Step::Raises
    }
}

/// A step as `send` and `__next__` tell it.
fn told(step: Step) -> Object {
    match step {
        Step::Yields(value) => value,
        Step::Raises => NULL,
        // SAFETY: attached; the result is ours.
        Step::Returns(result) => unsafe { raise_stop(result) },
    }
}

unsafe extern "C" fn am_send(object: Object, value: Object, result: *mut Object) -> PySendResult {
    // SAFETY: the calling convention.
    unsafe {
        let (answer, object) = match step(object, value) {
            Step::Yields(value) => (PySendResult::PYGEN_NEXT, value),
            Step::Returns(value) => (PySendResult::PYGEN_RETURN, value),
            Step::Raises => (PySendResult::PYGEN_ERROR, NULL),
        };
        *result = object;
        answer
    }
}

unsafe extern "C" fn send(object: Object, value: Object) -> Object {
    // SAFETY: the calling convention.
    told(unsafe { step(object, value) })
}

/// What an `await` calls.
unsafe extern "C" fn next(object: Object) -> Object {
    // SAFETY: the calling convention; the result is ours.
    unsafe {
        match step(object, Py_None()) {
            Step::Returns(result) => end_await(result),
            step => told(step),
        }
    }
}

unsafe extern "C" fn throw(object: Object, args: *const Object, count: Py_ssize_t, _: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        if count == 0 || count > 3 {
            return type_error("throw() takes an exception");
        }
        let Some(_use) = Use::begin(object) else { return NULL };
        let op = it(object);
        if op.state == State::Waiting && !op.inner.is_null() {
            let method = PyObject_GetAttrString(op.inner, c"throw".as_ptr());
            let answer = if method.is_null() { NULL } else { PyObject_Vectorcall(method, args, count as usize, NULL) };
            Py_XDECREF(method);
            if !answer.is_null() {
                // It goes on waiting.
                return answer;
            }
            if PyErr_ExceptionMatches(PyExc_StopIteration) != 0 {
                PyErr_Clear();
                return told(go_on(object));
            }
            return told(failed(object));
        }
        op.state = State::Over;
        let value = if count > 1 { *args.add(1) } else { NULL };
        let instance = !value.is_null() && PyObject_IsInstance(value, PyExc_BaseException) == 1;
        let raised = if instance { value } else { *args };
        let is_class = PyType_Check(raised) != 0;
        if !is_class && PyObject_IsInstance(raised, PyExc_BaseException) != 1 {
            return type_error("throw() takes an exception");
        }
        raise_object(raised)
    }
}

unsafe extern "C" fn close(object: Object, _: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        let Some(_use) = Use::begin(object) else { return NULL };
        let op = it(object);
        if op.state == State::Waiting && !op.inner.is_null() {
            let inner = Py_NewRef(op.inner);
            abandon(object);
            let answer = PyObject_CallMethodNoArgs(inner, CLOSE.load(Ordering::Relaxed));
            Py_DECREF(inner);
            if answer.is_null() {
                return NULL;
            }
            Py_DECREF(answer);
        }
        op.state = State::Over;
        none()
    }
}

/// The name of the method.
static CLOSE: AtomicPtr<PyObject> = AtomicPtr::new(null_mut());

unsafe extern "C" fn itself(object: Object) -> Object {
    // SAFETY: attached.
    unsafe { Py_NewRef(object) }
}

// What `offset.aio._tasks` calls.

unsafe extern "C" fn begin(object: Object, args: *const Object, count: Py_ssize_t, _: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        let Some(mailbox) = (if count == 2 { crate::mailbox::of(*args) } else { None }) else {
            return type_error("begin() takes a mailbox and what wakes the task");
        };
        let Some(_use) = Use::join(object) else { return NULL };
        let op = it(object);
        if op.state != State::Waiting {
            return runtime_error("begin() is called while the operation waits");
        }
        let (new_mailbox, wake) = (*args, *args.add(1));
        Py_XDECREF(std::mem::replace(&mut op.mailbox, Py_NewRef(new_mailbox)));
        if op.wait.is_none() {
            let begun = match op.kind {
                Kind::End => match TaskWait::join(crate::goroutine::core(op.subject)) {
                    Some(wait) => Err(wait),
                    None => Ok(Selected::Received(0, None)),
                },
                Kind::Select => {
                    let (args, count) = cases(object);
                    TaskWait::begin((0..count).map(|index| crate::select::task_case(*args.add(index))).collect())
                }
                kind => {
                    let case = match crate::chan::core(op.subject) {
                        None => TaskCase::Never,
                        Some(core) if kind == Kind::Send => TaskCase::Send(core.clone(), Value::new(op.value)),
                        Some(core) => TaskCase::Recv(core.clone()),
                    };
                    TaskWait::begin(vec![case])
                }
            };
            match begun {
                Ok(selected) => {
                    op.done = Some(selected);
                    return boolean(false);
                }
                Err(wait) => op.wait = Some(wait),
            }
        }
        let Some(wait) = &op.wait else { return boolean(false) };
        // What would have woken it before: the task went on by other means.
        if let Some(tag) = wait.unpost() {
            Py_DECREF(tag as Object);
        }
        match wait.post(mailbox, Py_NewRef(wake) as usize) {
            Ok(()) => boolean(!wait.over()),
            Err(tag) => {
                Py_DECREF(tag as Object);
                boolean(false)
            }
        }
    }
}

/// Ends the wait because its time is over; gives what wakes the task, to be woken by the caller, or None.
unsafe extern "C" fn expire(object: Object, _: Object) -> Object {
    // SAFETY: the calling convention.
    let Some(_use) = (unsafe { Use::join(object) }) else { return NULL };
    let expired = it(object).wait.as_ref().filter(|wait| wait.expire());
    expired.and_then(TaskWait::unpost).map_or_else(none, |tag| tag as Object)
}

/// Ends the wait because the task is cancelled; false if it is over.
unsafe extern "C" fn retract(object: Object, _: Object) -> Object {
    // SAFETY: the calling convention.
    let Some(_use) = (unsafe { Use::join(object) }) else { return NULL };
    let retracted = it(object).wait.as_ref().filter(|wait| wait.retract());
    // SAFETY: attached; the reference was the post's.
    retracted.and_then(TaskWait::unpost).into_iter().for_each(|tag| unsafe { Py_DECREF(tag as Object) });
    boolean(retracted.is_some())
}

type Closure = *mut std::ffi::c_void;

unsafe extern "C" fn get_timeout(object: Object, _: Closure) -> Object {
    let timeout = it(object).timeout;
    // SAFETY: held.
    if timeout.is_null() { none() } else { unsafe { Py_NewRef(timeout) } }
}

unsafe extern "C" fn get_waiting(object: Object, _: Closure) -> Object {
    boolean(it(object).state == State::Waiting)
}

unsafe extern "C" fn stats(object: Object, _: Object) -> Object {
    let op = it(object);
    let kind = match op.kind {
        Kind::Recv | Kind::Next => "receive",
        Kind::Send => "send",
        Kind::Select => "select",
        Kind::End => "join",
    };
    // SAFETY: attached, new references.
    unsafe { dict(&[(c"kind", string(kind)), (c"waiting", get_waiting(object, null_mut()))]) }
}

unsafe extern "C" fn repr(object: Object) -> Object {
    let op = it(object);
    // SAFETY: the subject is held.
    unsafe {
        let subject = PyObject_Repr(op.subject);
        if subject.is_null() {
            return NULL;
        }
        let what = match op.kind {
            Kind::Recv | Kind::Next => "receive from",
            Kind::Send => "send to",
            Kind::Select => "select of",
            Kind::End => "end of",
        };
        let result = string(&format!("<operation: {what} {}>", text(subject)));
        Py_DECREF(subject);
        result
    }
}

unsafe extern "C" fn traverse(object: Object, visit: visitproc, arg: *mut std::ffi::c_void) -> std::ffi::c_int {
    let op = it(object);
    // SAFETY: `object` is an operation; the collector's calling convention.
    unsafe {
        for child in [op.subject, op.value, op.timeout, op.mailbox, op.inner, Py_TYPE(object).cast()] {
            if !child.is_null() {
                let answer = visit(child, arg);
                if answer != 0 {
                    return answer;
                }
            }
        }
        0
    }
}

unsafe extern "C" fn clear(object: Object) -> std::ffi::c_int {
    // SAFETY: `object` is an operation that nobody awaits; each field is emptied before its reference goes. The subject is needed to
    // take the wait back, and goes last.
    unsafe {
        abandon(object);
        let op = it(object);
        for field in [&raw mut op.value, &raw mut op.timeout, &raw mut op.inner] {
            Py_XDECREF(std::ptr::replace(field, NULL));
        }
        0
    }
}

unsafe extern "C" fn dealloc(object: Object) {
    // SAFETY: the last reference is gone. Nothing here replaces an exception that is set.
    unsafe {
        PyObject_GC_UnTrack(object.cast());
        let op = it(object);
        if op.state == State::Waiting {
            let raised = take_raised();
            abandon(object);
            if !raised.is_null() {
                raise_object(raised);
                Py_DECREF(raised);
            }
        }
        for part in [op.value, op.timeout, op.inner, op.mailbox, op.subject] {
            Py_XDECREF(part);
        }
        free(object);
    }
}

pub(crate) fn functions() -> Vec<PyMethodDef> {
    vec![
        fast(
            c"select_async",
            select_async,
            c"select_async(*cases, timeout=None)\n\nselect() to be awaited in asyncio or trio.",
        ),
        one_arg(c"ended", ended, c"ended(goroutine)\n\nThe end of a goroutine, to be awaited in asyncio or trio."),
    ]
}

/// Adds the type to the module.
pub(crate) unsafe fn register(module: Object) -> bool {
    let closed_type = u64::from(Py_TPFLAGS_DISALLOW_INSTANTIATION as u32);
    let operation = TypeSpec {
        name: c"offset._runtime.Operation",
        doc: c"What a task of asyncio or trio awaits: an operation on a channel, a select, the end of a goroutine.",
        size: size_of::<OperationObject>(),
        flags: closed_type | u64::from(Py_TPFLAGS_HAVE_GC as u32),
        methods: vec![
            class_getitem(),
            one_arg(c"send", send, c"send(value)\n\nGo on, as a coroutine does."),
            fast(c"throw", throw, c"throw(exception)\n\nRaise an exception where it waits, as in a coroutine."),
            no_args(c"close", close, c"close()\n\nTake it back, if it has not happened."),
            fast(c"begin", begin, c"begin(mailbox, wake) -> bool\n\nWait, and have `wake` put into the mailbox; False if there is no need."),
            no_args(c"expire", expire, c"expire()\n\nEnd the wait because its time is over; gives what wakes the task, to be woken by the caller, or None."),
            no_args(c"retract", retract, c"retract() -> bool\n\nEnd the wait because the task is cancelled; False if it is over."),
            no_args(c"stats", stats, c"stats() -> dict\n\nWhat it does, and whether it waits."),
        ],
        getters: vec![
            getter(c"timeout", get_timeout, c"As it was given, or None."),
            getter(c"waiting", get_waiting, c"Whether it waits."),
        ],
        slots: vec![
            slot!(Py_am_await, itself),
            slot!(Py_am_send, am_send),
            slot!(Py_tp_iter, itself),
            slot!(Py_tp_iternext, next),
            slot!(Py_tp_repr, repr),
            slot!(Py_tp_dealloc, dealloc),
            slot!(Py_tp_traverse, traverse),
            slot!(Py_tp_clear, clear),
        ],
    };
    // SAFETY: the slots fit the objects; attached.
    unsafe {
        OPERATION.store(new_type(module, operation), Ordering::Relaxed);
        CLOSE.store(PyUnicode_InternFromString(c"close".as_ptr()), Ordering::Relaxed);
    }
    !OPERATION.load(Ordering::Relaxed).is_null()
}
