/* Benchmark: a JSON parser and serializer over generated documents.
 *
 * Scale: documents of about 64 KiB (default 1600). Each is parsed into a tree, walked, serialized, and compared with
 * the text it came from.
 */
#include "common.h"

typedef enum { NIL, FALSE_, TRUE_, NUMBER, STRING, ARRAY, OBJECT } Kind;

typedef struct Value {
    Kind kind;
    struct Value *next;   /* the next element or member */
    struct Value *first;  /* of an array or object */
    const char *key;      /* of a member, with its length */
    uint32_t key_length;
    const char *string;   /* decoded */
    uint32_t string_length;
    double number;
} Value;

/* ---- an arena: one document's values, thrown away at once ---- */

static char *arena;
static size_t arena_at, arena_size;

static void *take(size_t size) {
    size = (size + 7) & ~(size_t)7;
    require(arena_at + size <= arena_size, "arena overflow");
    void *memory = arena + arena_at;
    arena_at += size;
    return memory;
}

/* ---- the serializer, which also writes the generated documents ---- */

typedef struct {
    char *text;
    size_t at, size;
} Text;

static void emit(Text *out, const char *text, size_t size) {
    require(out->at + size <= out->size, "text overflow");
    memcpy(out->text + out->at, text, size);
    out->at += size;
}

static void emit_char(Text *out, char c) { emit(out, &c, 1); }

static void emit_string(Text *out, const char *string, size_t size) {
    emit_char(out, '"');
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)string[i];
        if (c == '"' || c == '\\') emit_char(out, '\\'), emit_char(out, (char)c);
        else if (c == '\n') emit(out, "\\n", 2);
        else if (c < 32) {
            char escape[6] = {'\\', 'u', '0', '0', (char)('0' + (c >> 4)), "0123456789abcdef"[c & 15]};
            emit(out, escape, 6);
        } else emit_char(out, (char)c);
    }
    emit_char(out, '"');
}

static void emit_number(Text *out, double number) { /* up to three decimals, exactly */
    char digits[32];
    int at = sizeof digits, negative = number < 0;
    uint64_t thousandths = (uint64_t)((negative ? -number : number) * 1000 + 0.5);
    uint64_t whole = thousandths / 1000, rest = thousandths % 1000;
    if (rest) {
        for (int i = 0, wrote = 0; i < 3; i++, rest /= 10) {
            if (rest % 10 || wrote) digits[--at] = (char)('0' + rest % 10), wrote = 1;
        }
        digits[--at] = '.';
    }
    do digits[--at] = (char)('0' + whole % 10);
    while (whole /= 10);
    if (negative) digits[--at] = '-';
    emit(out, digits + at, sizeof digits - at);
}

static void serialize(Text *out, const Value *value) {
    switch (value->kind) {
    case NIL: emit(out, "null", 4); break;
    case FALSE_: emit(out, "false", 5); break;
    case TRUE_: emit(out, "true", 4); break;
    case NUMBER: emit_number(out, value->number); break;
    case STRING: emit_string(out, value->string, value->string_length); break;
    case ARRAY:
    case OBJECT:
        emit_char(out, value->kind == ARRAY ? '[' : '{');
        for (const Value *item = value->first; item; item = item->next) {
            if (value->kind == OBJECT) emit_string(out, item->key, item->key_length), emit_char(out, ':');
            serialize(out, item);
            if (item->next) emit_char(out, ',');
        }
        emit_char(out, value->kind == ARRAY ? ']' : '}');
    }
}

/* ---- the parser ---- */

typedef struct {
    const char *at, *end;
} Input;

static void space(Input *in) {
    while (in->at < in->end && (*in->at == ' ' || *in->at == '\n' || *in->at == '\t' || *in->at == '\r')) in->at++;
}

static char peek(Input *in) {
    space(in);
    require(in->at < in->end, "unexpected end");
    return *in->at;
}

static void expect(Input *in, const char *word) {
    size_t size = strlen(word);
    require((size_t)(in->end - in->at) >= size && memcmp(in->at, word, size) == 0, word);
    in->at += size;
}

static const char *parse_string(Input *in, uint32_t *length) {
    expect(in, "\"");
    char *string = take((size_t)0), *to = string;
    for (;;) {
        require(in->at < in->end && to < arena + arena_size, "unterminated string");
        char c = *in->at++;
        if (c == '"') break;
        if (c == '\\') {
            c = *in->at++;
            if (c == 'n') c = '\n';
            else if (c == 'u') {
                unsigned code = 0;
                for (int i = 0; i < 4; i++) {
                    char digit = *in->at++;
                    code = code << 4 | (unsigned)(digit <= '9' ? digit - '0' : (digit | 32) - 'a' + 10);
                }
                c = (char)code;
            }
        }
        *to++ = c;
    }
    *length = (uint32_t)(to - string);
    take(*length);
    return string;
}

