/* Free-threaded builds: how the memory of contexts goes.
 *
 * PyThreadState_Clear empties the free lists of the state that is attached, taking it for the one that ends. What a context has in its own would
 * stay for ever, and with it the segments where it lies; so the two trade their lists for that long.
 *
 * There a thread state allocates from heaps of its own. At its end the segments in which something is alive go to a pool of the interpreter's,
 * for other threads to reuse, and each of its heaps looks through up to 1,024 segments of that pool for some that can be freed: two
 * milliseconds a state where there were thousands. So most contexts leave their segments to a pool of the
 * machine's first, which is empty, and from there they go where they belong.
 *
 * Invariants:
 * - The collector looks for objects in the heaps of thread states and in the interpreter's pool, in a stopped world. `apart` holds segments
 *   only on the way from PyThreadState_Clear's last step to `put_back`, where a thread that is attached does not stop.
 * - `apart` is used by its thread alone.
 */
#define Py_BUILD_CORE 1
#include "internal.h"

#ifdef Py_GIL_DISABLED

#include "internal/pycore_freelist_state.h"
#include "internal/pycore_interp.h"
#include "internal/pycore_mimalloc.h"
#include "internal/pycore_qsbr.h"
#include "internal/pycore_tstate.h"

#include <stdatomic.h>

OFFSET_THREAD_LOCAL mi_abandoned_pool_t apart;

static _PyThreadStateImpl *impl(PyThreadState *state)
{
    return (_PyThreadStateImpl *)((char *)state + offset_impl_shift);
}

/* Contexts are about to be deleted. Of their memory what is empty is given back at once only if all threads are known to have passed by
 * since; otherwise it is left to whoever looks next, as are the memories of those that were deleted before. Nobody asks for that
 * while a machine tidies up, so it is asked here, as in _Py_qsbr_poll. The array of threads grows in a stopped world only. */
void offset_memory_settle(void)
{
    PyThreadState *state = PyThreadState_Get();
    struct _qsbr_shared *shared = &state->interp->qsbr;
    _Py_atomic_add_uint64(&shared->wr_seq, QSBR_INCR);
    _Py_qsbr_quiescent_state(impl(state)->qsbr);
    _Py_atomic_fence_seq_cst();
    uint64_t least = _Py_atomic_load_uint64(&shared->wr_seq);
    for (Py_ssize_t i = 0; i < shared->size; i++) {
        uint64_t seq = _Py_atomic_load_uint64(&shared->array[i].qsbr.seq);
        if (seq != QSBR_OFFLINE && QSBR_LT(seq, least)) {
            least = seq;
        }
    }
    uint64_t seen = _Py_atomic_load_uint64(&shared->rd_seq);
    if (QSBR_LT(seen, least)) {
        (void)_Py_atomic_compare_exchange_uint64(&shared->rd_seq, &seen, least);
    }
}

void offset_memory_apart(PyThreadState *context)
{
    mi_abandoned_pool_t **pool = &impl(context)->mimalloc.tld.segments.abandoned;
    /* Also a look whether the fields are where we think. */
    if (*pool == &context->interp->mimalloc.abandoned_pool) {
        *pool = &apart;
    }
}

/* As mi_abandoned_push: the low bits of a segment's address count, so that a reader notices a change. */
static void push(mi_abandoned_pool_t *pool, mi_segment_t *segment)
{
    const uintptr_t mask = MI_SEGMENT_SIZE - 1;
    mi_tagged_segment_t before = atomic_load_explicit(&pool->abandoned, memory_order_relaxed), now;
    do {
        atomic_store_explicit(&segment->abandoned_next, (mi_segment_t *)(before & ~mask), memory_order_release);
        now = (uintptr_t)segment | (before == 0 ? 0 : ((before & mask) + 1) & mask);
    } while (!atomic_compare_exchange_weak_explicit(&pool->abandoned, &before, now, memory_order_release, memory_order_relaxed));
    atomic_fetch_add_explicit(&pool->abandoned_count, 1, memory_order_relaxed);
}

static void put_back(PyInterpreterState *interpreter)
{
    const uintptr_t mask = MI_SEGMENT_SIZE - 1;
    mi_segment_t *lists[] = {
        (mi_segment_t *)(atomic_load_explicit(&apart.abandoned, memory_order_relaxed) & ~mask),
        atomic_load_explicit(&apart.abandoned_visited, memory_order_relaxed),
    };
    atomic_store_explicit(&apart.abandoned, 0, memory_order_relaxed);
    atomic_store_explicit(&apart.abandoned_visited, NULL, memory_order_relaxed);
    for (int i = 0; i < 2; i++) {
        for (mi_segment_t *segment = lists[i], *next; segment != NULL; segment = next) {
            next = atomic_load_explicit(&segment->abandoned_next, memory_order_relaxed);
            push(&interpreter->mimalloc.abandoned_pool, segment);
        }
    }
}

/* Whether the free lists are where we think: they lie between these two. */
static int known(PyThreadState *state)
{
    mi_abandoned_pool_t *pool = impl(state)->mimalloc.tld.segments.abandoned;
    return (pool == &apart || pool == &state->interp->mimalloc.abandoned_pool) && impl(state)->brc.tid == _Py_ThreadId();
}

static void trade_free_lists(PyThreadState *one, PyThreadState *other)
{
    struct _Py_freelists kept = impl(one)->freelists;
    impl(one)->freelists = impl(other)->freelists;
    impl(other)->freelists = kept;
}

void offset_memory_clear(PyThreadState *context)
{
    PyThreadState *machine = PyThreadState_Get();
    PyInterpreterState *interpreter = context->interp;
    int trades = known(context) && known(machine);
    if (trades) {
        trade_free_lists(context, machine);
    }
    PyThreadState_Clear(context);
    if (trades) {
        trade_free_lists(context, machine);
    }
    put_back(interpreter);
}

#else

void offset_memory_settle(void)
{
}

void offset_memory_apart(PyThreadState *context)
{
    (void)context;
}

void offset_memory_clear(PyThreadState *context)
{
    PyThreadState_Clear(context);
}

#endif
