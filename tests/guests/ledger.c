/* One wrong byte, and what comes of it: a name that is a byte too long reaches the number behind it, from which an index is
 * computed, through which the run traps.
 *
 * Freestanding, and without a libc: every store is one that stands here. Built with and without debug information;
 * tests/inspector looks for the line that wrote the byte, and for the one that the trap goes back to.
 */
#define EXPORT(name) __attribute__((export_name(name)))

struct bytes {
    const char *at;
    unsigned length;
};

__attribute__((import_module("wasi_snapshot_preview1"), import_name("fd_write"))) int fd_write(
    int fd, const struct bytes *pieces, int count, unsigned *written);

struct entry {
    char name[8];
    unsigned char slot; /* which of the totals it counts for */
    unsigned amount;
};

static struct entry entries[4];
static unsigned totals[16];

__attribute__((noinline)) static void say(const char *text, unsigned length)
{
    struct bytes piece = {text, length};
    unsigned written;
    fd_write(1, &piece, 1, &written);
}

__attribute__((noinline)) static void open_entry(struct entry *entry, unsigned char slot, unsigned amount)
{
    entry->slot = slot;
    entry->amount = amount;
}

/* Copies a name: one byte more than there is room for. */
__attribute__((noinline)) static void label(struct entry *entry, const char *name)
{
    for (int i = 0; i <= 8; i++)
        entry->name[i] = name[i];
}

__attribute__((noinline)) static void count(const struct entry *entry)
{
    unsigned index = entry->slot * 0x01000000u;
    totals[index] += entry->amount;
}

EXPORT("_start") void start(void)
{
    for (unsigned i = 0; i < 4; i++)
        open_entry(&entries[i], 0, 100 * i);
    say("opened\n", 7);
    label(&entries[2], "journeysQ");
    label(&entries[1], "offices\0");
    say("named\n", 6);
    for (unsigned i = 0; i < 4; i++)
        count(&entries[i]);
    say("counted\n", 8);
}
