/* Benchmark: a compiler from a small language to bytecode, and a stack machine that runs it.
 *
 * Scale: rounds over the three programs below (default 50): primes by sieve, n-body with floats, string operations.
 * Values are f64; names are variables, name[...] are arrays; a string initializes an array with its characters.
 *
 *     statement  = name "=" expr ";" | name "[" expr "]" "=" expr ";" | "array" name (expr | string) ";"
 *                | "while" expr block | "if" expr block ["else" block] | "print" expr ";"
 *     expr       = comparison of sums of products of: number, name, name[expr], (expr), -x, sqrt(x),
 *                  floor(x), len(name)
 */
#include <ctype.h>
#include <math.h>

#include "common.h"

static const char PRIMES[] =
    "n = 60000; array sieve (n + 1); i = 2;"
    "while i * i <= n { if sieve[i] == 0 { j = i * i; while j <= n { sieve[j] = 1; j = j + i; } } i = i + 1; }"
    "count = 0; sum = 0; i = 2;"
    "while i <= n { if sieve[i] == 0 { count = count + 1; sum = (sum * 31 + i) % 1000003; } i = i + 1; }"
    "print count; print sum;";

static const char NBODY[] =
    "n = 5; dt = 0.001; array x n; array y n; array z n; array u n; array v n; array w n; array m n; i = 0;"
    "while i < n { x[i] = i * 1.7 - 3; y[i] = i * i * 0.31 - 1; z[i] = 0.2 * i; u[i] = 0.1 * i; v[i] = 0.3 - 0.1 * i;"
    "  w[i] = 0.01 * i; m[i] = 1 + 0.5 * i; i = i + 1; }"
    "step = 0;"
    "while step < 1500 { i = 0;"
    "  while i < n { j = i + 1;"
    "    while j < n { dx = x[i] - x[j]; dy = y[i] - y[j]; dz = z[i] - z[j]; d = dx * dx + dy * dy + dz * dz + 0.01;"
    "      g = dt / (d * sqrt(d));"
    "      u[i] = u[i] - dx * m[j] * g; v[i] = v[i] - dy * m[j] * g; w[i] = w[i] - dz * m[j] * g;"
    "      u[j] = u[j] + dx * m[i] * g; v[j] = v[j] + dy * m[i] * g; w[j] = w[j] + dz * m[i] * g; j = j + 1; }"
    "    i = i + 1; }"
    "  i = 0; while i < n { x[i] = x[i] + dt * u[i]; y[i] = y[i] + dt * v[i]; z[i] = z[i] + dt * w[i]; i = i + 1; }"
    "  step = step + 1; }"
    "e = 0; i = 0; while i < n { e = e + 0.5 * m[i] * (u[i] * u[i] + v[i] * v[i] + w[i] * w[i]); i = i + 1; }"
    "print e; print x[0]; print y[4];";

static const char STRINGS[] =
    "array text \"it was the best of times, it was the worst of times, it was the age of wisdom\";"
    "n = len(text); array out (n * 2); array seen 128; round = 0; hash = 7;"
    "while round < 400 { i = 0; o = 0;"
    "  while i < n { c = text[n - 1 - i]; if c == 32 { c = 95; } else { if c >= 97 { c = 97 + (c - 97 + 13) % 26; } }"
    "    out[o] = c; o = o + 1; seen[c] = seen[c] + 1; i = i + 1; }"
    "  i = 0; while i < o { hash = (hash * 33 + out[i]) % 16777213; i = i + 1; }"
    "  i = 0; words = 1; while i < o { if out[i] == 95 { words = words + 1; } i = i + 1; }"
    "  i = 0; while i < n { text[i] = text[i]; if text[i] == 101 { text[i] = 97 + round % 26; } i = i + 1; }"
    "  round = round + 1; }"
    "print hash; print words; print seen[95];";

