/* One fd_read of argv[1] bytes (up to 1 GiB) into one buffer: a payload larger than any journal window.
 *
 * argv[2] is the file to read; stdin if not given. Prints how much the single call returned and its checksum.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Exactly as many new pages as the buffer needs; malloc would round up to a power of two. */
static uint8_t *grow(size_t size) {
    size_t page = __builtin_wasm_memory_grow(0, (size + 0xffff) >> 16);
    if (page == (size_t)-1) exit(2);
    return (uint8_t *)(page << 16);
}

int main(int argc, char **argv) {
    size_t size = argc > 1 ? strtoul(argv[1], NULL, 10) : 1 << 20;
    if (size > 1u << 30) return 1;
    int fd = argc > 2 ? open(argv[2], O_RDONLY) : 0;
    if (fd < 0) return 2;
    uint8_t *buffer = grow(size);
    ssize_t got = read(fd, buffer, size);
    if (got < 0) {
        perror("big_read");
        return 3;
    }
    uint64_t checksum = 0xcbf29ce484222325u; /* FNV-1a */
    for (ssize_t i = 0; i < got; i++) checksum = (checksum ^ buffer[i]) * 0x100000001b3u;
    printf("asked %zu got %zd fnv1a %016llx\n", size, got, (unsigned long long)checksum);
    return 0;
}
