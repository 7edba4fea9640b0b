/* Virtual thread identity: while a goroutine runs on an OS thread, the interpreter takes the goroutine for the thread.
 *
 * CPython asks pthread_self() who it is when it takes an RLock, imports, writes to a buffered file or opens an sqlite3 connection.
 * The interpreter's object (libpython or the executable) reaches pthread_self through an import slot; that slot, and no
 * other object's, is made to name `identity_or_self`. Everything else in the process gets the real answer, and so does the
 * interpreter on a thread that runs no goroutine, in a forked child's first steps, and wherever it needs a real pthread_t.
 *
 * Invariants: a slot is written once, with one store, and never written back; a page that was read-only is read-only again
 * afterwards. Only for ELF with glibc: musl has no use for it untested, and macOS binds imports in another way.
 */
#include "internal.h"

OFFSET_THREAD_LOCAL uintptr_t current_identity;

void offset_set_identity(uintptr_t identity)
{
    current_identity = identity;
}

uintptr_t offset_get_identity(void)
{
    return current_identity;
}

#if defined(__linux__) && defined(__GLIBC__) && (defined(__x86_64__) || defined(__aarch64__))

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#ifdef __x86_64__
enum { JUMP_SLOT = R_X86_64_JUMP_SLOT, GLOB_DAT = R_X86_64_GLOB_DAT };
#else
enum { JUMP_SLOT = R_AARCH64_JUMP_SLOT, GLOB_DAT = R_AARCH64_GLOB_DAT };
#endif

/* The C library's function. Not by our own import, which is the very slot if we are linked into the interpreter. */
static pthread_t (*real_self)(void);

static pthread_t identity_or_self(void)
{
    uintptr_t identity = current_identity;
    return identity != 0 ? (pthread_t)identity : real_self();
}

/* The tables of a loaded object that name its imports. */
struct imports {
    const ElfW(Sym) *symbols;
    const char *names;
    const ElfW(Rela) *relocations[2]; /* DT_JMPREL, DT_RELA */
    size_t sizes[2];
};

static const ElfW(Phdr) *find_segment(const struct dl_phdr_info *object, ElfW(Word) type)
{
    for (int i = 0; i < object->dlpi_phnum; i++) {
        if (object->dlpi_phdr[i].p_type == type) {
            return &object->dlpi_phdr[i];
        }
    }
    return NULL;
}

static void read_dynamic(const struct dl_phdr_info *object, struct imports *imports)
{
    const ElfW(Phdr) *segment = find_segment(object, PT_DYNAMIC);
    if (segment == NULL) {
        return;
    }
    for (const ElfW(Dyn) *entry = (const void *)(object->dlpi_addr + segment->p_vaddr); entry->d_tag != DT_NULL; entry++) {
        /* The loader of glibc has made these absolute. */
        const void *table = (const void *)entry->d_un.d_ptr;
        switch (entry->d_tag) {
        case DT_SYMTAB:
            imports->symbols = table;
            break;
        case DT_STRTAB:
            imports->names = table;
            break;
        case DT_JMPREL:
            imports->relocations[0] = table;
            break;
        case DT_RELA:
            imports->relocations[1] = table;
            break;
        case DT_PLTRELSZ:
            imports->sizes[0] = entry->d_un.d_val;
            break;
        case DT_RELASZ:
            imports->sizes[1] = entry->d_un.d_val;
            break;
        default:
            break;
        }
    }
}

/* Whether the loader made the slot's page read-only once it had bound the object's imports. */
static int is_read_only(const struct dl_phdr_info *object, uintptr_t page, uintptr_t page_size)
{
    const ElfW(Phdr) *relro = find_segment(object, PT_GNU_RELRO);
    if (relro == NULL) {
        return 0;
    }
    uintptr_t start = object->dlpi_addr + relro->p_vaddr, end = start + relro->p_memsz;
    return page >= (start & ~(page_size - 1)) && page < (end & ~(page_size - 1));
}

static int redirect(const struct dl_phdr_info *object, uintptr_t address)
{
    uintptr_t page_size = (uintptr_t)sysconf(_SC_PAGESIZE), page = address & ~(page_size - 1);
    int read_only = is_read_only(object, page, page_size);
    if (read_only && mprotect((void *)page, page_size, PROT_READ | PROT_WRITE) != 0) {
        return 0;
    }
    atomic_store_explicit((_Atomic uintptr_t *)address, (uintptr_t)&identity_or_self, memory_order_release);
    if (read_only) {
        /* If this fails the slot is merely writable, which is harmless. */
        mprotect((void *)page, page_size, PROT_READ);
    }
    return 1;
}

static int redirect_object(struct dl_phdr_info *object, size_t size, void *count)
{
    (void)size;
    if (!object_contains(object, offset_interpreter_address())) {
        return 0;
    }
    struct imports imports = {0};
    read_dynamic(object, &imports);
    for (int table = 0; table < 2 && imports.symbols != NULL && imports.names != NULL; table++) {
        const ElfW(Rela) *relocation = imports.relocations[table];
        if (relocation == NULL) {
            continue;
        }
        for (size_t i = 0; i < imports.sizes[table] / sizeof *relocation; i++) {
            unsigned type = (unsigned)ELF64_R_TYPE(relocation[i].r_info);
            const ElfW(Sym) *symbol = &imports.symbols[ELF64_R_SYM(relocation[i].r_info)];
            if ((type == JUMP_SLOT || type == GLOB_DAT) && strcmp(imports.names + symbol->st_name, "pthread_self") == 0) {
                *(int *)count += redirect(object, object->dlpi_addr + relocation[i].r_offset);
            }
        }
    }
    return 1;
}

/* Whether the interpreter now sees the identity: the slot may not be what it calls by (a static link, a prelinked object). */
static int takes_effect(void)
{
    static char witness[64];
    uintptr_t before = current_identity;
    current_identity = (uintptr_t)witness;
    int seen = PyThread_get_thread_ident() == (unsigned long)(uintptr_t)witness;
    current_identity = before;
    return seen;
}

int offset_identity_install(void)
{
    static int slots;
    if (slots == 0) {
        *(void **)&real_self = dlsym(RTLD_DEFAULT, "pthread_self");
        if (real_self != NULL) {
            dl_iterate_phdr(redirect_object, &slots);
        }
        if (!takes_effect()) {
            slots = 0;
        }
    }
    return slots;
}

#else

int offset_identity_install(void)
{
    return 0;
}

#endif
