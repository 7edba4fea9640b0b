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

/* ---- the slot ---- */

/* The calling thread's number in the kernel's eyes; 0 until asked for. */
OFFSET_THREAD_LOCAL unsigned long native_id;

#if OFFSET_3_15

#ifdef __linux__

/* Where the variable lies in the thread-local block of the interpreter's object. Written once, by offset_slot_find. */
static struct {
    unsigned long module;
    unsigned long offset;
} slot;

void *__tls_get_addr(void *index);

static void slot_write(PyThreadState *state)
{
    if (slot.module != 0) {
        *(PyThreadState **)__tls_get_addr(&slot) = state;
    }
}

/* Writes NULL to each word of the object's block that holds the state; the getter then tells which one it reads. */
static int search_object(struct dl_phdr_info *object, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    if (!object_contains(object, offset_interpreter_address())) {
        return 0;
    }
    PyThreadState *current = PyGILState_GetThisThreadState();
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
            int found = PyGILState_GetThisThreadState() == NULL;
            *candidate = current;
            if (found) {
                slot.offset = word * sizeof *block;
                slot.module = object->dlpi_tls_modid;
                return 1;
            }
        }
    }
    return 1;
}

int offset_slot_find(void)
{
    dl_iterate_phdr(search_object, NULL);
    return slot.module != 0;
}

#else

static void slot_write(PyThreadState *state)
{
    (void)state;
}

int offset_slot_find(void)
{
    return 0;
}

#endif

#else

/* The key, once offset_slot_find has found it. */
static pthread_key_t slot;
static int slot_known;

static void slot_write(PyThreadState *state)
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

#endif

void offset_bind_thread(PyThreadState *context)
{
#if OFFSET_3_12
    /* The attach names the context in the slot unless this bit says that it is named somewhere. */
    context->_status.bound_gilstate = 0;
#else
    slot_write(context);
#endif
    if (native_id == 0) {
        native_id = PyThread_get_thread_native_id();
    }
    context->native_thread_id = native_id;
}

void offset_unbind_thread(void)
{
    slot_write(NULL);
    /* A forked child comes by here, and its thread has another number. */
    native_id = 0;
}
