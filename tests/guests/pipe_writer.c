/* A writer to kill: argv[1] lines, each one unbuffered fd_write of "<n>\n" after a random and a clock read.
 *
 * A test that kills the recorder reads the pipe and knows from the last whole line how many effects had completed.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    long count = argc > 1 ? strtol(argv[1], NULL, 10) : 1000;
    for (long n = 1; n <= count; n++) {
        uint64_t noise;
        struct timespec now;
        if (getentropy(&noise, sizeof noise) != 0 || clock_gettime(CLOCK_MONOTONIC, &now) != 0) return 1;
        char line[24];
        int length = snprintf(line, sizeof line, "%ld\n", n);
        if (write(1, line, length) != length) return 2;
    }
    return 0;
}
