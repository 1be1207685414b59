/* Sits inside one poll_oneoff that does not return: for deadlines, signals and the watchdog.
 *
 * argv[1] is the number of seconds (3600 if not given). Prints "sleeping" before and "awake" after.
 */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct timespec pause = {.tv_sec = argc > 1 ? strtol(argv[1], NULL, 10) : 3600};
    write(1, "sleeping\n", 9);
    if (clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL) != 0) return 1;
    write(1, "awake\n", 6);
    return 0;
}
