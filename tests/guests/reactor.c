/* A WASI reactor: no _start, an _initialize that already reaches an import, and exports called by an embedder.
 *
 * State lives between calls (a counter), one export reaches WASI (stamp), the others only memory.
 */
#include <stdint.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#define EXPORT(name) __attribute__((export_name(name)))

static uint32_t seed;
static uint64_t counter;

__attribute__((constructor)) static void draw_seed(void) { getentropy(&seed, sizeof seed); }

EXPORT("alloc") void *guest_alloc(size_t size) { return malloc(size); }

EXPORT("free") void guest_free(void *pointer) { free(pointer); }

EXPORT("add") int32_t add(int32_t a, int32_t b) { return (int32_t)((uint32_t)a + (uint32_t)b); }

EXPORT("sum") uint64_t sum(const uint8_t *bytes, size_t length) {
    uint64_t total = 0;
    for (size_t i = 0; i < length; i++) total += bytes[i];
    return total;
}

EXPORT("count") uint64_t count(void) { return ++counter; }

EXPORT("seed") uint32_t get_seed(void) { return seed; }

EXPORT("stamp") uint64_t stamp(void) {
    struct timespec now;
    return clock_gettime(CLOCK_REALTIME, &now) == 0 ? now.tv_sec * 1000000000ull + now.tv_nsec : 0;
}
