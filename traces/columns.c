/* Records to columns: the parser for untrusted bytes, run as WebAssembly so that nothing it reads can hurt its host.

   `traces/columns.py` owns this module's life: it writes the tables below and the window into linear memory, calls `scan`
   (validates and counts, changes nothing that lasts), then `plan` and `fill` (cannot fail), and takes the arrays from there.
   The offsets and codes mirror `traces/layout.py`; tests/unit/test_columns.py compares the two. No libc, no imports. */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed int i32;
typedef signed long long i64;
typedef u16 __attribute__((aligned(1), may_alias)) u16_at;
typedef u32 __attribute__((aligned(1), may_alias)) u32_at;
typedef u64 __attribute__((aligned(1), may_alias)) u64_at;

#define EXPORT(name) __attribute__((export_name(#name)))
#define U32(p) (*(const u32_at *)(p))
#define U64(p) (*(const u64_at *)(p))
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))

extern u8 __heap_base;

/* -- traces/layout.py ---------------------------------------------------------------------------------------------- */

enum { HEADER_SIZE = 12, NO_IMPORT = 0xFFFF, MAX_IMPORTS = 0xFFFE, CHUNK_HEADER = 8, META_MEMORY = 63, META_TIMING = 1 };
enum { CALL = 1, RETURN, EXPORT, CALLBACK, POKE, GROWTH, GLOBAL, TABLE, DATA, TRAP, EXIT, STOP, GROW_FAILED, DEFINE };
enum { OPEN, COMPLETE, DENIED };
enum { REF_NULL, REF_EXPORT, REF_IMPORT, REF_EXTERN, REF_FUNC, REF_TAKEN };
#define START_TARGET 0xFFFFFFFEu
#define TABLE_TARGET 0x80000000u
#define CHUNK_LENGTH_MASK 0x00FFFFFFu
#define CHUNK_MEMORY_SHIFT 24
#define CHUNK_MEMORY_MASK 0x3Fu
#define CHUNK_WIDE (1u << 30)
#define CHUNK_SENT (1u << 31)

/* -- shared with columns.py ------------------------------------------------------------------------------------------ */

/* Value types. */
enum { T_I32, T_F32, T_I64, T_F64, T_V128, T_REF };

/* Errors of `scan`; columns.ERRORS holds the texts. */
enum {
  E_NONE, E_DEFINE, E_HEADER, E_SIZE, E_BEYOND, E_KIND, E_STATUS, E_IMPORT, E_NO_IMPORT, E_TARGET, E_FIXED, E_TRAILING,
  E_CHUNK, E_TIMING, E_NO_OPEN, E_RETURN_IMPORT, E_DEPTH, E_DATA, E_MEMORY,
};

/* One step of a compiled detail template. `src` is a word number among the arguments, or among the results with RESULT. */
typedef struct { u32 op, src, x, y; } Op;
enum { OP_LITERAL, OP_UNSIGNED, OP_SIGNED, OP_HEX, OP_FLOAT, OP_ENUM, OP_FLAGS, OP_TEXT, OP_U32, OP_ERRNO, OP_V128 };
#define RESULT 0x80000000u

typedef struct { u32 at, length; } Text;

/* A function that can be called, either way. */
typedef struct {
  u32 params, param_count, results, result_count;  /* addresses of type codes */
  u32 args_size, results_size;                     /* bytes in a record */
  u32 arg_words, result_words;                     /* u64 words in the lists */
  u32 ops, head_count, tail_count;                 /* Op[]: before and after the arrow */
  u32 flags;
  Text name;                                       /* qualified for imports */
  u32 name_id;                                     /* position in the dictionary of names */
  u32 field_count;                                 /* values a detail depends on; more than CACHED: not cached */
} Function;
enum { F_ERRNO = 1, F_PYTHON = 2 };

/* What columns.py reads back, as an array of u32. */
enum {
  O_WINDOW, O_SEQ, O_KIND, O_IMPORT, O_IMPORT_VALID, O_TARGET, O_TARGET_VALID, O_DEPTH, O_STATUS, O_OF, O_OF_VALID, O_TIME,
  O_DURATION, O_DURATION_VALID, O_ARGS_OFFSETS, O_ARGS, O_RESULTS_OFFSETS, O_RESULTS, O_DETAIL, O_DETAIL_VALID, O_SENT,
  O_RECEIVED, O_SPAN, O_SPAN_VALID, O_RECORD_OFFSETS, O_CHUNKS_AT, O_CHUNKS_VALID,
  O_TARGET_TEXT_OFFSETS, O_TARGET_TEXT, O_DETAIL_TEXT_OFFSETS, O_DETAIL_TEXT,
  O_TARGET_TEXTS, O_DETAIL_TEXTS, O_ROWS, O_ARG_WORDS, O_RESULT_WORDS,
  O_NULL_OF, O_NULL_DURATION, O_NULL_SPAN, O_NULL_IMPORT, O_NULL_TARGET, O_NULL_DETAIL, O_NULL_CHUNKS, O_COUNT,
};
static u32 out[O_COUNT];

enum { MAX_DEPTH = 16384, KEPT_ARGS = 16, CACHED = 6, CACHE = 1024, SHOWN_TEXT = 200, TEXT_ROOM = 4096 };
#define DETAIL_LIMIT (32u << 20) /* bytes of distinct detail texts per window; rows beyond it have none */

static Function imports[MAX_IMPORTS + 1];
static u32 import_count;
static const Function *exports;
static u32 export_count, export_names_size;
static u32 window_at, window_size;

EXPORT(imports_at) u32 imports_at(void) { return (u32)imports; }
EXPORT(function_size) u32 function_size(void) { return sizeof(Function); }
EXPORT(out_at) u32 out_at(void) { return (u32)out; }
EXPORT(heap_at) u32 heap_at(void) { return ((u32)&__heap_base + 65535) & ~65535u; }
EXPORT(set_imports) void set_imports(u32 count) { import_count = count; }
EXPORT(set_exports) void set_exports(u32 at, u32 count, u32 names) {
  exports = (const Function *)at, export_count = count, export_names_size = names;
}
EXPORT(set_window) void set_window(u32 at, u32 size) { window_at = at, window_size = size; }

