/* Benchmark: quicksort, mergesort and heapsort over the same records.
 *
 * Scale: rounds over 100,000 records each (default 20). The three results are compared with one another.
 */
#include "common.h"

enum { COUNT = 100000 };

typedef struct {
    uint32_t key;
    uint32_t id;
    char name[8];
} Record;

/* A total order: by key, then name, then id; so that an unstable sort has one right answer too. */
static inline int before(const Record *a, const Record *b) {
    if (a->key != b->key) return a->key < b->key;
    int names = memcmp(a->name, b->name, sizeof a->name);
    return names ? names < 0 : a->id < b->id;
}

static inline void swap(Record *a, Record *b) {
    Record held = *a;
    *a = *b;
    *b = held;
}

static void quicksort(Record *records, long count) {
    while (count > 16) {
        Record *middle = records + count / 2, *last = records + count - 1;
        if (before(middle, records)) swap(middle, records);
        if (before(last, records)) swap(last, records);
        if (before(last, middle)) swap(last, middle);
        Record pivot = *middle;
        long low = 0, high = count - 1;
        while (low <= high) {
            while (before(&records[low], &pivot)) low++;
            while (before(&pivot, &records[high])) high--;
            if (low <= high) swap(&records[low++], &records[high--]);
        }
        quicksort(records, high + 1);
        records += low;
        count -= low;
    }
    for (long i = 1; i < count; i++) {
        Record record = records[i];
        long at = i;
        for (; at && before(&record, &records[at - 1]); at--) records[at] = records[at - 1];
        records[at] = record;
    }
}

static void mergesort_(Record *records, Record *spare, long count) {
    if (count < 2) return;
    long half = count / 2, left = 0, right = half;
    mergesort_(records, spare, half);
    mergesort_(records + half, spare, count - half);
    memcpy(spare, records, (size_t)half * sizeof *records);
    for (long to = 0; left < half; to++) {
        if (right < count && before(&records[right], &spare[left])) records[to] = records[right++];
        else records[to] = spare[left++];
    }
}

static void sift(Record *records, long root, long count) {
    Record record = records[root];
    for (long child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && before(&records[child], &records[child + 1])) child++;
        if (!before(&record, &records[child])) break;
        records[root] = records[child];
    }
    records[root] = record;
}

static void heapsort_(Record *records, long count) {
    for (long root = count / 2; root--;) sift(records, root, count);
    for (long last = count; --last > 0;) {
        swap(records, records + last);
        sift(records, 0, last);
    }
}

int main(int argc, char **argv) {
    long rounds = scale_argument(argc, argv, 20);
    uint64_t started = clock_ns(), checksum = 0;
    size_t size = COUNT * sizeof(Record);
    Record *given = need(size), *quick = need(size), *merge = need(size), *heap = need(size), *spare = need(size);
    for (long round = 0; round < rounds; round++) {
        for (long i = 0; i < COUNT; i++) {
            given[i] = (Record){.key = random_below(COUNT / 2), .id = (uint32_t)i};
            for (int j = 0; j < 8; j++) given[i].name[j] = (char)('a' + random_below(4));
        }
        memcpy(quick, given, size);
        memcpy(merge, given, size);
        memcpy(heap, given, size);
        quicksort(quick, COUNT);
        mergesort_(merge, spare, COUNT);
        heapsort_(heap, COUNT);
        for (long i = 1; i < COUNT; i++) require(!before(&quick[i], &quick[i - 1]), "in order");
        require(memcmp(quick, merge, size) == 0 && memcmp(quick, heap, size) == 0, "the three agree");
        checksum = fnv1a(checksum, quick, size);
    }
    return report("sort", rounds, checksum, started);
}
