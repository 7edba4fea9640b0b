//! A goroutine's life, from its first step on its stack to its last: its function is called, told that it is over if it wants to know,
//! and what it has raised is reported.

use super::*;

/// The method by which an instance that is a goroutine's function is told that it is over.
const OVER: &CStr = c"__offset_over__";

/// A goroutine's life, on its stack, attached.
pub(crate) fn main(goroutine: &Goroutine) {
    let object = object_of(goroutine).cast::<GoroutineObject>();
    // SAFETY: the goroutine's reference keeps its object; all that is taken out of it is owned here.
    unsafe {
        let name = get_name(object.cast(), null_mut());
        // Makes the bytes that `write_name` needs.
        let mut size = 0;
        PyUnicode_AsUTF8AndSize(name, &raw mut size);
        crate::trace::starts(goroutine, name, (*object).creator_code, (*object).creator_at);
        Py_XDECREF(name);
        let (function, args, kwargs, context) = exclusive(object.cast(), || {
            let it = &mut *object;
            it.held = [it.function, it.args, it.kwargs, it.context];
            let take = |field: &mut Object| std::mem::replace(field, NULL);
            (take(&mut it.function), take(&mut it.args), take(&mut it.kwargs), take(&mut it.context))
        });
        shim::offset_apply_tracing();
        let (cancelled, pending) = exclusive(object.cast(), || {
            if !goroutine.cancelled() {
                return (false, NULL);
            }
            // Whoever cancels may have found it running already.
            goroutine.forget_cancel();
            (true, shim::offset_take_async_exc(goroutine.context() as *mut _))
        });
        Py_XDECREF(pending);
        let mut result = if cancelled {
            raise_thrown()
        } else if !context.is_null() && PyContext_Enter(context) < 0 {
            NULL
        } else {
            shim::offset_object_call(function, args, kwargs)
        };
        crate::scope::leave_all(object.cast());
        if wants_to_know(function) {
            Py_XDECREF(crate::cancel::no_more(object.cast()));
            result = tell_over(function, result);
        }
        exclusive(object.cast(), || (*object).held = [NULL; 4]);
        crate::trace::ends(goroutine, || get_name(object.cast(), null_mut()));
        crate::sync::member_is_over(function);
        Py_DECREF(function);
        Py_XDECREF(args);
        Py_XDECREF(kwargs);
        if goroutine.forked() {
            end_child(object.cast());
        }
        if result.is_null() {
            report_uncaught(object.cast());
        } else {
            Py_DECREF(result);
        }
        if !context.is_null() {
            PyContext_Exit(context);
            PyErr_Clear();
            Py_DECREF(context);
        }
    }
}

/// Whether a goroutine's function is to be told when it is over. Only instances of Python's classes are: functions
/// and methods are not asked.
unsafe fn wants_to_know(function: Object) -> bool {
    // SAFETY: attached; the caller holds the function.
    unsafe {
        if PyType_HasFeature(Py_TYPE(function), Py_TPFLAGS_HEAPTYPE) == 0 {
            return false;
        }
        let error = take_raised();
        let told = PyObject_HasAttrString(Py_TYPE(function).cast(), OVER.as_ptr()) != 0;
        if !error.is_null() {
            raise_object(error);
            Py_DECREF(error);
        }
        told
    }
}

/// Tells a function that wants to know that it is over, with the exception that it has ended with, or that kept it from being called;
/// if the answer is true that has been dealt with. Its own code could not see to that: an exception from outside may be raised as soon
/// as it begins, and where it is about to end. Nor would its deallocation do, as in `sync::member_is_over`.
///
/// # Safety
/// Attached, with an exception set if `result` is null; nothing is raised from outside any more.
unsafe fn tell_over(function: Object, result: Object) -> Object {
    // SAFETY: by contract; the caller holds the function.
    unsafe {
        let error = if result.is_null() { take_raised() } else { NULL };
        let tell = PyObject_GetAttrString(Py_TYPE(function).cast(), OVER.as_ptr());
        let args = if tell.is_null() { NULL } else { PyTuple_Pack(2, function, error_or_none(error)) };
        let answer = if args.is_null() { NULL } else { shim::offset_object_call(tell, args, NULL) };
        let done = !answer.is_null() && PyObject_IsTrue(answer) == 1;
        if !PyErr_Occurred().is_null() {
            PyErr_WriteUnraisable(function);
        }
        for part in [tell, args, answer] {
            Py_XDECREF(part);
        }
        if error.is_null() {
            return result;
        }
        if !done {
            raise_object(error);
        }
        Py_DECREF(error);
        if done { none() } else { NULL }
    }
}

fn error_or_none(error: Object) -> Object {
    // SAFETY: None is there for ever.
    if error.is_null() { unsafe { Py_None() } } else { error }
}

/// Ends a child that was forked inside a goroutine, with the exception that is set, if one is. Never returns.
unsafe fn end_child(object: Object) -> ! {
    // SAFETY: attached.
    unsafe {
        let exception = take_raised();
        let module = PyImport_ImportModule(c"offset._exit".as_ptr());
        let end = if module.is_null() { NULL } else { PyObject_GetAttrString(module, c"end_child".as_ptr()) };
        if !end.is_null() {
            let args = PyTuple_Pack(2, object, if exception.is_null() { Py_None() } else { exception });
            shim::offset_object_call(end, args, NULL);
        }
        libc::_exit(1)
    }
}

unsafe fn report_uncaught(object: Object) {
    // SAFETY: attached, with an exception set.
    unsafe {
        if PyErr_ExceptionMatches(GOROUTINE_EXIT.load(Ordering::Relaxed)) != 0 {
            PyErr_Clear();
            return;
        }
        let hook = UNCAUGHT.load(Ordering::Relaxed);
        if hook.is_null() {
            PyErr_WriteUnraisable(object);
            return;
        }
        let exception = take_raised();
        let args = PyTuple_Pack(2, object, exception);
        Py_XDECREF(exception);
        if !args.is_null() {
            let answer = shim::offset_object_call(hook, args, NULL);
            Py_DECREF(args);
            if answer.is_null() {
                PyErr_WriteUnraisable(hook);
            } else {
                Py_DECREF(answer);
            }
        }
    }
}
