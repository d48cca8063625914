// A plugin in C: a core module whose functions take bytes and give bytes (docs/plugins.md, "Core modules"). It needs no
// library. `tests/guests/build OUT c` builds it.
#include <stddef.h>

#define EXPORT(name) __attribute__((export_name(name)))

static unsigned char heap[1 << 20];
static size_t used;

// Memory for arguments. An instance that serves one call needs no better one.
EXPORT("cabi_realloc")
void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
    used = (used + align - 1) / align * align;
    if (size > sizeof heap - used) {
        __builtin_trap();
    }
    unsigned char *place = heap + used;
    used += size;
    for (size_t i = 0; i < old_size && i < size; i++) {
        place[i] = ((unsigned char *)old)[i];
    }
    return place;
}

struct bytes {
    unsigned char *at;
    size_t length;
};
static struct bytes answer;

// reverse: func(input: list<u8>) -> list<u8>
EXPORT("reverse")
struct bytes *reverse(unsigned char *at, size_t length) {
    for (size_t i = 0; i < length / 2; i++) {
        unsigned char byte = at[i];
        at[i] = at[length - 1 - i];
        at[length - 1 - i] = byte;
    }
    answer = (struct bytes){at, length};
    return &answer;
}