typedef enum {
    PUSH, LOAD, STORE, INDEX, PUT, NEW, FILL, LENGTH, ADD, SUB, MUL, DIV, MOD, NEGATE,
    LESS, LESS_EQUAL, EQUAL, NOT_EQUAL, SQRT, FLOOR, JUMP, JUMP_IF_ZERO, PRINT, HALT,
} Operation;

typedef struct {
    Operation operation;
    int32_t operand;
} Instruction;

enum { CODE = 4096, NAMES = 64, CONSTANTS = 512, STACK = 64 };

static Instruction code[CODE];
static int code_size, name_count, constant_count;
static char names[NAMES][16];
static double constants[CONSTANTS];
static const char *strings[NAMES];
static int string_count;

/* ---- the compiler: recursive descent, straight to code ---- */

static const char *at;

static void blank(void) {
    while (isspace((unsigned char)*at)) at++;
}

static int accept(const char *token) {
    blank();
    size_t size = strlen(token);
    if (strncmp(at, token, size) != 0) return 0;
    if (isalpha((unsigned char)*token) && isalnum((unsigned char)at[size])) return 0;
    at += size;
    return 1;
}

static void expect(const char *token) { require(accept(token), token); }

static int add(Operation operation, int32_t operand) {
    require(code_size < CODE, "code overflow");
    code[code_size] = (Instruction){operation, operand};
    return code_size++;
}

static int name(void) {
    char word[16];
    int size = 0;
    blank();
    require(isalpha((unsigned char)*at), "a name");
    while (isalnum((unsigned char)*at) && size < 15) word[size++] = *at++;
    word[size] = 0;
    for (int i = 0; i < name_count; i++)
        if (strcmp(names[i], word) == 0) return i;
    require(name_count < NAMES, "too many names");
    strcpy(names[name_count], word);
    return name_count++;
}

static void expression(void);

static void primary(void) {
    blank();
    if (isdigit((unsigned char)*at)) {
        double whole = 0, unit = 1;
        for (; isdigit((unsigned char)*at); at++) whole = whole * 10 + (*at - '0');
        if (*at == '.')
            for (at++; isdigit((unsigned char)*at); at++) whole = whole * 10 + (*at - '0'), unit *= 10;
        require(constant_count < CONSTANTS, "too many constants");
        constants[constant_count] = whole / unit;
        add(PUSH, constant_count++);
    } else if (accept("(")) expression(), expect(")");
    else if (accept("-")) primary(), add(NEGATE, 0);
    else if (accept("sqrt")) primary(), add(SQRT, 0);
    else if (accept("floor")) primary(), add(FLOOR, 0);
    else if (accept("len")) expect("("), add(LENGTH, name()), expect(")");
    else {
        int which = name();
        if (accept("[")) expression(), expect("]"), add(INDEX, which);
        else add(LOAD, which);
    }
}

static void product(void) {
    primary();
    for (;;) {
        if (accept("*")) primary(), add(MUL, 0);
        else if (accept("/")) primary(), add(DIV, 0);
        else if (accept("%")) primary(), add(MOD, 0);
        else return;
    }
}

static void sum(void) {
    product();
    for (;;) {
        if (accept("+")) product(), add(ADD, 0);
        else if (accept("-")) product(), add(SUB, 0);
        else return;
    }
}

static void expression(void) {
    sum();
    if (accept("==")) sum(), add(EQUAL, 0);
    else if (accept("!=")) sum(), add(NOT_EQUAL, 0);
    else if (accept("<=")) sum(), add(LESS_EQUAL, 0);
    else if (accept(">=")) sum(), add(LESS, 1); /* not less */
    else if (accept("<")) sum(), add(LESS, 0);
}

static void block(void);

