/* Benchmark: LZ77 with hash chains and a canonical Huffman coder, compress, decompress, verify.
 *
 * Scale: blocks of 256 KiB of generated prose (default 100).
 */
#include "common.h"

enum {
    BLOCK = 1 << 18,
    MIN_MATCH = 4,
    MAX_MATCH = 258,
    WINDOW = 1 << 15,
    CHAIN = 32,
    HASH_BITS = 15,
    MAX_BITS = 15,
    LENGTH_CODES = 16, /* a match length is 4 + (a bucket of the power-of-two kind, with extra bits) */
    DISTANCE_CODES = 16,
    END = 256,
    LITERALS = 257 + LENGTH_CODES,
};

/* ---- input: words drawn from a skewed vocabulary, so that there is something to find ---- */

static void generate(uint8_t *text, size_t size) {
    static char words[512][12];
    if (!words[0][0]) {
        for (int i = 0; i < 512; i++) {
            int length = 2 + random_below(8);
            for (int j = 0; j < length; j++)
                words[i][j] = "etaoinshrdlucmfwypvbgkjqxz"[random_below(1 + random_below(26))];
        }
    }
    size_t at = 0;
    while (at < size) {
        const char *word = words[random_below(1 + random_below(512))];
        for (int i = 0; word[i] && at < size; i++) text[at++] = word[i];
        if (at < size) text[at++] = random_below(12) ? ' ' : '\n';
    }
}

/* ---- bits ---- */

typedef struct {
    uint8_t *bytes;
    size_t at, end;
    uint64_t hold;
    int count;
} Bits;

static void put(Bits *out, uint32_t value, int bits) {
    out->hold |= (uint64_t)value << out->count;
    out->count += bits;
    while (out->count >= 8) {
        require(out->at < out->end, "output overflow");
        out->bytes[out->at++] = (uint8_t)out->hold;
        out->hold >>= 8;
        out->count -= 8;
    }
}

static uint32_t get(Bits *in, int bits) {
    while (in->count < bits) {
        uint64_t next = in->at < in->end ? in->bytes[in->at] : 0;
        in->at++;
        in->hold |= next << in->count;
        in->count += 8;
    }
    uint32_t value = (uint32_t)(in->hold & ((1ull << bits) - 1));
    in->hold >>= bits;
    in->count -= bits;
    return value;
}

/* ---- canonical Huffman codes ---- */

typedef struct {
    uint8_t length[LITERALS];
    uint16_t code[LITERALS]; /* bit-reversed, ready for put */
} Codes;

static void assign(Codes *codes, int symbols) {
    uint16_t counts[MAX_BITS + 1] = {0}, next[MAX_BITS + 2] = {0};
    for (int i = 0; i < symbols; i++) counts[codes->length[i]]++;
    counts[0] = 0;
    for (int bits = 1; bits <= MAX_BITS; bits++) next[bits + 1] = (uint16_t)((next[bits] + counts[bits]) << 1);
    for (int i = 0; i < symbols; i++) {
        int length = codes->length[i];
        if (!length) continue;
        uint16_t code = next[length]++, reversed = 0;
        for (int bit = 0; bit < length; bit++) reversed |= (uint16_t)(((code >> bit) & 1) << (length - 1 - bit));
        codes->code[i] = reversed;
    }
}

static void build(Codes *codes, const uint32_t *frequency, int symbols) {
    uint32_t weight[2 * LITERALS];
    int parent[2 * LITERALS], flatten = 0;
    for (;; flatten++) { /* too deep a tree: flatten the frequencies and try again */
        int nodes = symbols, alive = 0, deepest = 0;
        for (int i = 0; i < symbols; i++) {
            weight[i] = frequency[i] ? (frequency[i] >> flatten) + 1 : 0;
            parent[i] = -1;
            alive += weight[i] != 0;
        }
        for (; alive > 1; alive--) {
            int first = -1, second = -1;
            for (int i = 0; i < nodes; i++) {
                if (!weight[i] || parent[i] >= 0) continue;
                if (first < 0 || weight[i] < weight[first]) second = first, first = i;
                else if (second < 0 || weight[i] < weight[second]) second = i;
            }
            weight[nodes] = weight[first] + weight[second];
            parent[first] = parent[second] = nodes;
            parent[nodes++] = -1;
        }
        for (int i = 0; i < symbols; i++) {
            int depth = 0;
            for (int up = i; parent[up] >= 0; up = parent[up]) depth++;
            codes->length[i] = weight[i] ? (uint8_t)(depth ? depth : 1) : 0;
            if (depth > deepest) deepest = depth;
        }
        if (deepest <= MAX_BITS) break;
    }
    assign(codes, symbols);
}

typedef struct {
    uint16_t count[MAX_BITS + 1];
    uint16_t symbol[LITERALS];
} Decoder;

static void prepare(Decoder *decoder, const Codes *codes, int symbols) {
    uint16_t offset[MAX_BITS + 2] = {0};
    memset(decoder->count, 0, sizeof decoder->count);
    for (int i = 0; i < symbols; i++) decoder->count[codes->length[i]]++;
    decoder->count[0] = 0;
    for (int bits = 1; bits <= MAX_BITS; bits++) offset[bits + 1] = offset[bits] + decoder->count[bits];
    for (int i = 0; i < symbols; i++)
        if (codes->length[i]) decoder->symbol[offset[codes->length[i]]++] = (uint16_t)i;
}

