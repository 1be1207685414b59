/* Mixed imports with pure compute between them, for instruction limits: a stop may fall anywhere.
 *
 * argv[1] rounds (1000 if not given); each round mixes a state for a data-dependent time, then by turns reads a clock,
 * asks for random bytes, prints a line, and appends to /work/mixed.log where that directory is given.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static uint64_t state = 0x9e3779b97f4a7c15u;

static uint64_t mix(unsigned turns) {
    for (unsigned i = 0; i < turns; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    return state;
}

int main(int argc, char **argv) {
    long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 1000;
    int log = open("/work/mixed.log", O_CREAT | O_TRUNC | O_WRONLY, 0644);
    for (long round = 0; round < rounds; round++) {
        mix(100 + state % 400);
        char line[64];
        switch (round % 4) {
        case 0: {
            struct timespec now;
            if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) return 1;
            state += now.tv_nsec;
            break;
        }
        case 1: {
            uint64_t noise;
            if (getentropy(&noise, sizeof noise) != 0) return 2;
            state ^= noise | 1;
            break;
        }
        case 2: {
            int length = snprintf(line, sizeof line, "%ld %016llx\n", round, (unsigned long long)state);
            if (write(1, line, length) != length) return 3;
            break;
        }
        default: {
            int length = snprintf(line, sizeof line, "round %ld\n", round);
            if (log >= 0 && write(log, line, length) != length) return 4;
        }
        }
    }
    printf("end %016llx\n", (unsigned long long)state);
    return 0;
}