static void statement(void) {
    if (accept("while")) {
        int top = code_size;
        expression();
        int out = add(JUMP_IF_ZERO, 0);
        block();
        add(JUMP, top);
        code[out].operand = code_size;
    } else if (accept("if")) {
        expression();
        int otherwise = add(JUMP_IF_ZERO, 0);
        block();
        if (accept("else")) {
            int out = add(JUMP, 0);
            code[otherwise].operand = code_size;
            block();
            code[out].operand = code_size;
        } else code[otherwise].operand = code_size;
    } else if (accept("array")) {
        int which = name();
        if (accept("\"")) {
            require(string_count < NAMES, "too many strings");
            constants[constant_count] = string_count;
            strings[string_count++] = at;
            while (*at++ != '"') {}
            add(PUSH, constant_count++);
            add(FILL, which);
        } else expression(), add(NEW, which);
        expect(";");
    } else if (accept("print")) {
        expression();
        add(PRINT, 0);
        expect(";");
    } else {
        int which = name(), element = accept("[");
        if (element) expression(), expect("]");
        expect("=");
        expression();
        expect(";");
        add(element ? PUT : STORE, which);
    }
}

static void block(void) {
    expect("{");
    while (!accept("}")) statement();
}

static void compile(const char *source) {
    code_size = name_count = constant_count = string_count = 0;
    for (at = source, blank(); *at; blank()) statement();
    add(HALT, 0);
}

/* ---- the machine ---- */

typedef struct {
    double *cells;
    uint32_t size;
} Array;

static Array arrays[NAMES];
static double variables[NAMES];

static void resize(Array *array, double size) {
    free(array->cells);
    array->size = (uint32_t)size;
    array->cells = need(array->size * sizeof(double));
    memset(array->cells, 0, array->size * sizeof(double));
}

static double *element(int which, double index) {
    require(index >= 0 && index < arrays[which].size, "an index inside the array");
    return &arrays[which].cells[(uint32_t)index];
}

static uint64_t run(uint64_t checksum, uint64_t *executed) {
    double stack[STACK], *top = stack - 1;
    for (const Instruction *next = code;;) {
        Instruction now = *next++;
        ++*executed;
        switch (now.operation) {
        case PUSH: *++top = constants[now.operand]; break;
        case LOAD: *++top = variables[now.operand]; break;
        case STORE: variables[now.operand] = *top--; break;
        case INDEX: *top = *element(now.operand, *top); break;
        case PUT: *element(now.operand, top[-1]) = *top; top -= 2; break;
        case NEW: resize(&arrays[now.operand], *top--); break;
        case FILL: {
            const char *string = strings[(int)*top--];
            uint32_t size = (uint32_t)(strchr(string, '"') - string);
            resize(&arrays[now.operand], size);
            for (uint32_t i = 0; i < size; i++) arrays[now.operand].cells[i] = string[i];
            break;
        }
        case LENGTH: *++top = arrays[now.operand].size; break;
        case ADD: top--; *top += top[1]; break;
        case SUB: top--; *top -= top[1]; break;
        case MUL: top--; *top *= top[1]; break;
        case DIV: top--; *top /= top[1]; break;
        case MOD: top--; *top -= floor(*top / top[1]) * top[1]; break;
        case NEGATE: *top = -*top; break;
        case LESS: top--; *top = (*top < top[1]) != now.operand; break;
        case LESS_EQUAL: top--; *top = *top <= top[1]; break;
        case EQUAL: top--; *top = *top == top[1]; break;
        case NOT_EQUAL: top--; *top = *top != top[1]; break;
        case SQRT: *top = sqrt(*top); break;
        case FLOOR: *top = floor(*top); break;
        case JUMP: next = code + now.operand; break;
        case JUMP_IF_ZERO: if (*top-- == 0) next = code + now.operand; break;
        case PRINT: checksum = fnv1a(checksum, top--, sizeof(double)); break;
        case HALT: return checksum;
        }
    }
}

int main(int argc, char **argv) {
    static const char *const programs[] = {PRIMES, NBODY, STRINGS};
    long rounds = scale_argument(argc, argv, 50);
    uint64_t started = clock_ns(), checksum = 0, executed = 0;
    for (long round = 0; round < rounds; round++) {
        for (int i = 0; i < 3; i++) {
            compile(programs[i]);
            checksum = run(checksum, &executed);
        }
    }
    printf("%llu instructions\n", (unsigned long long)executed);
    return report("interp", rounds, checksum, started);
}