/* -- what lasts from window to window -------------------------------------------------------------------------------- */

typedef struct {
  i64 seq, span;
  u32 target, args;
  u16 import;
  u8 kind;
  u64 words[KEPT_ARGS]; /* the first arguments of a CALL, for the detail of its return */
} Frame;

static Frame stack[MAX_DEPTH];
static u32 depth;
static i64 next_seq;
static i64 now_ms;
static u32 last_ms;
static i64 payload_of = -1; /* the record a DATA record directly after would continue; -1: the innermost open CALL */

EXPORT(rows) i64 rows(void) { return next_seq; }
EXPORT(open_records) u32 open_records(void) { return depth; }

/* -- one record ------------------------------------------------------------------------------------------------------ */

typedef struct {
  u32 size, time, chunks; /* `chunks`: offset of the first chunk; 0 when the kind has none */
  u16 import;
  u8 kind, status;
  const Function *function; /* the types of the values, null when there are none or they are not known */
  u32 target, element;
} Record;

typedef struct { u32 target; u16 import; u8 kind; } Opener;

INLINE u32 padded(u32 n) { return (n + 3) & ~3u; }

static u32 check_chunks(const u8 *p, u32 at, u32 size) {
  while (at < size) {
    if (size - at < CHUNK_HEADER) return E_CHUNK;
    u32 word = U32(p + at + 4), length = word & CHUNK_LENGTH_MASK;
    u32 header = word & CHUNK_WIDE ? CHUNK_HEADER + 4 : CHUNK_HEADER;
    if (size - at < header || size - at - header < padded(length)) return E_CHUNK;
    if ((word >> CHUNK_MEMORY_SHIFT & CHUNK_MEMORY_MASK) == META_MEMORY && U32(p + at) == META_TIMING && length != 16)
      return E_TIMING;
    at += header + padded(length);
  }
  return E_NONE;
}

/* Reads one record's frame: everything but the chunks. `top`: the innermost open record, null when none. */
INLINE u32 read_record(const u8 *p, u32 left, const Opener *top, Record *r) {
  if (left < HEADER_SIZE) return E_HEADER;
  u32 size = U32(p), word = U32(p + 4);
  r->size = size, r->import = (u16)word, r->kind = (u8)(word >> 16), r->status = (u8)(word >> 24), r->time = U32(p + 8);
  r->function = 0, r->chunks = 0, r->target = 0, r->element = 0;
  if (size < HEADER_SIZE || size & 3) return E_SIZE;
  if (size > left) return E_BEYOND;
  if (r->status > DENIED) return E_STATUS;
  u32 body = size - HEADER_SIZE;
  if (r->kind == CALL) {
    if (r->import >= import_count) return E_IMPORT;
    r->function = &imports[r->import];
    u32 fixed = r->function->args_size + r->function->results_size;
    if (body < fixed) return E_FIXED;
    r->chunks = HEADER_SIZE + fixed;
    return E_NONE;
  }
  if (r->kind == RETURN) {
    if (!top) return E_NO_OPEN;
    if (r->status == OPEN) return E_STATUS;
    if (r->import != top->import) return E_RETURN_IMPORT;
    if (top->kind == CALL) r->function = &imports[top->import];
    else if (top->target < export_count) r->function = &exports[top->target];
    else if (top->target & TABLE_TARGET && top->target != START_TARGET) return E_NONE; /* types unknown: raw words */
    u32 fixed = r->function ? r->function->results_size : 0;
    if (body < fixed) return E_FIXED;
    r->chunks = HEADER_SIZE + fixed;
    return E_NONE;
  }
  if (r->kind == 0 || r->kind > DEFINE) return E_KIND;
  if (r->import != NO_IMPORT && !(r->kind == STOP && r->import < import_count)) return E_NO_IMPORT;
  if (r->kind == EXPORT || r->kind == CALLBACK) {
    if (body < 8) return E_FIXED;
    r->target = U32(p + 12), r->element = U32(p + 16);
    u32 fixed = 8;
    if (r->target < export_count) r->function = &exports[r->target];
    else if (r->target == START_TARGET) ;
    else if (r->target & TABLE_TARGET) return E_NONE;
    else return E_TARGET;
    if (r->function) fixed += r->function->args_size + r->function->results_size;
    if (body < fixed) return E_FIXED;
    r->chunks = HEADER_SIZE + fixed;
    return E_NONE;
  }
  if (r->status == OPEN) return E_STATUS;
  u32 fixed = 0, chunks = 0;
  switch (r->kind) {
    case POKE: case DATA: chunks = 1; break;
    case GROWTH: case GLOBAL: fixed = 24; break;
    case TABLE: fixed = 32; break;
    case GROW_FAILED: fixed = 16; break;
    case EXIT: fixed = 8, chunks = 1; break;
    default: { /* TRAP, STOP, DEFINE: a length at 4, text after 8 or 16 */
      fixed = r->kind == STOP ? 16 : 8, chunks = r->kind == TRAP;
      if (body < fixed) return E_FIXED;
      u32 length = U32(p + 16);
      if (length > body - fixed || padded(length) > body - fixed) return E_FIXED;
      fixed += padded(length);
    }
  }
  if (body < fixed) return E_FIXED;
  if (!chunks) return body == fixed ? E_NONE : E_TRAILING;
  r->chunks = HEADER_SIZE + fixed;
  return E_NONE;
}

/* -- first pass: is it sound, and how much is it? --------------------------------------------------------------------- */

static Opener trial[MAX_DEPTH];
static u32 trial_depth, trial_rows, trial_at, trial_targets, trial_calls;
static u64 trial_arg_words, trial_result_words;
static i32 trial_payload;

