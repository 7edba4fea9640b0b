//! The functions of the C shim: `shim/shim.h` says more about each.
//!
//! "Attached" means that the calling OS thread has an attached thread state (and the GIL, on builds that have one). Functions that
//! may take the GIL, or run Python, are `C-unwind`: on 3.11-3.13 an exiting interpreter unwinds the thread that waits for it.
//! That unwinding ends in a frame of the shim, and the thread stays there.

use pyo3_ffi::{Py_ssize_t, PyCodeObject, PyInterpreterState, PyObject, PyThreadState, visitproc};
use std::ffi::{c_char, c_int, c_ulong, c_void};

/// How many values are on the stack of a frame of a code object at an instruction.
pub(crate) type Depth = unsafe extern "C" fn(*mut PyCodeObject, c_int, *mut c_void) -> c_int;

unsafe extern "C" {
    /// The dealloc of channels: lets the collector go, and calls `offset_chan_release`, not too deeply nested.
    ///
    /// # Safety
    /// As a tp_dealloc.
    pub(crate) fn offset_chan_dealloc(chan: *mut PyObject);

    /// Looks up what the other functions need, and compares the running interpreter with the headers. Null, or why it cannot
    /// be served.
    ///
    /// # Safety
    /// Attached; once a process, before every other function.
    pub(crate) fn offset_setup() -> *const c_char;

    /// An address inside the interpreter's code.
    #[cfg(target_os = "linux")]
    pub(crate) safe fn offset_interpreter_address() -> usize;

    /// Makes the next attach of `context` on this OS thread name it in the thread's slot of the PyGILState functions.
    ///
    /// # Safety
    /// `context` is detached and nobody else attaches it.
    pub(crate) fn offset_bind_thread(context: *mut PyThreadState);

    /// Empties this OS thread's slot, without a look at the state that it names.
    ///
    /// # Safety
    /// Nothing is attached on this thread, and the state that the slot named is bound anew before it is attached here again.
    pub(crate) fn offset_unbind_thread();

    /// Makes the counters, flags and ids of a finished context those of a new thread.
    ///
    /// # Safety
    /// After [`offset_context_finish`], detached, by the only one who has the context.
    pub(crate) fn offset_context_reset(context: *mut PyThreadState);

    /// Gives a new thread state `chunk` for its first Python frames.
    ///
    /// # Safety
    /// Detached, by the only one who has the state. The chunk is the state's until it is cut; it is aligned to words and begins no page.
    pub(crate) fn offset_context_place(context: *mut PyThreadState, chunk: *mut c_void, chunk_size: usize);

    /// Takes the chunk `root` out of the context's list, so that CPython does not free it.
    ///
    /// # Safety
    /// The context has no Python frame left, or will never run again; nobody else uses it.
    pub(crate) fn offset_context_cut(context: *mut PyThreadState, root: *mut c_void);

    /// Makes `state` the one that settles the counts of this OS thread's objects that other threads drop.
    ///
    /// # Safety
    /// Attached as `state`.
    pub(crate) fn offset_refcounts_first(state: *mut PyThreadState);

    /// What [`offset_refcounts_owed`] is to be asked with about this OS thread; 0 if there is nothing to ask.
    pub(crate) safe fn offset_refcounts_account() -> usize;

    /// Whether others have dropped objects of the thread of `account`, so that their counts are to be settled there.
    ///
    /// # Safety
    /// No state of that thread is deleted, and no other one becomes its first, since it has asked for the account.
    pub(crate) fn offset_refcounts_owed(account: usize) -> c_int;

    /// Forgets which state that is: this OS thread's states are about to be deleted.
    pub(crate) safe fn offset_refcounts_leave();

    /// Gives each state its own index into the copies of bytecode back.
    ///
    /// # Safety
    /// In a forked child, before the interpreter deletes states and before chunks are cut; `context` is the one that goes on, null
    /// if that is no goroutine's, and `machine` the state of its machine.
    pub(crate) fn offset_bytecode_child(context: *mut PyThreadState, machine: *mut PyThreadState);

    /// The deletion of `context` does not look through the memory that others have left.
    ///
    /// # Safety
    /// Attached; `context` is deleted next, on this thread.
    pub(crate) fn offset_memory_apart(context: *mut PyThreadState);

    /// Attached, before contexts are deleted: what those before them have left is free to go.
    pub(crate) safe fn offset_memory_settle();

    /// Takes a pending asynchronous exception, which the caller has to drop; null if there is none.
    ///
    /// # Safety
    /// Attached as `context`.
    pub(crate) fn offset_take_async_exc(context: *mut PyThreadState) -> *mut PyObject;

    /// Whether there is one.
    ///
    /// # Safety
    /// Attached; `context` is alive.
    pub(crate) fn offset_has_async_exc(context: *mut PyThreadState) -> c_int;

    /// The number of thread states of the interpreter.
    ///
    /// # Safety
    /// Attached.
    pub(crate) fn offset_count_threads(interpreter: *mut PyInterpreterState) -> Py_ssize_t;

    /// The identity of the thread of `state`.
    ///
    /// # Safety
    /// `state` is alive.
    pub(crate) fn offset_thread_identity(state: *mut PyThreadState) -> c_ulong;

    /// The identity of the goroutine that runs on this OS thread from now on; 0 for none.
    pub(crate) safe fn offset_set_identity(identity: usize);

    /// Makes the interpreter see the identity instead of the OS thread's. The number of import slots that were redirected; 0 where it
    /// is impossible.
    ///
    /// # Safety
    /// After [`offset_setup`], and by one thread at a time.
    pub(crate) fn offset_identity_install() -> c_int;

    /// Names the directory of the package, whose code starts goroutines in the name of who calls it.
    ///
    /// # Safety
    /// Attached; `size` bytes are there.
    pub(crate) fn offset_package_set(directory: *const c_char, size: usize);

    /// A new reference to the code that calls us, outside of the package, and the offset of its instruction; null without one.
    ///
    /// # Safety
    /// Attached.
    pub(crate) fn offset_caller(instruction: *mut c_int) -> *mut PyCodeObject;

    /// The qualified name of a Python function or method, a new reference; null of anything else.
    ///
    /// # Safety
    /// Attached; `callable` is alive.
    pub(crate) fn offset_function_name(callable: *mut PyObject) -> *mut PyObject;

    /// The flags of the code of a Python function or method, 0 of anything else.
    ///
    /// # Safety
    /// Attached; `callable` is alive.
    pub(crate) fn offset_function_flags(callable: *mut PyObject) -> c_int;

    /// Shows the counted references of a parked thread's frames and state.
    ///
    /// # Safety
    /// Attached, and nobody else runs; the thread of `state` is parked; `visit` and `depth` run nothing.
    pub(crate) fn offset_thread_visit(state: *mut PyThreadState, depth: Depth, visit: visitproc, argument: *mut c_void);

    /// Shows the counted references of an object that the collector could know.
    ///
    /// # Safety
    /// As above; the object's type has `Py_TPFLAGS_HAVE_GC`.
    pub(crate) fn offset_object_visit(object: *mut PyObject, visit: visitproc, argument: *mut c_void);

    /// How many references to an object are counted.
    ///
    /// # Safety
    /// Attached; the object is alive.
    pub(crate) fn offset_refcount(object: *mut PyObject) -> Py_ssize_t;

    /// A copy of the current context variables; null when none is set. 0 with an exception set.
    ///
    /// # Safety
    /// Attached.
    pub(crate) fn offset_variables_copy(copy: *mut *mut PyObject) -> c_int;
}

