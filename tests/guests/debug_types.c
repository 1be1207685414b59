/* One of everything a debugger has to show; tests/unit/test_source_*.py name its lines and values.
 *
 * Freestanding. `run(seed)` fills variables of every kind and calls `stop` where a test looks at them.
 */
typedef unsigned char byte;
typedef unsigned long long u64;

#define EXPORT(name) __attribute__((export_name(name)))
__attribute__((import_module("env"), import_name("stop"))) void stop(int where);

enum color { RED, GREEN = 5, BLUE = -2 };

struct point {
    short x;
    int y;
};

struct node {
    int value;
    struct node *next;
};

union number {
    unsigned bits;
    float real;
};

struct packet {
    unsigned version : 3;
    unsigned flags : 5;
    int delta : 9;
    const char *label;
    byte name[8];
    struct point corners[2];
    union number number;
};

struct slice {
    const int *ptr;
    unsigned len;
};

typedef int (*operation)(int, int);

static const char greeting[] = "hi \"there\"\n";
static const int numbers[] = {10, 20, 30, 40};
int counter = 40;
struct node tail = {2, 0};
struct node head = {1, &tail};

static int add(int a, int b) { return a + b; }

static int multiply(int a, int b) {
    int product = a * b;
    return product;
}

__attribute__((noinline)) int apply(operation what, int times) {
    int total = 1;
    for (int i = 0; i < times; i++) {
        int before = total;
        total = what(total, i + 2);
        if (before > total) stop(before);
    }
    return total;
}

EXPORT("run") int run(int seed) {
    signed char small = -7;
    byte letter = 'A';
    unsigned short port = 65535;
    u64 big = 0xfedcba9876543210u;
    long long negative = -5000000000;
    unsigned __int128 wide = ((unsigned __int128)1 << 100) + 3;
    _Bool yes = 1;
    float third = 0.25f;
    double pi = -3.5;
    enum color paint = GREEN;
    enum color odd = (enum color)77;
    const char *text = greeting;
    const int *where = &counter;
    void *nothing = 0;
    int grid[2][3] = {{1, 2, 3}, {4, 5, seed}};
    char word[6] = "hey";
    struct packet packet = {5, 17, -100, greeting, "name", {{-1, 2}, {3, -4}}, {0x40490fdb}};
    struct node *list = &head;
    operation op = seed > 1000 ? multiply : add;
    struct slice part = {numbers + 1, 3};
    int large[150] = {7};
    volatile int keep = seed;
    stop(1);
    {
        int keep = 99;
        int *inner = &keep;
        stop(*inner);
    }
    counter += apply(op, 3) + keep;
    stop((int)(small + letter + port + big + negative + wide + yes + paint + odd + grid[1][2] + word[0]));
    stop((int)(third + pi) + packet.delta + list->value + *where + (nothing != 0) + text[0] + part.ptr[0] + large[9]);
    return counter;
}

EXPORT("square_sum") int square_sum(int a, int b) {
    int first = multiply(a, a);
    stop(first);
    int second = multiply(b, b);
    return first + second;
}

/* What Zig makes of `?int` and of a tagged union, by the names of the members; a test tells the reader that it is Zig. */
enum which { empty, circle, box };
struct maybe {
    int payload;
    byte some;
};
struct shape {
    union {
        float circle;
        short box[2];
    } payload;
    enum which tag;
};
struct maybe nothing_there = {8, 0}, five = {5, 1};
struct shape a_box = {{.box = {3, 4}}, box}, an_empty = {{0}, empty};

EXPORT("keep") void *keep(int index) {
    void *all[] = {&nothing_there, &five, &a_box, &an_empty};
    return all[index];
}

EXPORT("many") int many(int count) {
    int squares[count];
    for (int i = 0; i < count; i++) squares[i] = i * i;
    stop(squares[0]);
    return squares[count - 1];
}