EXPORT(scan_begin) void scan_begin(void) {
  for (u32 i = 0; i < depth; i++) trial[i] = (Opener){stack[i].target, stack[i].import, stack[i].kind};
  trial_depth = depth, trial_rows = trial_at = trial_targets = trial_calls = 0;
  trial_arg_words = trial_result_words = 0;
  trial_payload = payload_of >= 0;
  for (u32 i = 0; i < depth; i++) trial_calls += stack[i].kind == CALL;
}
EXPORT(scan_at) u32 scan_at(void) { return trial_at; }
EXPORT(scan_rows) u32 scan_rows(void) { return trial_rows; }

/* E_NONE at the end of the window; E_DEFINE at (not after) a DEFINE record, which `scan_skip` steps over. */
EXPORT(scan) u32 scan(void) {
  const u8 *window = (const u8 *)window_at;
  Record r;
  while (trial_at < window_size) {
    const u8 *p = window + trial_at;
    u32 error = read_record(p, window_size - trial_at, trial_depth ? &trial[trial_depth - 1] : 0, &r);
    if (error) return error;
    if (r.chunks && (error = check_chunks(p, r.chunks, r.size))) return error;
    i32 payload = 0;
    switch (r.kind) {
      case CALL:
        trial_arg_words += r.function->arg_words;
        payload = r.status == OPEN;
        if (r.status == OPEN) {
          if (trial_depth == MAX_DEPTH) return E_DEPTH;
          trial[trial_depth++] = (Opener){0, r.import, CALL};
          trial_calls++;
        } else trial_result_words += r.function->result_words;
        break;
      case EXPORT: case CALLBACK:
        if (r.function) trial_arg_words += r.function->arg_words;
        else if (!r.chunks) trial_arg_words += (r.size - 20) / 4;
        trial_targets++;
        if (r.status == OPEN) {
          if (trial_depth == MAX_DEPTH) return E_DEPTH;
          trial[trial_depth++] = (Opener){r.target, NO_IMPORT, r.kind};
        } else if (r.function) trial_result_words += r.function->result_words;
        break;
      case RETURN:
        if (r.function) trial_result_words += r.function->result_words;
        else if (!r.chunks) trial_result_words += (r.size - HEADER_SIZE) / 4;
        payload = 1;
        trial_depth--;
        trial_calls -= trial[trial_depth].kind == CALL;
        break;
      case TRAP: case EXIT: case STOP:
        while (trial_depth) {
          trial_depth--;
          if (trial[trial_depth].kind != CALL) break;
          trial_calls--;
        }
        break;
      case POKE: payload = 1; break;
      case DATA:
        if (!trial_payload && !trial_calls) return E_DATA;
        payload = trial_payload;
        break;
      case DEFINE: return E_DEFINE;
    }
    trial_payload = payload;
    trial_at += r.size, trial_rows++;
  }
  return E_NONE;
}
EXPORT(scan_skip) void scan_skip(void) {
  trial_at += U32(window_at + trial_at), trial_rows++, trial_payload = 0;
}

/* -- dictionaries of texts --------------------------------------------------------------------------------------------- */

/* For the compiler: it calls this for __builtin_memcmp. */
int memcmp(const void *a, const void *b, unsigned long n) {
  const u8 *x = a, *y = b;
  for (; n; n--, x++, y++) if (*x != *y) return *x < *y ? -1 : 1;
  return 0;
}

typedef struct { u32 *table, mask; u32 *offsets; u8 *text; u32 count, limit; u32 *hashes; } Texts;
static Texts targets, details;
#define ABSENT 0xFFFFFFFFu

static u32 intern(Texts *d, const u8 *text, u32 length) {
  u32 hash = 2166136261u ^ length, i = 0;
  for (; i + 4 <= length; i += 4) hash = (hash ^ U32(text + i)) * 0x9E3779B1u, hash ^= hash >> 15;
  for (; i < length; i++) hash = (hash ^ text[i]) * 16777619u;
  hash ^= hash >> 13;
  u32 slot = hash & d->mask;
  for (u32 found; (found = d->table[slot]); slot = (slot + 1) & d->mask) {
    u32 k = found - 1, at = d->offsets[k];
    if (d->hashes[k] == hash && d->offsets[k + 1] - at == length && !__builtin_memcmp(d->text + at, text, length)) return k;
  }
  u32 at = d->offsets[d->count];
  if (at + length > d->limit) return ABSENT;
  __builtin_memcpy(d->text + at, text, length);
  d->hashes[d->count] = hash;
  d->table[slot] = ++d->count;
  d->offsets[d->count] = at + length;
  return d->count - 1;
}

/* -- plan: where the arrays stand --------------------------------------------------------------------------------------- */

static u64 planned;
static u32 take(u64 size) {
  u64 at = planned;
  planned += (size + 63) & ~63ull;
  return (u32)at;
}
static u32 take_bits(u64 n) { return take((n + 7) / 8 + 1); }

static void plan_texts(Texts *d, u64 entries, u64 bytes, u32 offsets, u32 text) {
  u32 size = 16;
  while (size < 2 * entries) size *= 2;
  d->table = (u32 *)take(4ull * size), d->mask = size - 1;
  d->hashes = (u32 *)take(4 * entries + 4);
  d->offsets = (u32 *)(out[offsets] = take(4 * entries + 8));
  d->text = (u8 *)(out[text] = take(bytes));
  d->count = 0, d->limit = (u32)bytes;
}

