/* One fd_write of argv[1] bytes (up to 1 GiB) from one buffer: outgoing bytes larger than any journal window.
 *
 * argv[2] is the file to write; stdout if not given. Byte i is i * 7 + (i >> 8). Says on stderr what was accepted.
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
    int fd = argc > 2 ? open(argv[2], O_CREAT | O_TRUNC | O_WRONLY, 0644) : 1;
    if (fd < 0) return 2;
    uint8_t *buffer = grow(size);
    for (size_t i = 0; i < size; i++) buffer[i] = (uint8_t)(i * 7 + (i >> 8));
    ssize_t put = write(fd, buffer, size);
    if (put < 0) {
        perror("big_write");
        return 3;
    }
    fprintf(stderr, "asked %zu wrote %zd\n", size, put);
    return 0;
}
