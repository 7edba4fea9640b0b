//! Where goroutines wait, for who looks at a program: how many there are by wait reason, and who waits at which channel or lock.
//!
//! Nothing is kept for it: goroutines note the address at which they park, and the objects that have such an address are looked for
//! among those that the collector knows. Locks are not among them, so what these refer to is gone through, too, if an address
//! is left over; then what the goroutines' own frames hold.
//!
//! Invariant: from the first look at an address to the last nobody runs Python, and nothing of Python's is allocated or dropped.

use crate::leaks::{ByAddress, place};
use crate::method::*;
use crate::shim;
use crate::shim::{Py_DECREF, Py_XDECREF};
use offset_runtime::goroutine::{Goroutine, Status};
use offset_runtime::scheduler;
use pyo3_ffi::*;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering;

/// Who waits at an address.
struct Waiters {
    ids: Vec<u64>,
    /// One of them, for what its frames hold.
    one: *const Goroutine,
}

#[derive(Default)]
struct Search {
    /// The addresses whose object is not found yet.
    wanted: ByAddress<Waiters>,
    found: Vec<(Object, Vec<u64>)>,
}

unsafe extern "C" fn nothing(_: *mut PyCodeObject, _: c_int, _: *mut c_void) -> c_int {
    // How much of a frame's stack is in use is not known: its variables do.
    0
}

unsafe extern "C" fn visited(object: Object, search: *mut c_void) -> c_int {
    // SAFETY: `search` is what `Search` gave, the object is alive.
    unsafe { (*search.cast::<Search>()).meet(object) };
    0
}

impl Search {
    /// Takes `object` if somebody waits there.
    unsafe fn meet(&mut self, object: Object) {
        if let Some(place) = place(object)
            && !crate::sync::is_member(object)
            && let Some(waiters) = self.wanted.remove(&place.address)
        {
            // SAFETY: attached; the object is alive.
            self.found.push((unsafe { Py_NewRef(object) }, waiters.ids));
        }
    }

    fn enlist(&mut self) {
        scheduler::visit_goroutines(|goroutine| {
            // SAFETY: attached and alone, so that no goroutine goes on.
            for &address in unsafe { goroutine.parked_at() }.unwrap_or_default() {
                if address != 0 {
                    let new = || Waiters { ids: Vec::new(), one: goroutine };
                    let ids = &mut self.wanted.entry(address).or_insert_with(new).ids;
                    // A `select` may name a channel more than once.
                    if ids.last() != Some(&goroutine.id()) {
                        ids.push(goroutine.id());
                    }
                }
            }
        });
    }

    /// # Safety
    /// Attached, and alone; `objects` is a list.
    unsafe fn run(&mut self, objects: Object) {
        self.enlist();
        let chan = crate::chan::CHAN.load(Ordering::Relaxed);
        // SAFETY: by contract; the list holds its objects.
        unsafe {
            let objects = (0..PyList_GET_SIZE(objects)).map(|at| PyList_GET_ITEM(objects, at));
            for object in objects.clone() {
                if Py_TYPE(object) == chan
                    && let Some(place) = place(object)
                {
                    let ids = self.wanted.remove(&place.address).map_or_else(Vec::new, |waiters| waiters.ids);
                    self.found.push((Py_NewRef(object), ids));
                }
            }
            let search = (&raw mut *self).cast();
            for object in objects {
                if self.wanted.is_empty() {
                    return;
                }
                self.meet(object);
                if PyObject_IS_GC(object) != 0 {
                    shim::offset_object_visit(object, visited, search);
                }
            }
            for goroutine in self.wanted.values().map(|waiters| waiters.one).collect::<Vec<_>>() {
                // A goroutine of a plain thread's wait has no context.
                let context = (*goroutine).context() as *mut PyThreadState;
                if !context.is_null() {
                    shim::offset_thread_visit(context, nothing, visited, search);
                }
            }
        }
    }
}

/// A list of the ids, or null with an exception set.
unsafe fn numbers(ids: &[u64]) -> Object {
    // SAFETY: attached; the new list is ours.
    unsafe {
        let list = PyList_New(ids.len() as Py_ssize_t);
        for (at, &id) in ids.iter().enumerate() {
            let number = if list.is_null() { return list } else { int(id) };
            if number.is_null() {
                Py_DECREF(list);
                return NULL;
            }
            PyList_SET_ITEM(list, at as Py_ssize_t, number);
        }
        list
    }
}

unsafe extern "C" fn find_places(_: Object, objects: Object) -> Object {
    // SAFETY: the calling convention; what was found is owned here.
    unsafe {
        if PyList_Check(objects) == 0 {
            return crate::error::type_error("find_places() takes a list");
        }
        let mut search = Search::default();
        crate::dump::alone(|| search.run(objects));
        let result = PyList_New(0);
        for (object, ids) in search.found {
            let ids = if result.is_null() || !PyErr_Occurred().is_null() { NULL } else { numbers(&ids) };
            let pair = if ids.is_null() { NULL } else { PyTuple_Pack(2, object, ids) };
            if !pair.is_null() {
                PyList_Append(result, pair);
            }
            for part in [pair, ids, object] {
                Py_XDECREF(part);
            }
        }
        if PyErr_Occurred().is_null() {
            return result;
        }
        Py_XDECREF(result);
        NULL
    }
}

unsafe extern "C" fn states(_: Object, _: Object) -> Object {
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    if scheduler::started() {
        scheduler::visit_goroutines(|goroutine| {
            let status = goroutine.status();
            let reason = if status == Status::Waiting { goroutine.wait_reason().as_str() } else { "" };
            let state = if reason.is_empty() { crate::goroutine::status_name(status) } else { reason };
            *counts.entry(state).or_default() += 1;
        });
    }
    // SAFETY: attached, new references.
    unsafe {
        let result = PyDict_New();
        for (state, count) in counts {
            let (key, value) = (string(state), int(count));
            if !result.is_null() && !key.is_null() && !value.is_null() {
                PyDict_SetItem(result, key, value);
            }
            Py_XDECREF(key);
            Py_XDECREF(value);
        }
        if PyErr_Occurred().is_null() {
            return result;
        }
        Py_XDECREF(result);
        NULL
    }
}

pub(crate) fn functions() -> Vec<PyMethodDef> {
    vec![
        no_args(
            c"states",
            states,
            c"states() -> dict\n\nHow many goroutines there are by what they wait for or do.",
        ),
        one_arg(
            c"find_places",
            find_places,
            c"find_places(objects) -> list\n\nThe channels among `objects`, and the locks that they or goroutines hold and somebody waits at, each with the ids of who waits.",
        ),
    ]
}