/* After a successful scan: lays the arrays out behind the window and makes room. Returns E_MEMORY if there is not enough. */
EXPORT(plan) u32 plan(void) {
  static const struct { u8 what, width; } per_row[] = {
    {O_SEQ, 8}, {O_KIND, 1}, {O_IMPORT, 4}, {O_TARGET, 4}, {O_DEPTH, 4}, {O_STATUS, 1}, {O_OF, 8}, {O_TIME, 8}, {O_DURATION, 8},
    {O_ARGS_OFFSETS, 4}, {O_RESULTS_OFFSETS, 4}, {O_DETAIL, 4}, {O_SENT, 8}, {O_RECEIVED, 8}, {O_SPAN, 8}, {O_RECORD_OFFSETS, 8},
    {O_CHUNKS_AT, 4},
  };
  static const u8 bits[] = {O_IMPORT_VALID, O_TARGET_VALID, O_OF_VALID, O_DURATION_VALID, O_DETAIL_VALID, O_SPAN_VALID, O_CHUNKS_VALID};
  u64 n = trial_rows;
  planned = ((u64)window_at + window_size + 127) & ~63ull;
  for (u32 i = 0; i < sizeof per_row / sizeof *per_row; i++) out[per_row[i].what] = take((n + 1) * per_row[i].width);
  u64 valid = planned;
  for (u32 i = 0; i < sizeof bits; i++) out[bits[i]] = take_bits(n);
  u64 valid_end = planned;
  out[O_ARGS] = take(8 * trial_arg_words + 16);
  out[O_RESULTS] = take(8 * trial_result_words + 16);
  plan_texts(&targets, trial_targets, export_names_size + 32ull * trial_targets + 64, O_TARGET_TEXT_OFFSETS, O_TARGET_TEXT);
  plan_texts(&details, n, DETAIL_LIMIT, O_DETAIL_TEXT_OFFSETS, O_DETAIL_TEXT);
  if (planned > 0xFFFF0000ull) return E_MEMORY;
  u32 pages = (u32)((planned + 65535) >> 16), have = __builtin_wasm_memory_size(0);
  if (pages > have && __builtin_wasm_memory_grow(0, pages - have) == (u32)-1) return E_MEMORY;
  __builtin_memset((void *)(u32)valid, 0, (u32)(valid_end - valid));
  __builtin_memset(targets.table, 0, 4ull * (targets.mask + 1));
  __builtin_memset(details.table, 0, 4ull * (details.mask + 1));
  targets.offsets[0] = details.offsets[0] = 0;
  out[O_WINDOW] = window_at;
  return E_NONE;
}

/* -- details: text from templates ---------------------------------------------------------------------------------------- */

static const char *const errno_names =
  "success\0" "2big\0" "acces\0" "addrinuse\0" "addrnotavail\0" "afnosupport\0" "again\0" "already\0" "badf\0" "badmsg\0" "busy\0"
  "canceled\0" "child\0" "connaborted\0" "connrefused\0" "connreset\0" "deadlk\0" "destaddrreq\0" "dom\0" "dquot\0" "exist\0"
  "fault\0" "fbig\0" "hostunreach\0" "idrm\0" "ilseq\0" "inprogress\0" "intr\0" "inval\0" "io\0" "isconn\0" "isdir\0" "loop\0"
  "mfile\0" "mlink\0" "msgsize\0" "multihop\0" "nametoolong\0" "netdown\0" "netreset\0" "netunreach\0" "nfile\0" "nobufs\0"
  "nodev\0" "noent\0" "noexec\0" "nolck\0" "nolink\0" "nomem\0" "nomsg\0" "noprotoopt\0" "nospc\0" "nosys\0" "notconn\0" "notdir\0"
  "notempty\0" "notrecoverable\0" "notsock\0" "notsup\0" "notty\0" "nxio\0" "overflow\0" "ownerdead\0" "perm\0" "pipe\0" "proto\0"
  "protonosupport\0" "prototype\0" "range\0" "rofs\0" "spipe\0" "srch\0" "stale\0" "timedout\0" "txtbsy\0" "xdev\0" "notcapable\0";
enum { ERRNOS = 77 };

static u8 text[TEXT_ROOM];
static u32 text_length;

/* Whole pieces only: half a character would make the column invalid. */
static void put_bytes(const u8 *s, u32 n) {
  if (n > TEXT_ROOM - text_length) return;
  __builtin_memcpy(text + text_length, s, n);
  text_length += n;
}
static void put(const char *s) {
  u32 n = 0;
  while (s[n]) n++;
  put_bytes((const u8 *)s, n);
}
static void put_unsigned(u64 v) {
  u8 digits[20];
  u32 n = 20;
  do digits[--n] = (u8)('0' + v % 10); while (v /= 10);
  put_bytes(digits + n, 20 - n);
}
static void put_hex_digits(u64 v, u32 least) {
  u8 digits[16];
  u32 n = 16;
  do digits[--n] = (u8)"0123456789abcdef"[v & 15]; while ((v >>= 4) || 16 - n < least);
  put_bytes(digits + n, 16 - n);
}
static void put_hex(u64 v) { put("0x"); put_hex_digits(v, 1); }
static void put_errno(u64 v) {
  put("errno ");
  if (v >= ERRNOS) { put_unsigned(v); return; }
  const char *s = errno_names;
  for (; v; v--) while (*s++) ;
  put(s);
}

/* About six significant digits, which is for reading: the exact bits are in `args` and `results`. */
static void put_float(u64 bits, u32 type) {
  u64 sign = type == T_F32 ? bits >> 31 & 1 : bits >> 63;
  u64 fraction = type == T_F32 ? bits & 0x7FFFFF : bits & 0xFFFFFFFFFFFFFull;
  u32 special = type == T_F32 ? (bits >> 23 & 0xFF) == 0xFF : (bits >> 52 & 0x7FF) == 0x7FF;
  if (sign) put("-");
  if (special) {
    if (!fraction) { put("inf"); return; }
    put("nan:"); put_hex(fraction);
    return;
  }
  double v;
  if (type == T_F32) { u32 low = (u32)bits & 0x7FFFFFFF; float f; __builtin_memcpy(&f, &low, 4); v = f; }
  else { u64 low = bits & ~(1ull << 63); __builtin_memcpy(&v, &low, 8); }
  if (v == 0) { put("0"); return; }
  i32 exponent = 0;
  while (v >= 1e16) v *= 1e-16, exponent += 16;
  while (v < 1e-15) v *= 1e16, exponent -= 16;
  while (v >= 10) v /= 10, exponent++;
  while (v < 1) v *= 10, exponent--;
  u32 digits = (u32)(v * 100000 + 0.5);
  if (digits >= 1000000) digits /= 10, exponent++;
  u8 d[6];
  for (u32 i = 6; i--; digits /= 10) d[i] = (u8)('0' + digits % 10);
  u32 n = 6;
  while (n > 1 && d[n - 1] == '0') n--;
  if (exponent < -4 || exponent > 15) {
    put_bytes(d, 1);
    if (n > 1) { put("."); put_bytes(d + 1, n - 1); }
    put(exponent < 0 ? "e-" : "e+"); put_unsigned((u64)(exponent < 0 ? -exponent : exponent));
  } else if (exponent < 0) {
    put("0.");
    for (i32 i = -1; i > exponent; i--) put("0");
    put_bytes(d, n);
  } else {
    for (u32 i = 0; i <= (u32)exponent; i++) put_bytes(i < n ? d + i : (const u8 *)"0", 1);
    if (n > (u32)exponent + 1) { put("."); put_bytes(d + exponent + 1, n - (u32)exponent - 1); }
  }
}

