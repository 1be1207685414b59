/* Benchmark: many small fd_writes with some compute between them.
 *
 * Scale: thousands of writes (default 400). Every line is written unbuffered, alternately to stdout and to a file in
 * the preopened directory given as argv[2] (stdout only without it); between two writes a small state is mixed.
 */
#include <fcntl.h>
#include <unistd.h>

#include "common.h"

static uint64_t work(uint64_t *cells, int size) {
    uint64_t sum = 0;
    for (int i = 0; i < size; i++) {
        cells[i] = cells[i] * 6364136223846793005u + cells[(i * 7 + 1) % size] + 1442695040888963407u;
        sum ^= cells[i] >> (i % 31);
    }
    return sum;
}

int main(int argc, char **argv) {
    long scale = scale_argument(argc, argv, 400);
    uint64_t started = clock_ns(), checksum = 0, cells[256];
    int file = -1;
    if (argc > 2) {
        char path[256];
        snprintf(path, sizeof path, "%s/write_heavy.log", argv[2]);
        file = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
        require(file >= 0, "the log file opens");
    }
    for (int i = 0; i < 256; i++) cells[i] = random_next();
    for (long n = 0; n < scale * 1000; n++) {
        uint64_t value = work(cells, 256);
        char line[32];
        int size = 0;
        for (int shift = 60; shift >= 0; shift -= 4) line[size++] = "0123456789abcdef"[value >> shift & 15];
        line[size++] = '\n';
        require(write(file >= 0 && n % 2 ? file : 1, line, (size_t)size) == size, "the line is written");
        checksum = fnv1a(checksum, line, (size_t)size);
    }
    return report("write_heavy", scale, checksum, started);
}
