/* The demo agent: it pays an invoice, and pays the wrong account.
 *
 * The agent reads /work/inbox.txt, lets a language model plan one action at a time, carries the action out, and shows
 * the model what it observed. It is an ordinary small program with an ordinary bug, kept short enough to read next to
 * the recording of its run. What it needs from outside comes through three Python-hosted functions and WASI.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))

/* Writes at most `capacity` bytes of the answer to `out` and returns how many. */
IMPORT("llm", "complete")
int32_t llm_complete(const char *prompt, int32_t length, char *out, int32_t capacity);

/* Likewise, for what the search tool knows about `query`. */
IMPORT("tool", "search")
int32_t tool_search(const char *query, int32_t length, char *out, int32_t capacity);

/* Pays; returns 0 when the bank accepts. */
IMPORT("tool", "pay")
int32_t tool_pay(const char *account, int32_t length, int64_t amount_cents);

enum { MAX_STEPS = 8 };

struct agent {
    char reply[64];    /* the latest answer of a tool */
    char account[16];  /* whom to pay, from the invoice */
    int64_t amount_cents;
    char invoice[16];
    uint32_t request_id;
    int step;
    int paid;
    char notes[1024];  /* what was observed so far, one line per step */
};

static void fail(const char *what) {
    fprintf(stderr, "agent: %s\n", what);
    exit(2);
}

static uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Reads "invoice 77", "account 1234-5678" and "amount 129.50", one to a line. */
static void read_inbox(struct agent *agent) {
    FILE *inbox = fopen("/work/inbox.txt", "r");
    char line[128];
    long units = 0, cents = 0;
    if (!inbox) fail("cannot read /work/inbox.txt");
    while (fgets(line, sizeof line, inbox)) {
        sscanf(line, "invoice %15s", agent->invoice);
        sscanf(line, "account %15s", agent->account);
        if (sscanf(line, "amount %ld.%2ld", &units, &cents) > 0) agent->amount_cents = units * 100 + cents;
    }
    fclose(inbox);
    if (!agent->invoice[0] || !agent->account[0] || agent->amount_cents <= 0) fail("the invoice is incomplete");
}

static void note(struct agent *agent, const char *text) {
    size_t used = strlen(agent->notes);
    snprintf(agent->notes + used, sizeof agent->notes - used, "%d: %s\n", agent->step, text);
}

/* Asks the model for the next action, given the task and everything observed so far. */
static void think(struct agent *agent, char *action, int32_t capacity) {
    char prompt[2048];
    int length = snprintf(prompt, sizeof prompt,
                          "Request %08x. Pay invoice %s: %lld cents.\n"
                          "Answer with one line: SEARCH <words>, REFLECT <thought>, PAY or DONE.\n"
                          "Observed so far:\n%s",
                          agent->request_id, agent->invoice, (long long)agent->amount_cents, agent->notes);
    int32_t got = llm_complete(prompt, length, action, capacity - 1);
    if (got < 0 || got >= capacity) fail("the model gave no answer");
    action[got] = 0;
    action[strcspn(action, "\n")] = 0;
}

/* Looks something up before paying. */
static void search(struct agent *agent, const char *query) {
    char observation[128];
    int32_t got = tool_search(query, (int32_t)strlen(query), agent->reply, sizeof *agent);
    if (got < 0) fail("the search failed");
    snprintf(observation, sizeof observation, "found: %.60s", agent->reply);
    note(agent, observation);
}

/* Pays the account of the invoice and writes the ledger. */
static void pay(struct agent *agent) {
    int32_t refused = tool_pay(agent->account, (int32_t)strlen(agent->account), agent->amount_cents);
    agent->paid = !refused;
    note(agent, refused ? "payment refused" : "payment accepted");
    FILE *ledger = fopen("/work/ledger.txt", "a");
    if (!ledger) fail("cannot write /work/ledger.txt");
    fprintf(ledger, "%llu request %08x invoice %s account %s cents %lld %s\n", (unsigned long long)now_ms(),
            agent->request_id, agent->invoice, agent->account, (long long)agent->amount_cents,
            refused ? "refused" : "paid");
    fclose(ledger);
    printf("paid %lld.%02lld to account %s\n", (long long)(agent->amount_cents / 100),
           (long long)(agent->amount_cents % 100), agent->account);
}

/* Carries one action out; returns 0 when there is nothing left to do. */
static int act(struct agent *agent, const char *action) {
    if (strncmp(action, "SEARCH ", 7) == 0) search(agent, action + 7);
    else if (strncmp(action, "REFLECT ", 8) == 0) note(agent, action + 8);
    else if (strcmp(action, "PAY") == 0) pay(agent);
    else if (strcmp(action, "DONE") == 0) return 0;
    else note(agent, "that is not an action");
    return 1;
}

int main(void) {
    struct agent *agent = calloc(1, sizeof *agent);
    char action[128];
    if (!agent) fail("no memory");
    if (getentropy(&agent->request_id, sizeof agent->request_id) != 0) fail("no randomness");
    read_inbox(agent);
    printf("invoice %s asks for %lld cents to account %s\n", agent->invoice, (long long)agent->amount_cents,
           agent->account);
    for (agent->step = 1; agent->step <= MAX_STEPS; agent->step++) {
        uint64_t began = now_ms();
        think(agent, action, sizeof action);
        printf("step %d: %s\n", agent->step, action);
        int more = act(agent, action);
        printf("step %d took %llu ms\n", agent->step, (unsigned long long)(now_ms() - began));
        if (!more) break;
    }
    printf(agent->paid ? "done\n" : "nothing was paid\n");
    return agent->paid ? 0 : 1;
}