/* Length of the UTF-8 character at `s`, 0 if there is no valid one; `code` gets its number. */
static u32 utf8(const u8 *s, u32 left, u32 *code) {
  u32 c = s[0];
  if (c < 0x80) { *code = c; return 1; }
  u32 n = c >= 0xC2 && c < 0xE0 ? 2 : c >= 0xE0 && c < 0xF0 ? 3 : c >= 0xF0 && c < 0xF5 ? 4 : 0;
  if (!n || n > left) return 0;
  u32 v = c & (0x7F >> n);
  for (u32 i = 1; i < n; i++) {
    if ((s[i] & 0xC0) != 0x80) return 0;
    v = v << 6 | (s[i] & 0x3F);
  }
  if ((n == 3 && (v < 0x800 || (v >= 0xD800 && v < 0xE000))) || (n == 4 && (v < 0x10000 || v > 0x10FFFF))) return 0;
  *code = v;
  return n;
}

/* Printable on any terminal: no controls, nothing that reorders text, no broken UTF-8. columns.py has the same rule. */
static void put_printable(const u8 *s, u32 length) {
  u32 at = 0, code = 0;
  while (at < length) {
    u32 n = utf8(s + at, length - at, &code);
    if (at + (n ? n : 1) > SHOWN_TEXT) { put("\xE2\x80\xA6"); return; }
    if (!n) { put("\\x"); put_hex_digits(s[at], 2); at++; continue; }
    if (code == '\\' || code == '"') { put("\\"); put_bytes(s + at, 1); }
    else if (code == '\n') put("\\n");
    else if (code == '\r') put("\\r");
    else if (code == '\t') put("\\t");
    else if (code < 0x20 || code == 0x7F) { put("\\x"); put_hex_digits(code, 2); }
    else if ((code >= 0x80 && code < 0xA0) || code == 0x61C || (code >= 0x200B && code <= 0x200F) ||
             (code >= 0x2028 && code <= 0x202E) || (code >= 0x2060 && code <= 0x206F) || code == 0xFEFF) {
      put("\\u{"); put_hex_digits(code, 1); put("}");
    } else put_bytes(s + at, n);
    at += n;
  }
}

/* What a template can refer to. */
typedef struct { const u64 *args; u32 arg_count; const u64 *results; u32 result_count; const u8 *record; u32 chunks, size; } Values;

/* A chunk of guest memory by its address, in one direction and of a length the caller accepts; 0 if there is none. */
static const u8 *find_chunk(const Values *v, u64 address, u32 sent, u32 least, u32 most) {
  if (!v->chunks) return 0;
  for (u32 at = v->chunks; at < v->size;) {
    const u8 *p = v->record + at;
    u32 word = U32(p + 4), length = word & CHUNK_LENGTH_MASK, header = CHUNK_HEADER;
    u64 where = U32(p);
    if (word & CHUNK_WIDE) where |= (u64)U32(p + 8) << 32, header += 4;
    if ((word >> CHUNK_MEMORY_SHIFT & CHUNK_MEMORY_MASK) != META_MEMORY && where == address &&
        (word & CHUNK_SENT ? 1u : 0u) == sent && length >= least && length <= most)
      return p + header;
    at += header + padded(length);
  }
  return 0;
}

INLINE u32 value(const Values *v, u32 src, u64 *to) {
  u32 i = src & ~RESULT;
  if (i >= (src & RESULT ? v->result_count : v->arg_count)) { *to = 0; return 0; }
  *to = (src & RESULT ? v->results : v->args)[i];
  return 1;
}

/* The one number an op shows; a second word for v128. */
INLINE u32 op_value(const Values *v, const Op *op, u64 *to) {
  if (!value(v, op->src, to)) return 0;
  if (op->op != OP_U32) return 1;
  const u8 *found = find_chunk(v, *to, 0, 4, CHUNK_LENGTH_MASK);
  *to = found ? U32(found) : 0;
  return found != 0;
}

static void put_op(const Values *v, const Op *op) {
  u64 x = 0, y = 0;
  if (op->op == OP_LITERAL) { put_bytes((const u8 *)op->x, op->y); return; }
  if (!op_value(v, op, &x)) { put("?"); return; }
  const Text *names = (const Text *)op->x;
  switch (op->op) {
    case OP_UNSIGNED: case OP_U32: put_unsigned(x); break;
    case OP_SIGNED: {
      i64 s = op->x == T_I32 ? (i64)(i32)(u32)x : (i64)x;
      if (s < 0) put("-");
      put_unsigned(s < 0 ? 0 - (u64)s : (u64)s);
      break;
    }
    case OP_HEX: put_hex(x); break;
    case OP_FLOAT: put_float(x, op->x); break;
    case OP_ENUM:
      if (x < op->y) put_bytes((const u8 *)names[x].at, names[x].length);
      else put_unsigned(x);
      break;
    case OP_FLAGS: {
      u32 first = 1;
      for (u32 i = 0; i < op->y; i++) {
        if (!(x >> i & 1)) continue;
        if (!first) put("|");
        first = 0, x &= ~(1ull << i);
        put_bytes((const u8 *)names[i].at, names[i].length);
      }
      if (x || first) {
        if (!first) put("|");
        if (x) put_hex(x);
        else put("0");
      }
      break;
    }
    case OP_TEXT: {
      value(v, op->x, &y);
      const u8 *found = y <= CHUNK_LENGTH_MASK ? find_chunk(v, x, 1, (u32)y, (u32)y) : 0;
      if (y && !found) { put("?"); break; }
      put("\"");
      if (found) put_printable(found, (u32)y);
      put("\"");
      break;
    }
    case OP_ERRNO: if (x) put_errno(x); break;
    case OP_V128:
      value(v, op->src + 1, &y);
      put("0x"); put_hex_digits(y, 16); put_hex_digits(x, 16);
      break;
  }
}

