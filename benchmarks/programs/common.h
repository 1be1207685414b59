/* Shared by the benchmark programs: the fixed PRNG, the scale argument, and how a result is reported.
 *
 * Every program takes one optional argument, its scale, and prints one deterministic line on stdout
 * ("<name> scale <n> checksum <16 hex digits>"); what it read from the clock goes to stderr.
 */
#ifndef REPRISE_BENCHMARK_COMMON_H
#define REPRISE_BENCHMARK_COMMON_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t random_state = 0x243f6a8885a308d3u;

/* xorshift64*: the same input on every run and machine. */
static inline uint64_t random_next(void) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545f4914f6cdd1du;
}

static inline uint32_t random_below(uint32_t limit) { return (uint32_t)(((random_next() >> 32) * limit) >> 32); }

static inline uint64_t fnv1a(uint64_t hash, const void *data, size_t size) {
    const uint8_t *bytes = data;
    if (!hash) hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

static inline void require(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

static inline void *need(size_t size) {
    void *memory = malloc(size ? size : 1);
    require(memory != NULL, "out of memory");
    return memory;
}

static inline long scale_argument(int argc, char **argv, long otherwise) {
    long scale = argc > 1 ? strtol(argv[1], NULL, 10) : otherwise;
    require(scale > 0, "the scale is a positive number");
    return scale;
}

static inline uint64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static inline int report(const char *name, long scale, uint64_t checksum, uint64_t started) {
    fprintf(stderr, "%s %.1f ms\n", name, (double)(clock_ns() - started) / 1e6);
    printf("%s scale %ld checksum %016llx\n", name, scale, (unsigned long long)checksum);
    return 0;
}

#endif
