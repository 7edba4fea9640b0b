/* Attach, detach, and the slot of each OS thread by which the PyGILState functions find its thread state.
 *
 * The slot is a thread-specific key up to 3.14 and a thread-local variable of the interpreter from 3.15 on; neither has a public
 * name. offset_slot_find finds it by what PyGILState_GetThisThreadState reads from it, so that no layout is assumed.
 */
#include "internal.h"

#include <pthread.h>

void offset_attach(PyThreadState *context)
{
    ENTER();
    PyEval_RestoreThread(context);
    LEAVE();
}

PyThreadState *offset_detach(void)
{
    ENTER();
    PyThreadState *context = PyEval_SaveThread();
    LEAVE();
    return context;
}

/* The calling thread's number in the kernel's eyes; 0 until asked for. */
OFFSET_THREAD_LOCAL unsigned long native_id;

#if OFFSET_3_12

/* ---- thread-local variables of the interpreter ---- */

#ifdef __linux__

void *__tls_get_addr(void *index);

PyThreadState **tls_address(struct tls_place *place)
{
    return __tls_get_addr(place);
}

struct search {
    struct tls_place *place;
    PyThreadState *(*getter)(void);
};

/* Writes NULL to each word of the object's block that holds the state; the getter then tells which one it reads. */
static int search_object(struct dl_phdr_info *object, size_t size, void *argument)
{
    (void)size;
    const struct search *search = argument;
    if (!object_contains(object, offset_interpreter_address())) {
        return 0;
    }
    PyThreadState *current = search->getter();
    PyThreadState **block = object->dlpi_tls_data;
    for (int i = 0; i < object->dlpi_phnum && block != NULL && current != NULL; i++) {
        if (object->dlpi_phdr[i].p_type != PT_TLS) {
            continue;
        }
        for (size_t word = 0; word < object->dlpi_phdr[i].p_memsz / sizeof *block; word++) {
            PyThreadState *volatile *candidate = &block[word];
            if (*candidate != current) {
                continue;
            }
            *candidate = NULL;
            int found = search->getter() == NULL;
            *candidate = current;
            if (found) {
                search->place->offset = word * sizeof *block;
                search->place->module = object->dlpi_tls_modid;
                return 1;
            }
        }
    }
    return 1;
}

int tls_find(struct tls_place *place, PyThreadState *(*getter)(void))
{
    struct search search = {place, getter};
    dl_iterate_phdr(search_object, &search);
    return place->module != 0;
}

#else

PyThreadState **tls_address(struct tls_place *place)
{
    (void)place;
    return NULL;
}

int tls_find(struct tls_place *place, PyThreadState *(*getter)(void))
{
    (void)place;
    (void)getter;
    return 0;
}

#endif

#endif

/* ---- the slot ---- */

#if OFFSET_3_15

static struct tls_place slot;

void offset_slot_write(PyThreadState *state)
{
    if (slot.module != 0) {
        *tls_address(&slot) = state;
    }
}

int offset_slot_find(void)
{
    return tls_find(&slot, PyGILState_GetThisThreadState);
}

int offset_slot_known(void)
{
    return slot.module != 0;
}

#else

/* The key, once offset_slot_find has found it. */
static pthread_key_t slot;
static int slot_known;

void offset_slot_write(PyThreadState *state)
{
    if (slot_known) {
        pthread_setspecific(slot, state);
    }
}

int offset_slot_find(void)
{
    PyThreadState *current = PyGILState_GetThisThreadState();
    if (current == NULL) {
        return 0;
    }
    /* Keys are small numbers on every system that has a pthread_key_t of an integer type. */
    for (pthread_key_t key = 0; !slot_known && key < 1024; key++) {
        if (pthread_getspecific(key) != current) {
            continue;
        }
        pthread_setspecific(key, NULL);
        slot_known = PyGILState_GetThisThreadState() == NULL;
        pthread_setspecific(key, current);
        slot = key;
    }
    return slot_known;
}

int offset_slot_known(void)
{
    return slot_known;
}

#endif

/* ---- binding ---- */

void offset_bind(PyThreadState *context)
{
#if OFFSET_3_12
    /* The attach names the context in the slot unless this bit says that it is named somewhere. Whoever gave the context up has
     * cleared it, if by offset_leave. */
    if (context->_status.bound_gilstate) {
        context->_status.bound_gilstate = 0;
    }
#else
    offset_slot_write(context);
#endif
}

void offset_unbind(PyThreadState *context)
{
#if OFFSET_3_12
    context->_status.bound_gilstate = 0;
#else
    (void)context;
#endif
    offset_slot_write(NULL);
}

void offset_number(PyThreadState *context)
{
    if (native_id == 0) {
        native_id = PyThread_get_thread_native_id();
    }
    if (context->native_thread_id != native_id) {
        context->native_thread_id = native_id;
    }
}

void offset_bind_thread(PyThreadState *context)
{
    offset_bind(context);
    offset_number(context);
}

void offset_unbind_thread(void)
{
    offset_slot_write(NULL);
    /* A forked child comes by here, and its thread has another number. */
    native_id = 0;
}