enum { WHOLE, HEAD_ONLY, TAIL_ONLY };

NOINLINE void render(const Function *f, const Values *v, u32 part) {
  const Op *op = (const Op *)f->ops, *arrow = op + f->head_count, *end = arrow + f->tail_count;
  if (part != TAIL_ONLY) for (; op < arrow; op++) put_op(v, op);
  if (part == HEAD_ONLY || arrow == end) return;
  u32 before = text_length, from;
  put(part == TAIL_ONLY ? "\xE2\x86\x92 " : " \xE2\x86\x92 ");
  from = text_length;
  for (op = arrow; op < end; op++) { /* a call that failed has no other result than its errno */
    u64 x;
    if (op->op == OP_ERRNO && value(v, op->src, &x) && x) { put_errno(x); return; }
  }
  for (op = arrow; op < end; op++) put_op(v, op);
  while (text_length > from && text[text_length - 1] == ' ') text_length--;
  if (text_length == from) text_length = before;
}

/* Details already made in this window, by what they depend on. */
typedef struct { u64 words[CACHED]; u32 key, epoch, index; } Cached;
static Cached cache[CACHE];
static u32 epoch;

INLINE u32 detail_of(const Function *f, u32 id, const Values *v, u32 part) {
  u64 words[CACHED];
  Cached *hit = 0;
  u32 key = id << 2 | part;
  if (f->field_count <= CACHED) {
    u64 hash = key;
    u32 n = 0;
    const Op *op = (const Op *)f->ops + (part == TAIL_ONLY ? f->head_count : 0);
    const Op *end = (const Op *)f->ops + f->head_count + (part == HEAD_ONLY ? 0 : f->tail_count);
    for (; op < end; op++) {
      if (op->op == OP_LITERAL) continue;
      u64 x;
      if (!op_value(v, op, &x)) x = 0xFFFFFFFFFFFFFFFFull; /* no u32 and no missing word looks like this... */
      words[n++] = x;
      hash = (hash ^ x) * 0x9E3779B97F4A7C15ull, hash ^= hash >> 29;
      if (op->op == OP_V128) {
        value(v, op->src + 1, &x);
        words[n++] = x;
        hash = (hash ^ x) * 0x9E3779B97F4A7C15ull, hash ^= hash >> 29;
      }
    }
    hit = &cache[(u32)(hash >> 20) % CACHE];
    if (hit->epoch == epoch && hit->key == key) {
      u32 same = 1;
      for (u32 i = 0; i < n; i++) same &= hit->words[i] == words[i];
      if (same) return hit->index;
    }
    for (u32 i = 0; i < n; i++) hit->words[i] = words[i];
  }
  text_length = 0;
  render(f, v, part);
  u32 index = text_length ? intern(&details, text, text_length) : ABSENT;
  if (hit) hit->key = key, hit->epoch = epoch, hit->index = index;
  return index;
}

static void put_target(u32 target, u32 element) {
  if (target == START_TARGET) put("(start)");
  else { put("table "); put_unsigned(target & ~TABLE_TARGET); put("["); put_unsigned(element); put("]"); }
}

static void put_name(const Function *table, u32 count, const char *what, u64 i) {
  put(what);
  if (i < count) { put(" \""); put_printable((const u8 *)table[i].name.at, table[i].name.length); put("\""); }
  else { put(" "); put_unsigned(i); }
}

NOINLINE u32 other_detail(const Record *r, const u8 *p, u32 pieces, u64 bytes) {
  static const char *const reasons[] = {"stopped", "fuel", "timeout", "interrupted", "terminated", "journal full"};
  text_length = 0;
  switch (r->kind) {
    case EXPORT: case CALLBACK:
      put_target(r->target, r->element);
      put(r->chunks ? "()" : "(\xE2\x80\xA6)");
      break;
    case POKE:
      put_unsigned(pieces); put(pieces == 1 ? " range, " : " ranges, "); put_unsigned(bytes); put(bytes == 1 ? " byte" : " bytes");
      break;
    case GROWTH: {
      u32 table = U32(p + 12);
      put(table ? "table " : "memory "); put_unsigned(U32(p + 16));
      if (U64(p + 28) == ~0ull) { put(" was refused "); put_unsigned(U64(p + 20)); put(table ? " more elements" : " more pages"); break; }
      put(" grew by "); put_unsigned(U64(p + 20)); put(" from "); put_unsigned(U64(p + 28)); put(table ? " elements" : " pages");
      break;
    }
    case GLOBAL:
      put("global "); put_unsigned(U32(p + 12)); put(" = 0x");
      if (U64(p + 28)) { put_hex_digits(U64(p + 28), 1); put_hex_digits(U64(p + 20), 16); }
      else put_hex_digits(U64(p + 20), 1);
      break;
    case TABLE: {
      u32 reference = U32(p + 16);
      u64 element = U64(p + 20), v = U64(p + 28), count = U64(p + 36);
      put("table "); put_unsigned(U32(p + 12)); put("["); put_unsigned(element);
      if (count != 1) { put(" +"); put_unsigned(count); }
      if (reference == REF_TAKEN) { put("] was taken as function "); put_unsigned(v); break; }
      put("] = ");
      if (reference == REF_NULL) put("null");
      else if (reference == REF_EXPORT) put_name(exports, export_count, "export", v);
      else if (reference == REF_IMPORT) put_name(imports, import_count, "import", v);
      else if (reference == REF_EXTERN) { put("extern "); put_unsigned(v); }
      else if (reference == REF_FUNC) { put("function "); put_unsigned(v); }
      else { put("reference "); put_unsigned(reference); put(":"); put_unsigned(v); }
      break;
    }
    case TRAP:
      put_printable(p + 20, U32(p + 16));
      if (!text_length) { put("trap "); put_unsigned(U32(p + 12)); }
      break;
    case EXIT: put("exit("); put_unsigned(U32(p + 12)); put(")"); break;
    case STOP: {
      u32 reason = U32(p + 12);
      put(reasons[reason < 6 ? reason : 0]);
      if (U64(p + 20) != ~0ull) { put(" at clock "); put_unsigned(U64(p + 20)); }
      if (U32(p + 16)) { put(": "); put_printable(p + 28, U32(p + 16)); }
      break;
    }
    case GROW_FAILED:
      put("growth request "); put_unsigned(U64(p + 20)); put(" of memory "); put_unsigned(U32(p + 12));
      put(" failed in the operating system");
      break;
    case DEFINE: put_name(imports, import_count, "import", U32(p + 12)); break;
    default: return ABSENT;
  }
  return text_length ? intern(&details, text, text_length) : ABSENT;
}