static int decode(Bits *in, const Decoder *decoder) {
    int code = 0, first = 0, index = 0;
    for (int bits = 1; bits <= MAX_BITS; bits++) {
        code |= (int)get(in, 1);
        int count = decoder->count[bits];
        if (code - count < first) return decoder->symbol[index + (code - first)];
        index += count;
        first = (first + count) << 1;
        code <<= 1;
    }
    require(0, "a code that does not exist");
    return 0;
}

/* A number n >= 1 is a bucket (its highest bit) and that many extra bits. */
static int bucket(uint32_t n) { return 31 - __builtin_clz(n); }

/* ---- the codec ---- */

typedef struct {
    uint16_t length; /* 0 means a literal, in distance */
    uint16_t distance;
} Token;

static uint32_t hash4(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, 4);
    return (value * 2654435761u) >> (32 - HASH_BITS);
}

static size_t compress(const uint8_t *text, size_t size, uint8_t *packed, size_t capacity) {
    static int32_t head[1 << HASH_BITS], previous[WINDOW];
    static Token tokens[BLOCK];
    uint32_t literals[LITERALS] = {0}, distances[DISTANCE_CODES] = {0};
    size_t count = 0;
    memset(head, -1, sizeof head);
    for (size_t at = 0; at < size;) {
        int best = 0, best_distance = 0, limit = size - at < MAX_MATCH ? (int)(size - at) : MAX_MATCH;
        if (limit >= MIN_MATCH) {
            int32_t candidate = head[hash4(text + at)];
            for (int tries = CHAIN; candidate >= 0 && at - candidate < WINDOW && tries; tries--) {
                int length = 0;
                while (length < limit && text[candidate + length] == text[at + length]) length++;
                if (length > best) best = length, best_distance = (int)(at - candidate);
                candidate = previous[candidate & (WINDOW - 1)];
            }
        }
        int step = best >= MIN_MATCH ? best : 1;
        if (step > 1) {
            tokens[count++] = (Token){(uint16_t)best, (uint16_t)best_distance};
            literals[257 + bucket(best - MIN_MATCH + 1)]++;
            distances[bucket(best_distance)]++;
        } else {
            tokens[count++] = (Token){0, text[at]};
            literals[text[at]]++;
        }
        for (; step--; at++) {
            if (at + MIN_MATCH > size) continue;
            uint32_t slot = hash4(text + at);
            previous[at & (WINDOW - 1)] = head[slot];
            head[slot] = (int32_t)at;
        }
    }
    literals[END]++;

    Codes literal, distance;
    build(&literal, literals, LITERALS);
    build(&distance, distances, DISTANCE_CODES);
    Bits out = {.bytes = packed, .end = capacity};
    for (int i = 0; i < LITERALS; i++) put(&out, literal.length[i], 4);
    for (int i = 0; i < DISTANCE_CODES; i++) put(&out, distance.length[i], 4);
    for (size_t i = 0; i < count; i++) {
        if (!tokens[i].length) {
            put(&out, literal.code[tokens[i].distance], literal.length[tokens[i].distance]);
            continue;
        }
        uint32_t length = tokens[i].length - MIN_MATCH + 1, far = tokens[i].distance;
        put(&out, literal.code[257 + bucket(length)], literal.length[257 + bucket(length)]);
        put(&out, length - (1u << bucket(length)), bucket(length));
        put(&out, distance.code[bucket(far)], distance.length[bucket(far)]);
        put(&out, far - (1u << bucket(far)), bucket(far));
    }
    put(&out, literal.code[END], literal.length[END]);
    put(&out, 0, 7);
    return out.at;
}

static size_t decompress(const uint8_t *packed, size_t size, uint8_t *text, size_t capacity) {
    Bits in = {.bytes = (uint8_t *)packed, .end = size};
    Codes literal, distance;
    Decoder literals, distances;
    for (int i = 0; i < LITERALS; i++) literal.length[i] = (uint8_t)get(&in, 4);
    for (int i = 0; i < DISTANCE_CODES; i++) distance.length[i] = (uint8_t)get(&in, 4);
    prepare(&literals, &literal, LITERALS);
    prepare(&distances, &distance, DISTANCE_CODES);
    size_t at = 0;
    for (;;) {
        int symbol = decode(&in, &literals);
        if (symbol == END) return at;
        if (symbol < END) {
            require(at < capacity, "text overflow");
            text[at++] = (uint8_t)symbol;
            continue;
        }
        int bits = symbol - 257;
        size_t length = (1u << bits) + get(&in, bits) + MIN_MATCH - 1;
        bits = decode(&in, &distances);
        size_t far = (1u << bits) + get(&in, bits);
        require(far <= at && at + length <= capacity, "a match that points outside");
        for (; length--; at++) text[at] = text[at - far];
    }
}

int main(int argc, char **argv) {
    long blocks = scale_argument(argc, argv, 100);
    uint64_t started = clock_ns(), checksum = 0;
    uint8_t *text = need(BLOCK), *packed = need(2 * BLOCK), *back = need(BLOCK);
    size_t total = 0;
    for (long block = 0; block < blocks; block++) {
        generate(text, BLOCK);
        size_t size = compress(text, BLOCK, packed, 2 * BLOCK);
        require(decompress(packed, size, back, BLOCK) == BLOCK, "the length comes back");
        require(memcmp(text, back, BLOCK) == 0, "the text comes back");
        checksum = fnv1a(checksum, packed, size);
        total += size;
    }
    printf("%ld bytes to %zu\n", blocks * BLOCK, total);
    return report("compress", blocks, checksum, started);
}
