/* Free-threaded builds: goroutines of one machine run on one copy of the bytecode.
 *
 * There CPython specializes code for each thread by itself: a thread state has an index, and each code object a copy of its bytecode for
 * each index that has run it. Goroutines of one machine never run at once, and never move, so one copy does for them, as it does
 * for all threads where there is a GIL: the next goroutine begins with code that is specialized already, and the copies do not keep the
 * memory of contexts that are gone.
 *
 * Invariants:
 * - A context has the index of the machine's own state, which outlives it. The one that it was born with stays reserved, in the first
 *   word of its root chunk, behind a mark: it is put back before CPython gives the context's index free, which would give it to another
 *   thread.
 * - Touched attached, so that a stopped world, a fork's among them, finds both words or none; and in a forked child, which has one
 *   thread.
 * - At exit the interpreter gives the same index free many times. By then nobody makes a thread state (host::adopt_no_more).
 */
#define Py_BUILD_CORE 1
#include "internal.h"

#ifdef Py_GIL_DISABLED

#include "internal/pycore_interp.h"
#include "internal/pycore_tstate.h"

/* Nothing that CPython leaves in the word looks like it: no address has these bits. */
#define MARK (UINT64_C(0xB17E) << 48)
#define MARKED(word) (((word) >> 48 << 48) == MARK)

static int32_t *index_of(PyThreadState *state)
{
    return &((_PyThreadStateImpl *)((char *)state + offset_impl_shift))->tlbc_index;
}

/* Where the index is kept that a context was born with. NULL if it has no chunk. */
static uint64_t *kept(PyThreadState *context)
{
    _PyStackChunk *root = context->datastack_chunk;
    while (root != NULL && root->previous != NULL) {
        root = root->previous;
    }
    return root == NULL ? NULL : (uint64_t *)&root->data[0];
}

void offset_bytecode_share(PyThreadState *context)
{
    PyThreadState *machine = PyThreadState_Get();
    int32_t *own = index_of(context), shared = *index_of(machine), end = context->interp->tlbc_indices.next_index;
    /* Also a look whether the fields are where we think. */
    if (!context->interp->config.tlbc_enabled || *own < 0 || *own >= end || shared < 0 || shared >= end || *own == shared) {
        return;
    }
    *kept(context) = MARK | (uint32_t)*own;
    *own = shared;
}

void offset_bytecode_part(PyThreadState *context)
{
    uint64_t *word = kept(context);
    if (word != NULL && MARKED(*word)) {
        *index_of(context) = (int32_t)(uint32_t)*word;
        *word = 0;
    }
}

void offset_bytecode_child(PyThreadState *context, PyThreadState *machine)
{
    PyInterpreterState *interpreter = PyInterpreterState_Main();
    uint64_t *word = context == NULL ? NULL : kept(context);
    if (word != NULL && MARKED(*word)) {
        /* Its frames go on with the copy that they are at. */
        *index_of(machine) = (int32_t)(uint32_t)*word;
        *word = 0;
    }
    for (PyThreadState *state = PyInterpreterState_ThreadHead(interpreter); state != NULL; state = PyThreadState_Next(state)) {
        offset_bytecode_part(state);
    }
}

#else

void offset_bytecode_share(PyThreadState *context)
{
    (void)context;
}

void offset_bytecode_part(PyThreadState *context)
{
    (void)context;
}

void offset_bytecode_child(PyThreadState *context, PyThreadState *machine)
{
    (void)context;
    (void)machine;
}

#endif