/* -- second pass: fill ----------------------------------------------------------------------------------------------------- */

INLINE u32 put_values(const u8 *p, u32 types, u32 count, u64 *to) {
  const u8 *t = (const u8 *)types;
  u64 *start = to;
  for (u32 i = 0; i < count; i++) {
    switch (t[i]) {
      case T_I64: case T_F64: *to++ = U64(p), p += 8; break;
      case T_V128: *to++ = U64(p), *to++ = U64(p + 8), p += 16; break;
      default: *to++ = U32(p), p += 4;
    }
  }
  return (u32)(to - start);
}

static u32 put_raw_words(const u8 *p, const u8 *end, u64 *to) {
  u64 *start = to;
  for (; p < end; p += 4) *to++ = U32(p);
  return (u32)(to - start);
}

#define SET(bits) ((bits)[row >> 3] |= (u8)(1u << (row & 7)))

EXPORT(fill) void fill(void) {
  enum { ROW_OK, ROW_ERRNO, ROW_TRAP, ROW_DENIED, ROW_OPEN };
  const u8 *window = (const u8 *)window_at;
  u32 n = trial_rows, at = 0, arg_at = 0, result_at = 0;
  i64 *seqs = (i64 *)out[O_SEQ], *ofs = (i64 *)out[O_OF], *times = (i64 *)out[O_TIME], *durations = (i64 *)out[O_DURATION];
  i64 *sents = (i64 *)out[O_SENT], *receiveds = (i64 *)out[O_RECEIVED], *spans = (i64 *)out[O_SPAN], *offsets = (i64 *)out[O_RECORD_OFFSETS];
  i32 *import_ids = (i32 *)out[O_IMPORT], *target_ids = (i32 *)out[O_TARGET], *depths = (i32 *)out[O_DEPTH], *detail_ids = (i32 *)out[O_DETAIL];
  i32 *chunk_ats = (i32 *)out[O_CHUNKS_AT];
  u32 *arg_offsets = (u32 *)out[O_ARGS_OFFSETS], *result_offsets = (u32 *)out[O_RESULTS_OFFSETS];
  u64 *args = (u64 *)out[O_ARGS], *results = (u64 *)out[O_RESULTS];
  u8 *kinds = (u8 *)out[O_KIND], *statuses = (u8 *)out[O_STATUS];
  u8 *import_bits = (u8 *)out[O_IMPORT_VALID], *target_bits = (u8 *)out[O_TARGET_VALID], *of_bits = (u8 *)out[O_OF_VALID];
  u8 *duration_bits = (u8 *)out[O_DURATION_VALID], *detail_bits = (u8 *)out[O_DETAIL_VALID], *span_bits = (u8 *)out[O_SPAN_VALID];
  u8 *chunks_bits = (u8 *)out[O_CHUNKS_VALID];
  i64 ms = now_ms, first_seq = next_seq;
  u32 ticks = last_ms;
  u32 valid_import = 0, valid_target = 0, valid_of = 0, valid_duration = 0, valid_span = 0, valid_detail = 0, valid_chunks = 0;
  u32 last_target = 0, last_element = 0, last_index = ABSENT;
  epoch++;
  for (u32 row = 0; row < n; row++) {
    const u8 *p = window + at;
    Record r;
    Opener opener, *top = 0;
    if (depth) opener = (Opener){stack[depth - 1].target, stack[depth - 1].import, stack[depth - 1].kind}, top = &opener;
    read_record(p, window_size - at, top, &r);
    i64 seq = first_seq + row, of = -1, span = depth ? stack[depth - 1].span : -1, payload = -1;
    u32 level = depth, status = r.status == DENIED ? ROW_DENIED : r.status == OPEN ? ROW_OPEN : ROW_OK;
    u32 arg_words = 0, result_words = 0, detail = ABSENT, pieces = 0;
    i64 sent = 0, received = 0;
    seqs[row] = seq;
    kinds[row] = (u8)(r.kind - 1);
    offsets[row] = at;
    u32 later = r.time - ticks; /* wraps after 49.7 days; a little back is a clock's jitter, never a wrap */
    ms += later > 0u - 60000u && ms >= 0u - later ? (i64)(i32)later : (i64)later, ticks = r.time;
    times[row] = ms * 1000000;
    arg_offsets[row] = arg_at, result_offsets[row] = result_at;
    durations[row] = 0, import_ids[row] = 0, target_ids[row] = 0, detail_ids[row] = 0, chunk_ats[row] = 0;
    if (r.chunks) {
      chunk_ats[row] = (i32)r.chunks;
      SET(chunks_bits), valid_chunks++;
      for (u32 c = r.chunks; c < r.size; pieces++) {
        u32 word = U32(p + c + 4), length = word & CHUNK_LENGTH_MASK, code = U32(p + c);
        c += word & CHUNK_WIDE ? CHUNK_HEADER + 4 : CHUNK_HEADER;
        if ((word >> CHUNK_MEMORY_SHIFT & CHUNK_MEMORY_MASK) == META_MEMORY) {
          if (code == META_TIMING) {
            if (!(duration_bits[row >> 3] >> (row & 7) & 1)) valid_duration++;
            durations[row] = (i64)U64(p + c + 8);
            SET(duration_bits);
          }
        } else if (word & CHUNK_SENT) sent += length;
        else received += length;
        c += padded(length);
      }
    }
    const Function *f = r.function;
    switch (r.kind) {
      case CALL: {
        arg_words = put_values(p + HEADER_SIZE, f->params, f->param_count, args + arg_at);
        if (r.status != OPEN) result_words = put_values(p + HEADER_SIZE + f->args_size, f->results, f->result_count, results + result_at);
        if (f->flags & F_ERRNO && r.status == COMPLETE && result_words && results[result_at]) status = ROW_ERRNO;
        if (f->flags & F_PYTHON) span = seq;
        import_ids[row] = (i32)f->name_id;
        SET(import_bits), valid_import++;
        Values v = {args + arg_at, arg_words, results + result_at, result_words, p, r.chunks, r.size};
        detail = detail_of(f, r.import, &v, r.status == OPEN ? HEAD_ONLY : WHOLE);
        if (r.status == OPEN) {
          Frame *top_frame = &stack[depth++];
          top_frame->seq = seq, top_frame->span = span, top_frame->target = 0, top_frame->import = r.import, top_frame->kind = CALL;
          top_frame->args = arg_words < KEPT_ARGS ? arg_words : KEPT_ARGS;
          for (u32 i = 0; i < top_frame->args; i++) top_frame->words[i] = args[arg_at + i];
          payload = seq;
        }
        break;
      }
      case RETURN: {
        Frame *closed = &stack[--depth];
        level = depth, of = payload = closed->seq, span = closed->span;
        if (f) result_words = put_values(p + HEADER_SIZE, f->results, f->result_count, results + result_at);
        else if (!r.chunks) result_words = put_raw_words(p + HEADER_SIZE, p + r.size, results + result_at);
        if (closed->kind == CALL) {
          import_ids[row] = (i32)f->name_id;
          SET(import_bits), valid_import++;
          if (f->flags & F_ERRNO && r.status == COMPLETE && result_words && results[result_at]) status = ROW_ERRNO;
          Values v = {closed->words, closed->args, results + result_at, result_words, p, r.chunks, r.size};
          detail = detail_of(f, r.import, &v, TAIL_ONLY);
        }
        break;
      }
      case EXPORT: case CALLBACK:
        if (f) {
          arg_words = put_values(p + 20, f->params, f->param_count, args + arg_at);
          if (r.status != OPEN) result_words = put_values(p + 20 + f->args_size, f->results, f->result_count, results + result_at);
          Values v = {args + arg_at, arg_words, results + result_at, result_words, p, 0, r.size};
          detail = detail_of(f, 0x10000 + r.target, &v, r.status == OPEN ? HEAD_ONLY : WHOLE);
        } else {
          if (!r.chunks) arg_words = put_raw_words(p + 20, p + r.size, args + arg_at);
          detail = other_detail(&r, p, 0, 0);
        }
        if (last_index == ABSENT || r.target != last_target || r.element != last_element) {
          last_target = r.target, last_element = r.element;
          if (f) last_index = intern(&targets, (const u8 *)f->name.at, f->name.length);
          else {
            text_length = 0;
            put_target(r.target, r.element);
            last_index = intern(&targets, text, text_length);
          }
        }
        if (last_index != ABSENT) {
          target_ids[row] = (i32)last_index;
          SET(target_bits), valid_target++;
        }
        if (r.status == OPEN) {
          Frame *top_frame = &stack[depth++];
          top_frame->seq = seq, top_frame->span = span, top_frame->target = r.target, top_frame->import = NO_IMPORT;
          top_frame->kind = r.kind, top_frame->args = 0;
        }
        break;
      case TRAP: case EXIT: case STOP:
        if (r.kind != EXIT && status == ROW_OK) status = ROW_TRAP;
        while (depth) {
          Frame *closed = &stack[--depth];
          if (closed->kind == CALL) continue;
          of = closed->seq;
          break;
        }
        level = depth;
        detail = other_detail(&r, p, 0, 0);
        break;
      case DATA:
        of = payload = payload_of;
        for (u32 i = depth; of < 0 && i--;) if (stack[i].kind == CALL) of = stack[i].seq;
        break;
      case POKE:
        payload = seq;
        detail = other_detail(&r, p, pieces, (u64)(sent + received));
        if (depth) of = stack[depth - 1].seq;
        break;
      default:
        detail = other_detail(&r, p, 0, 0);
        if (depth) of = stack[depth - 1].seq;
    }
    payload_of = payload;
    depths[row] = (i32)level;
    statuses[row] = (u8)status;
    sents[row] = sent, receiveds[row] = received;
    ofs[row] = spans[row] = 0;
    if (of >= 0) ofs[row] = of, SET(of_bits), valid_of++;
    if (span >= 0) spans[row] = span, SET(span_bits), valid_span++;
    if (detail != ABSENT) detail_ids[row] = (i32)detail, SET(detail_bits), valid_detail++;
    arg_at += arg_words, result_at += result_words;
    at += r.size;
  }
  now_ms = ms, last_ms = ticks, next_seq = first_seq + n;
  arg_offsets[n] = arg_at, result_offsets[n] = result_at, offsets[n] = at;
  out[O_ROWS] = n, out[O_ARG_WORDS] = arg_at, out[O_RESULT_WORDS] = result_at;
  out[O_TARGET_TEXTS] = targets.count, out[O_DETAIL_TEXTS] = details.count;
  out[O_NULL_OF] = n - valid_of, out[O_NULL_DURATION] = n - valid_duration, out[O_NULL_SPAN] = n - valid_span;
  out[O_NULL_IMPORT] = n - valid_import, out[O_NULL_TARGET] = n - valid_target, out[O_NULL_DETAIL] = n - valid_detail;
  out[O_NULL_CHUNKS] = n - valid_chunks;
}