unsafe extern "C-unwind" {
    /// `PyEval_RestoreThread`.
    ///
    /// # Safety
    /// Nothing is attached on this thread; `context` is attached nowhere, and bound to this thread.
    pub(crate) fn offset_attach(context: *mut PyThreadState);

    /// Whether somebody has the GIL just now.
    pub(crate) safe fn offset_taken() -> c_int;

    /// `PyEval_SaveThread`.
    ///
    /// # Safety
    /// Attached.
    pub(crate) fn offset_detach() -> *mut PyThreadState;

    /// Gives the interpreter up, or leaves the goroutine attached until the next [`offset_enter`] or [`offset_release`] on this OS
    /// thread.
    ///
    /// # Safety
    /// Attached as `context`, whose goroutine parks.
    pub(crate) fn offset_leave(context: *mut PyThreadState);

    /// Attaches `context`, in place of what [`offset_leave`] has left. Not 0 if the interpreter had to be waited for.
    ///
    /// # Safety
    /// On the context's own stack; nothing else is attached on this thread, and the context is attached nowhere else by anybody who
    /// needs it.
    pub(crate) fn offset_enter(context: *mut PyThreadState) -> c_int;

    /// Gives up what [`offset_leave`] has left, if it has.
    ///
    /// # Safety
    /// On a machine's own stack.
    pub(crate) fn offset_release();

    /// A new context for the C stack `[stack_low, stack_low + stack_size)`, with `chunk` for its first Python frames. Writes the first
    /// words of `chunk` and nothing else of either. Null with an exception set.
    ///
    /// # Safety
    /// Attached as another state of this OS thread; on free-threaded builds this thread will run the context. Both ranges are the
    /// context's until it is deleted or cut, `chunk` is aligned to words; `identity` is a readable address.
    pub(crate) fn offset_context_new(
        interpreter: *mut PyInterpreterState,
        identity: usize,
        stack_low: *mut c_void,
        stack_size: usize,
        chunk: *mut c_void,
        chunk_size: usize,
    ) -> *mut PyThreadState;

    /// Drops all that belonged to the goroutine. Runs finalizers, which may park. 1 if the context may serve another one
    /// after [`offset_context_reset`], 0 if it must be deleted.
    ///
    /// # Safety
    /// Attached as `context`, with no Python frame left.
    pub(crate) fn offset_context_finish(context: *mut PyThreadState) -> c_int;

    /// Deletes the context. Its C stack and its chunk are the caller's again.
    ///
    /// # Safety
    /// Attached as another state, on the OS thread that ran `context` last; no other thread's slot names it.
    pub(crate) fn offset_context_delete(context: *mut PyThreadState);

    /// `PyThreadState_SetAsyncExc`: the number of threads found, 0 or 1.
    ///
    /// # Safety
    /// Attached; `exception` is an exception, a class of one, or null.
    pub(crate) fn offset_raise_async(identity: c_ulong, exception: *mut PyObject) -> c_int;

    /// Applies `threading.settrace` and `threading.setprofile`, as a new thread does.
    ///
    /// # Safety
    /// Attached as the goroutine, before its function.
    pub(crate) fn offset_apply_tracing();

    /// `callable(*args, **kwargs)`; null `args` for none. In a frame that no forced unwinding passes.
    ///
    /// # Safety
    /// Attached; live objects, and `args` a tuple, `kwargs` a dict or null.
    pub(crate) fn offset_object_call(
        callable: *mut PyObject,
        args: *mut PyObject,
        kwargs: *mut PyObject,
    ) -> *mut PyObject;

    /// Drops a reference, in such a frame: it may be the last, and run a finalizer.
    ///
    /// # Safety
    /// Attached; the reference is the caller's.
    fn offset_drop(object: *mut PyObject);

    /// `PyErr_Clear`, in such a frame.
    ///
    /// # Safety
    /// Attached.
    fn offset_clear_error();

    /// Deletes the attached state, in such a frame: what belongs to a thread is dropped at its end.
    ///
    /// # Safety
    /// `state` is attached on this thread, which is none of the interpreter's any more afterwards.
    pub(crate) fn offset_thread_end(state: *mut PyThreadState);

    /// `object.name()`, in such a frame.
    ///
    /// # Safety
    /// Attached; live objects, and `name` a string.
    pub(crate) fn offset_call_method(object: *mut PyObject, name: *mut PyObject) -> *mut PyObject;
}

// Under the names of what they stand for, so that nobody uses those by mistake: a finalizer that runs while the interpreter exits is
// unwound. tests/test_exit.py aborts with the originals.

/// Drops a reference that is not null.
///
/// # Safety
/// Attached; the reference is the caller's.
#[allow(non_snake_case)]
#[inline]
pub(crate) unsafe fn Py_DECREF(object: *mut PyObject) {
    // SAFETY: by contract.
    unsafe { offset_drop(object) };
}

/// Drops a reference, or does nothing for null.
///
/// # Safety
/// As for [`Py_DECREF`].
#[allow(non_snake_case)]
#[inline]
pub(crate) unsafe fn Py_XDECREF(object: *mut PyObject) {
    if !object.is_null() {
        // SAFETY: by contract.
        unsafe { offset_drop(object) };
    }
}

/// Drops the exception that is set.
///
/// # Safety
/// Attached.
#[allow(non_snake_case)]
#[inline]
pub(crate) unsafe fn PyErr_Clear() {
    // SAFETY: by contract.
    unsafe { offset_clear_error() };
}
