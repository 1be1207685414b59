/* The all-round WASI command: one of everything a recording must carry.
 *
 * Reads argv, the environment, both clocks and random bytes; writes, lists and reads back files in the preopened
 * directory /work; prints to stdout and stderr; exits with argc - 1, so that a replayed exit code is visible.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void print_clock(const char *name, clockid_t clock) {
    struct timespec now;
    if (clock_gettime(clock, &now) != 0) {
        perror(name);
        exit(100);
    }
    printf("%s %lld.%09ld\n", name, (long long)now.tv_sec, now.tv_nsec);
}

int main(int argc, char **argv) {
    for (int i = 0; i < argc; i++) printf("argv[%d] %s\n", i, argv[i]);
    for (char **entry = environ; *entry; entry++) printf("env %s\n", *entry);

    print_clock("realtime", CLOCK_REALTIME);
    print_clock("monotonic", CLOCK_MONOTONIC);

    uint8_t bytes[16];
    char hex[2 * sizeof bytes + 1];
    if (getentropy(bytes, sizeof bytes) != 0) return 101;
    for (size_t i = 0; i < sizeof bytes; i++) snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    printf("random %s\n", hex);

    int fd = open("/work/notes.txt", O_CREAT | O_TRUNC | O_RDWR, 0644);
    if (fd < 0) {
        perror("/work/notes.txt");
        return 102;
    }
    dprintf(fd, "id %s\nargc %d\n", hex, argc);
    struct stat status;
    if (fstat(fd, &status) != 0 || lseek(fd, 0, SEEK_SET) != 0) return 103;
    char text[256];
    ssize_t length = read(fd, text, sizeof text - 1);
    if (length < 0) return 104;
    text[length] = 0;
    printf("file %lld bytes: %s", (long long)status.st_size, text);
    close(fd);

    DIR *directory = opendir("/work");
    if (!directory) return 105;
    for (struct dirent *entry; (entry = readdir(directory));) printf("entry %s\n", entry->d_name);
    closedir(directory);

    if (open("/work/missing.txt", O_RDONLY) >= 0) return 106; /* an expected errno is an event too */
    fprintf(stderr, "clock_random_file: done, exit %d\n", argc - 1);
    return argc - 1;
}
