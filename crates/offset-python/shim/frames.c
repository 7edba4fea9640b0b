/* What a parked thread holds: the counted references of its frames and of its thread state, each once.
 *
 * The collector's own traversal does not see frames that run, as it does not need to: what they hold counts as held from outside. Who
 * wants to know what nobody but parked threads holds (leaks.rs) must know them. To miss one is harmless there; to show one that is
 * not counted, or one twice, is not. So where it is unclear what a frame owns, nothing is shown.
 *
 * - The values on a frame's stack lie below its stack pointer, where that is kept. Up to 3.13 it is only while another frame of the same
 *   evaluation loop runs; otherwise `depth` says how many there are at that instruction.
 * - From 3.14 on values may be there uncounted, which a bit of theirs tells. The traversal of generators and frame objects shows
 *   these as well, so it is not used.
 * - The frame of a generator that runs is in the list of the thread's frames, and is the generator's, which shows what it can.
 */
#define Py_BUILD_CORE 1
#include "internal.h"

#include "internal/pycore_frame.h"
#if OFFSET_3_14
#include "internal/pycore_genobject.h"
#include "internal/pycore_interpframe.h"
#include "internal/pycore_stackref.h"
#endif
#if OFFSET_3_13
#include "internal/pycore_tstate.h"
#endif

#define SHOW(object)                                                                                                              \
    do {                                                                                                                          \
        PyObject *shown = (PyObject *)(object);                                                                                   \
        if (shown != NULL) {                                                                                                      \
            visit(shown, argument);                                                                                               \
        }                                                                                                                         \
    } while (0)

#if OFFSET_3_14

#define TAGS ((uintptr_t)3)

/* A value that is counted here: no bit of it says otherwise. */
static inline PyObject *counted(_PyStackRef value)
{
    return value.bits & TAGS ? NULL : (PyObject *)value.bits;
}

static void show_frame(_PyInterpreterFrame *frame, visitproc visit, void *argument)
{
    SHOW(frame->frame_obj);
    SHOW(frame->f_locals);
    SHOW(counted(frame->f_funcobj));
    SHOW(counted(frame->f_executable));
    _PyStackRef *end = frame->stackpointer;
    if (end == NULL) {
        end = frame->localsplus + _PyFrame_GetCode(frame)->co_nlocalsplus;
    }
    for (_PyStackRef *value = frame->localsplus; value < end; value++) {
        SHOW(counted(*value));
    }
}

#else

#if OFFSET_3_12
#define IN_C(frame) ((frame)->owner == FRAME_OWNED_BY_CSTACK)
#define FUNCTION(frame) ((frame)->f_funcobj)
#else
#define IN_C(frame) 0
#define FUNCTION(frame) ((frame)->f_func)
#endif
#if OFFSET_3_13
#define CODE(frame) ((PyCodeObject *)(frame)->f_executable)
#else
#define CODE(frame) ((frame)->f_code)
#endif

static void show_frame(_PyInterpreterFrame *frame, offset_depth depth, visitproc visit, void *argument)
{
    int generators = frame->owner == FRAME_OWNED_BY_GENERATOR;
    int end = frame->stacktop;
    if (!generators) {
        SHOW(frame->frame_obj);
        SHOW(frame->f_locals);
        SHOW(FUNCTION(frame));
        SHOW(CODE(frame));
    } else if (end >= 0) {
        return;
    }
    if (end < 0) {
        int instruction = _PyInterpreterFrame_LASTI(frame) * (int)sizeof(_Py_CODEUNIT);
        end = CODE(frame)->co_nlocalsplus + depth(CODE(frame), instruction, argument);
    }
    for (int i = 0; i < end; i++) {
        SHOW(frame->localsplus[i]);
    }
}

#endif

void offset_thread_visit(PyThreadState *state, offset_depth depth, visitproc visit, void *argument)
{
#if OFFSET_3_14
    (void)depth;
    for (_PyInterpreterFrame *frame = state->current_frame; frame != NULL; frame = frame->previous) {
        if (frame->owner == FRAME_OWNED_BY_THREAD && !_PyFrame_IsIncomplete(frame)) {
            show_frame(frame, visit, argument);
        }
    }
#else
#if OFFSET_3_13
    _PyInterpreterFrame *frame = state->current_frame;
#else
    _PyInterpreterFrame *frame = state->cframe->current_frame;
#endif
    for (; frame != NULL; frame = frame->previous) {
        if (!IN_C(frame) && !_PyFrame_IsIncomplete(frame)) {
            show_frame(frame, depth, visit, argument);
        }
    }
#endif
    SHOW(state->dict);
    SHOW(state->context);
    /* What generators handle is theirs. */
    SHOW(state->exc_state.exc_value);
#if OFFSET_3_13
    SHOW(state->threading_local_key);
    SHOW(state->threading_local_sentinel);
#endif
}

Py_ssize_t offset_refcount(PyObject *object)
{
    return Py_REFCNT(object);
}

void offset_object_visit(PyObject *object, visitproc visit, void *argument)
{
#if OFFSET_3_14
    if (PyFrame_Check(object)) {
        return;
    }
    if (PyGen_CheckExact(object) || PyCoro_CheckExact(object) || PyAsyncGen_CheckExact(object)) {
        PyGenObject *generator = (PyGenObject *)object;
        if (generator->gi_frame_state != FRAME_CLEARED) {
            show_frame(&generator->gi_iframe, visit, argument);
        }
        SHOW(generator->gi_exc_state.exc_value);
        return;
    }
#endif
    traverseproc traverse = Py_TYPE(object)->tp_traverse;
    if (traverse != NULL) {
        traverse(object, visit, argument);
    }
}
