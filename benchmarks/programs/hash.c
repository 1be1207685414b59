/* Benchmark: SHA-256 and BLAKE2b over buffers, and a hash table keyed by the digests.
 *
 * Scale: rounds over a 64 KiB buffer (default 1600). Both hashes are first held against a published test vector.
 */
#include "common.h"

enum { BUFFER = 1 << 16, CHUNK = 512, SLOTS = 1 << 17 };

/* ---- SHA-256 (FIPS 180-4) ---- */

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static inline uint32_t right32(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha256_block(uint32_t *state, const uint8_t *block) {
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | block[4 * i + 1] << 16 | block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = right32(w[i - 15], 7) ^ right32(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t b = right32(w[i - 2], 17) ^ right32(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + a + w[i - 7] + b;
    }
    memcpy(v, state, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t s1 = right32(v[4], 6) ^ right32(v[4], 11) ^ right32(v[4], 25);
        uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + K[i] + w[i];
        uint32_t s0 = right32(v[0], 2) ^ right32(v[0], 13) ^ right32(v[0], 22);
        uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        v[7] = v[6], v[6] = v[5], v[5] = v[4], v[4] = v[3] + t1, v[3] = v[2], v[2] = v[1], v[1] = v[0], v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) state[i] += v[i];
}

static void sha256(const uint8_t *data, size_t size, uint8_t digest[32]) {
    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint8_t tail[128] = {0};
    size_t whole = size & ~(size_t)63, rest = size - whole, end = rest < 56 ? 64 : 128;
    for (size_t at = 0; at < whole; at += 64) sha256_block(state, data + at);
    memcpy(tail, data + whole, rest);
    tail[rest] = 0x80;
    for (int i = 0; i < 8; i++) tail[end - 1 - i] = (uint8_t)((uint64_t)size * 8 >> 8 * i);
    for (size_t at = 0; at < end; at += 64) sha256_block(state, tail + at);
    for (int i = 0; i < 32; i++) digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
}

/* ---- BLAKE2b-512 without a key (RFC 7693) ---- */

static const uint64_t IV[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};
static const uint8_t SIGMA[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

static inline uint64_t right64(uint64_t x, int n) { return x >> n | x << (64 - n); }

static inline void quarter(uint64_t *v, int a, int b, int c, int d, uint64_t x, uint64_t y) {
    v[a] += v[b] + x, v[d] = right64(v[d] ^ v[a], 32), v[c] += v[d], v[b] = right64(v[b] ^ v[c], 24);
    v[a] += v[b] + y, v[d] = right64(v[d] ^ v[a], 16), v[c] += v[d], v[b] = right64(v[b] ^ v[c], 63);
}

static void blake2b_block(uint64_t *state, const uint8_t *block, uint64_t count, int last) {
    uint64_t v[16], m[16];
    memcpy(v, state, 64);
    memcpy(v + 8, IV, 64);
    memcpy(m, block, 128);
    v[12] ^= count;
    if (last) v[14] = ~v[14];
    for (int round = 0; round < 12; round++) {
        const uint8_t *s = SIGMA[round % 10];
        for (int i = 0; i < 4; i++) quarter(v, i, 4 + i, 8 + i, 12 + i, m[s[2 * i]], m[s[2 * i + 1]]);
        for (int i = 0; i < 4; i++)
            quarter(v, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, m[s[8 + 2 * i]], m[s[9 + 2 * i]]);
    }
    for (int i = 0; i < 8; i++) state[i] ^= v[i] ^ v[i + 8];
}

static void blake2b(const uint8_t *data, size_t size, uint8_t digest[64]) {
    uint64_t state[8];
    uint8_t tail[128] = {0};
    memcpy(state, IV, sizeof state);
    state[0] ^= 0x01010040;
    size_t at = 0;
    for (; size - at > 128; at += 128) blake2b_block(state, data + at, at + 128, 0);
    memcpy(tail, data + at, size - at);
    blake2b_block(state, tail, size, 1);
    memcpy(digest, state, 64);
}

/* ---- an open-addressing table from digest prefix to how often it was seen ---- */

typedef struct {
    uint64_t key; /* 0 means free */
    uint32_t seen;
    uint32_t first;
} Slot;

static uint32_t insert(Slot *slots, uint64_t key, uint32_t now) {
    uint32_t probes = 1;
    key |= !key;
    for (uint32_t at = (uint32_t)(key * 0x9e3779b97f4a7c15u >> 47);; at = (at + 1) & (SLOTS - 1), probes++) {
        if (!slots[at].key) slots[at] = (Slot){key, 0, now};
        if (slots[at].key != key) continue;
        slots[at].seen++;
        return probes;
    }
}

int main(int argc, char **argv) {
    long rounds = scale_argument(argc, argv, 1600);
    uint64_t started = clock_ns(), checksum = 0, probes = 0;
    uint8_t *buffer = need(BUFFER), sha[32], blake[64];
    Slot *slots = need(SLOTS * sizeof *slots);
    memset(slots, 0, SLOTS * sizeof *slots);
    sha256((const uint8_t *)"abc", 3, sha);
    blake2b((const uint8_t *)"abc", 3, blake);
    require(memcmp(sha, "\xba\x78\x16\xbf\x8f\x01\xcf\xea", 8) == 0, "SHA-256 of abc");
    require(memcmp(blake, "\xba\x80\xa5\x3f\x98\x1c\x4d\x0d", 8) == 0, "BLAKE2b of abc");

    for (size_t i = 0; i < BUFFER; i++) buffer[i] = (uint8_t)random_next();
    uint32_t entries = 0;
    for (long round = 0; round < rounds; round++) {
        sha256(buffer, BUFFER, sha);
        for (size_t at = 0; at < BUFFER; at += CHUNK) {
            uint64_t key;
            blake2b(buffer + at, CHUNK, blake);
            memcpy(&key, blake, sizeof key);
            if (entries < SLOTS / 2) probes += insert(slots, key & 0x3fffffff, entries++);
        }
        checksum = fnv1a(fnv1a(checksum, sha, sizeof sha), blake, sizeof blake);
        for (int i = 0; i < 4096; i++) { /* many small lookups, most of them hits, between the long runs */
            uint64_t key = slots[random_below(SLOTS)].key;
            if (key) probes += insert(slots, key, 0);
        }
        memcpy(buffer + (round * 64) % (BUFFER - 64), blake, sizeof blake); /* only some chunks change */
    }
    return report("hash", rounds, checksum ^ probes, started);
}
