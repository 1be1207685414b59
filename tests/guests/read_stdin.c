/* Blocks in fd_read on stdin and echoes what arrives, one write per read, until end of file.
 *
 * Prints "waiting" on stderr before the first read, so that a test knows when it is blocked.
 */
#include <unistd.h>

int main(void) {
    char buffer[4096];
    write(2, "waiting\n", 8);
    for (;;) {
        ssize_t got = read(0, buffer, sizeof buffer);
        if (got < 0) return 1;
        if (got == 0) return 0;
        for (ssize_t done = 0; done < got;) {
            ssize_t put = write(1, buffer + done, got - done);
            if (put < 0) return 2;
            done += put;
        }
    }
}