static double parse_number(Input *in) {
    int negative = *in->at == '-';
    in->at += negative;
    double mantissa = 0, divisor = 1;
    int point = 0;
    for (; in->at < in->end; in->at++) {
        if (*in->at == '.') point = 1;
        else if (*in->at >= '0' && *in->at <= '9') {
            mantissa = mantissa * 10 + (*in->at - '0');
            if (point) divisor *= 10;
        } else break;
    }
    return (negative ? -mantissa : mantissa) / divisor;
}

static Value *parse(Input *in) {
    Value *value = take(sizeof *value);
    *value = (Value){.kind = NIL};
    char c = peek(in);
    if (c == '{' || c == '[') {
        char close = c == '{' ? '}' : ']';
        Value **last = &value->first;
        value->kind = c == '{' ? OBJECT : ARRAY;
        in->at++;
        while (peek(in) != close) {
            const char *key = NULL;
            uint32_t key_length = 0;
            if (c == '{') {
                key = parse_string(in, &key_length);
                require(peek(in) == ':', "a colon");
                in->at++;
            }
            Value *item = parse(in);
            item->key = key;
            item->key_length = key_length;
            *last = item;
            last = &item->next;
            if (peek(in) == ',') in->at++;
        }
        in->at++;
    } else if (c == '"') {
        value->kind = STRING;
        value->string = parse_string(in, &value->string_length);
    } else if (c == 't') value->kind = TRUE_, expect(in, "true");
    else if (c == 'f') value->kind = FALSE_, expect(in, "false");
    else if (c == 'n') expect(in, "null");
    else value->kind = NUMBER, value->number = parse_number(in);
    return value;
}

/* ---- generated documents and what is asked of them ---- */

static void generate(Text *out, int depth) {
    uint32_t kind = depth ? random_below(9) : 8;
    char word[48];
    if (kind <= 2) {
        double number = (double)(int32_t)random_below(2000000) - 1000000;
        emit_number(out, random_below(2) ? number / 1000 : number);
    } else if (kind <= 4) {
        size_t size = 1 + random_below(40);
        for (size_t i = 0; i < size; i++) word[i] = "abcdefghijklmnopqrstuvwxyz \"\\\n\x01" "ABCDEF"[random_below(37)];
        emit_string(out, word, size);
    } else if (kind == 5) {
        const char *names[] = {"true", "false", "null"};
        const char *name = names[random_below(3)];
        emit(out, name, strlen(name));
    } else {
        int object = kind == 8, items = depth ? 2 + (int)random_below(depth < 4 ? 9 : 3) : 120;
        if (depth > 6) items = 0;
        emit_char(out, object ? '{' : '[');
        for (int i = 0; i < items; i++) {
            if (i) emit_char(out, ',');
            if (object) {
                size_t size = 3 + random_below(8);
                for (size_t j = 0; j < size; j++) word[j] = (char)('a' + random_below(26));
                emit_string(out, word, size);
                emit_char(out, ':');
            }
            generate(out, depth + 1);
        }
        emit_char(out, object ? '}' : ']');
    }
}

static double weigh(const Value *value) {
    double weight = value->kind == NUMBER ? value->number : value->string_length;
    for (const Value *item = value->first; item; item = item->next) weight += weigh(item) + item->key_length;
    return weight;
}

int main(int argc, char **argv) {
    long documents = scale_argument(argc, argv, 1600);
    uint64_t started = clock_ns(), checksum = 0;
    size_t capacity = 1 << 20, total = 0;
    Text source = {.text = need(capacity), .size = capacity}, result = {.text = need(capacity), .size = capacity};
    arena = need(arena_size = 8 << 20);
    for (long i = 0; i < documents; i++) {
        if (i % 8 == 0) source.at = 0, generate(&source, 0);
        arena_at = result.at = 0;
        Input in = {source.text, source.text + source.at};
        Value *document = parse(&in);
        serialize(&result, document);
        require(result.at == source.at && memcmp(result.text, source.text, source.at) == 0, "the document comes back");
        double weight = weigh(document);
        checksum = fnv1a(checksum, &weight, sizeof weight) + source.at;
        total += source.at;
    }
    printf("%zu bytes of JSON\n", total);
    return report("parse", documents, checksum, started);
}
