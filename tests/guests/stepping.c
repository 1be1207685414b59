/* What a step can meet: recursion, loops, nested calls, calls through pointers, early returns, callbacks, traps.
 *
 * Freestanding. tests/timetravel steps through it and names its functions and lines; built without and with optimisation.
 */
#define EXPORT(name) __attribute__((export_name(name)))
__attribute__((import_module("host"), import_name("next"))) int next(int n);
__attribute__((import_module("host"), import_name("again"))) int again(int n);

int counter = 3;
int table[8];
char text[32];
char copy[32];

__attribute__((noinline)) static int square(int x) { return x * x; }

__attribute__((noinline)) static int clamp(int x)
{
    if (x < 0)
        return 0;
    if (x > 100)
        return 100;
    return x;
}

__attribute__((noinline)) static int factorial(int n)
{
    if (n <= 1)
        return 1;
    int rest = factorial(n - 1);
    return n * rest;
}

__attribute__((noinline)) static int odd(int n);

__attribute__((noinline)) static int even(int n)
{
    if (n == 0)
        return 1;
    return odd(n - 1);
}

static int odd(int n)
{
    if (n == 0)
        return 0;
    return even(n - 1);
}

/* A function the debug information knows nothing of. */
__attribute__((noinline, nodebug)) static int unknown(int x)
{
    int first = square(x);
    return first + square(1);
}

typedef int (*operation)(int);
operation volatile operations[2] = {square, clamp};

static inline int twice(int x)
{
    int double_ = x + x;
    return double_;
}

EXPORT("run") int run(int n)
{
    int sum = 0;
    for (int i = 0; i < n; i++) {
        sum += square(i);
        table[i & 7] = sum;
    }
    sum += clamp(square(n) + clamp(-n));
    sum += factorial(4);
    sum += even(3);
    sum += operations[n & 1](n);
    sum += unknown(n);
    sum += twice(sum);
    __builtin_memset(text, 'a' + n, sizeof text);
    __builtin_memcpy(copy + 4, text, 16);
    sum += next(sum);
    counter += sum;
    return counter;
}

EXPORT("host") int host(int n)
{
    int got = again(n);
    got += next(got);
    return got + 1;
}

EXPORT("inner") int inner(int n)
{
    counter += n;
    int result = square(n);
    return result;
}

EXPORT("fail") int fail(int n)
{
    int kept = clamp(n);
    if (n > 1)
        kept = fail(n - 1);
    if (n == 1)
        __builtin_trap();
    return kept;
}

EXPORT("nothing") void nothing(void) {}
