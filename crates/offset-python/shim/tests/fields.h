/* The fields of a thread state that the tests read and write, by name. Part of the module shimtest; read after the internal headers. */

/* INT and WORD are numbers, REQUESTS bits among others; OWN, IN_CHUNK and FRAME point into the state, its chunk, or to its lowest
 * frame; OBJECT is a reference, HANDLED points to one, as where a generator handles an exception. */
enum kind { INT, WORD, REQUESTS, OWN, IN_CHUNK, FRAME, OBJECT, HANDLED };

#if OFFSET_3_13
#define REQUEST_BITS ((uintptr_t)_PY_ASYNC_EXCEPTION_BIT | _PY_GIL_DROP_REQUEST_BIT)
#else
#define REQUEST_BITS 0
#endif

struct field {
    const char *name;
    size_t offset;
    enum kind kind;
};

#define FIELD(name, kind) {#name, offsetof(PyThreadState, name), kind}

/* Those that offset_context_reset writes. */
static const struct field numbers[] = {
    FIELD(recursion_headroom, INT),
    FIELD(gilstate_counter, INT),
    FIELD(tracing, INT),
    FIELD(coroutine_origin_tracking_depth, INT),
    FIELD(exc_info, OWN),
    FIELD(exc_state.previous_item, WORD),
    FIELD(datastack_top, IN_CHUNK),
    FIELD(datastack_limit, IN_CHUNK),
    FIELD(context_ver, WORD),
    FIELD(id, WORD),
#if OFFSET_3_12
    FIELD(py_recursion_remaining, INT),
    FIELD(what_event, INT),
#else
    FIELD(recursion_remaining, INT),
    FIELD(tracing_what, INT),
    FIELD(root_cframe.use_tracing, INT),
    FIELD(trash_delete_nesting, INT),
#endif
#if OFFSET_3_12 && !OFFSET_3_14
    FIELD(c_recursion_remaining, INT),
#endif
#if OFFSET_3_12 && !OFFSET_3_13
    FIELD(trash.delete_nesting, INT),
#endif
#if OFFSET_3_15
    FIELD(last_profiled_frame, WORD),
#endif
#if OFFSET_3_14
    FIELD(remote_debugger_support.debugger_pending_call, INT),
    FIELD(datastack_cached_chunk, WORD),
#endif
#if OFFSET_3_13
    FIELD(current_frame, FRAME),
    FIELD(eval_breaker, REQUESTS),
#else
    FIELD(cframe, OWN),
    FIELD(root_cframe.current_frame, WORD),
    FIELD(root_cframe.previous, WORD),
#endif
    FIELD(native_thread_id, WORD),
    {NULL, 0, INT},
};

/* Those that offset_context_finish empties or looks at. Not all of them can be left behind by a Python program. */
static const struct field leavable[] = {
#if OFFSET_3_12
    FIELD(current_exception, OBJECT),
#else
    FIELD(curexc_type, OBJECT),
#endif
    FIELD(exc_state.exc_value, OBJECT),
    FIELD(exc_info, HANDLED),
    FIELD(dict, OBJECT),
    FIELD(async_exc, OBJECT),
    FIELD(context, OBJECT),
    FIELD(async_gen_firstiter, OBJECT),
    FIELD(async_gen_finalizer, OBJECT),
    FIELD(c_traceobj, OBJECT),
    FIELD(c_profileobj, OBJECT),
#if OFFSET_3_13
    FIELD(threading_local_key, OBJECT),
    FIELD(threading_local_sentinel, OBJECT),
    FIELD(delete_later, WORD),
    FIELD(critical_section, WORD),
#elif OFFSET_3_12
    FIELD(trash.delete_later, WORD),
#else
    FIELD(trash_delete_later, WORD),
#endif
#if OFFSET_3_15
    FIELD(ensure.counter, WORD),
    FIELD(ensure.owned_guard, WORD),
#endif
    {NULL, 0, INT},
};

static uintptr_t base_of(const struct field *field, PyThreadState *state)
{
    switch (field->kind) {
    case OWN:
        return (uintptr_t)state;
    case IN_CHUNK:
        return (uintptr_t)state->datastack_chunk;
#if OFFSET_3_15
    case FRAME:
        return (uintptr_t)state->base_frame;
#endif
    default:
        return 0;
    }
}

static uintptr_t get_field(const struct field *field, PyThreadState *state)
{
    char *place = (char *)state + field->offset;
    if (field->kind == INT) {
        return (uintptr_t)*(int *)place;
    }
    uintptr_t word = *(uintptr_t *)place;
    return field->kind == REQUESTS ? word & REQUEST_BITS : word - base_of(field, state);
}

static void set_field(const struct field *field, PyThreadState *state, uintptr_t value)
{
    char *place = (char *)state + field->offset;
    if (field->kind == INT) {
        *(int *)place = (int)value;
    } else if (field->kind == REQUESTS) {
        *(uintptr_t *)place |= REQUEST_BITS;
    } else {
        *(uintptr_t *)place = value + base_of(field, state);
    }
}

static const struct field *find_field(const struct field *fields, const char *name)
{
    for (; fields->name != NULL; fields++) {
        if (strcmp(fields->name, name) == 0) {
            return fields;
        }
    }
    PyErr_SetString(PyExc_KeyError, name);
    return NULL;
}
