/* Free-threaded builds: who settles the reference counts of objects that other threads let go.
 *
 * An object belongs to the OS thread that made it. When another thread drops the last reference that it knows of, CPython queues the
 * object with the first thread state that it finds listed for the owner, which settles the count, and frees the object, at the next
 * check of its evaluation loop. Many of our contexts belong to one OS thread, and the first listed would be the machine's own
 * state, which runs nothing: everything that one machine makes and another drops would stay until the next collection
 * (tests/test_free_threading.py). So a context that is attached on a machine after another one becomes the first, and takes over
 * what was queued with the one before.
 *
 * While a machine rests others may see whether objects of its were dropped (`account`, the address of the first one's flags), and have
 * it run a goroutine that settles them. What is dropped of the objects of a thread that waits in C waits with it, or for a collection.
 *
 * Invariant: `first` is the state that was made the first last on this OS thread; it is listed. Lists and queues are touched
 * attached, so that a stopped world, a fork's among them, finds them whole.
 */
#define Py_BUILD_CORE 1
#include "internal.h"

#ifdef Py_GIL_DISABLED

#include "internal/pycore_brc.h"
#include "internal/pycore_ceval.h"
#include "internal/pycore_interp.h"
#include "internal/pycore_llist.h"
#include "internal/pycore_tstate.h"

OFFSET_THREAD_LOCAL PyThreadState *first;

static int known;

static struct _brc_thread_state *brc(PyThreadState *state)
{
    return &((_PyThreadStateImpl *)((char *)state + offset_impl_shift))->brc;
}

static struct _brc_bucket *bucket_of(PyThreadState *state)
{
    return &state->interp->brc.table[brc(state)->tid % _Py_BRC_NUM_BUCKETS];
}

void offset_refcounts_setup(void)
{
    PyThreadState *state = PyThreadState_Get();
    if (brc(state)->tid != _Py_ThreadId()) {
        return;
    }
    /* The bucket is where we think if its root lies on the ring that the state is on. The ring is ours to walk: its bucket is
     * locked by nobody who waits for us, and whatever is added meanwhile is added whole. */
    struct llist_node *root = &bucket_of(state)->root, *node = &brc(state)->bucket_node;
    for (int steps = 0; steps < 1000 && node != NULL && !known; steps++) {
        node = node->next;
        known = node == root;
    }
}

void offset_refcounts_first(PyThreadState *state)
{
    PyThreadState *before = first;
    if (before == state || !known) {
        return;
    }
    struct _brc_thread_state *own = brc(state);
    struct _brc_bucket *bucket = bucket_of(state);
    PyMutex_Lock(&bucket->mutex);
    llist_remove(&own->bucket_node);
    /* There is no call for the head of a list: the tail of what follows the root is its head. */
    llist_insert_tail(bucket->root.next, &own->bucket_node);
    if (before != NULL && brc(before)->objects_to_merge.head != NULL) {
        _PyObjectStack *queued = &brc(before)->objects_to_merge;
        _PyObjectStackChunk *last = queued->head;
        while (last->prev != NULL) {
            last = last->prev;
        }
        last->prev = own->objects_to_merge.head;
        own->objects_to_merge.head = queued->head;
        queued->head = NULL;
        _Py_set_eval_breaker_bit(state, _PY_EVAL_EXPLICIT_MERGE_BIT);
    }
    if (before != NULL) {
        /* It has nothing to settle any more; when it is the first again that must not look as if it had. */
        _Py_unset_eval_breaker_bit(before, _PY_EVAL_EXPLICIT_MERGE_BIT);
    }
    PyMutex_Unlock(&bucket->mutex);
    first = state;
}

uintptr_t offset_refcounts_account(void)
{
    return known && first != NULL ? (uintptr_t)&first->eval_breaker : 0;
}

int offset_refcounts_owed(uintptr_t account)
{
    return (_Py_atomic_load_uintptr_relaxed((uintptr_t *)account) & _PY_EVAL_EXPLICIT_MERGE_BIT) != 0;
}

void offset_refcounts_leave(void)
{
    first = NULL;
}

#else

void offset_refcounts_setup(void)
{
}

void offset_refcounts_first(PyThreadState *state)
{
    (void)state;
}

uintptr_t offset_refcounts_account(void)
{
    return 0;
}

int offset_refcounts_owed(uintptr_t account)
{
    (void)account;
    return 0;
}

void offset_refcounts_leave(void)
{
}

#endif
