/* The embedder-poke pattern: alloc(n), the embedder writes into memory itself, run(p, n), the embedder reads it back.
 *
 * Freestanding: no imports at all, so the pokes are the only input. run reverses the bytes in place, upper-cases
 * ASCII letters and returns their FNV-1a hash. alloc is a bump allocator that grows memory; reset() starts it over.
 */
#include <stddef.h>
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(name)))

extern uint8_t __heap_base;
static uintptr_t next;

EXPORT("reset") void reset(void) { next = 0; }

EXPORT("alloc") void *alloc(size_t size) {
    if (!next) next = ((uintptr_t)&__heap_base + 15) & ~(uintptr_t)15;
    uintptr_t start = next, end = start + ((size + 15) & ~(size_t)15);
    uintptr_t have = __builtin_wasm_memory_size(0) << 16;
    if (end < start) return NULL;
    if (end > have && __builtin_wasm_memory_grow(0, (end - have + 0xffff) >> 16) == (size_t)-1) return NULL;
    next = end;
    return (void *)start;
}

EXPORT("run") uint64_t run(uint8_t *bytes, size_t length) {
    for (size_t i = 0, j = length; i + 1 < j; i++) {
        uint8_t swapped = bytes[--j];
        bytes[j] = bytes[i];
        bytes[i] = swapped;
    }
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < length; i++) {
        if (bytes[i] >= 'a' && bytes[i] <= 'z') bytes[i] -= 'a' - 'A';
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    }
    return hash;
}
