/* One team of threads for every op.
 *
 * A call has cut its work into slices. The calling thread and the team's workers each begin with a range of their
 * own, so that the rows which one op of a step has left in a core's cache are read there by the next, and then take what
 * the others have not come to. So a core that another program takes away delays one slice, and results cannot depend on
 * the number of threads.
 *
 * What a plain OpenMP team would cost here: idle workers that burn a core while they spin, and a hang in a forked
 * child. A worker here spins for SPIN_NANOSECONDS after its last slice, long enough to meet the next op of a training
 * step that has work for it (after the last layer that takes 80 us, from step to step 150), then sleeps on a condition
 * variable. A call waits only for workers that joined it: one that the system has not woken yet finds the gate closed
 * and sleeps on.
 *
 *   gate   CLOSED bit, and how many workers are inside the open call
 *   call   counts calls: a worker that has seen number n sleeps until it changes */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "core.h"

enum { MOST_WORKERS = 255, CLOSED = 1 << 16, SPIN_NANOSECONDS = 200000, LOOKS_PER_CLOCK = 32 };

static pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER; /* held by the one call that uses the workers */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards both conditions */
static pthread_cond_t called = PTHREAD_COND_INITIALIZER;
static pthread_cond_t finished = PTHREAD_COND_INITIALIZER;

static atomic_uint call;
static atomic_int gate = CLOSED;
static int workers; /* started so far; guarded by busy */

static slice_task current_task; /* written while the gate is closed and empty */
static void *current_context;
static long current_slices;
static int current_threads;

static struct {
    _Alignas(64) atomic_long next; /* a line of the cache each: a thread looks at another's when it has done its own */
} ranges[MOST_WORKERS + 1];

static long range_begin(int hand)
{
    return current_slices * hand / current_threads;
}

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void take_slices(int hand)
{
    for (int i = 0, owner = hand; i < current_threads; i++, owner = owner + 1 < current_threads ? owner + 1 : 0) {
        const long end = range_begin(owner + 1);
        long slice;
        while (atomic_load(&ranges[owner].next) < end && (slice = atomic_fetch_add(&ranges[owner].next, 1)) < end)
            current_task(current_context, slice, hand);
    }
}

static bool enter_gate(void)
{
    int state = atomic_load(&gate);
    while (!(state & CLOSED))
        if (atomic_compare_exchange_weak(&gate, &state, state + 1))
            return true;
    return false;
}

static void leave_gate(void)
{
    if (atomic_fetch_sub(&gate, 1) - 1 == CLOSED) { /* the caller may be asleep, waiting for the last one out */
        pthread_mutex_lock(&lock);
        pthread_cond_signal(&finished);
        pthread_mutex_unlock(&lock);
    }
}

/* Spin a while, then sleep, until another call than `seen` has been made; its number. */
static unsigned await_call(unsigned seen)
{
    int64_t patience = nanoseconds() + SPIN_NANOSECONDS;
    do {
        for (int look = 0; look < LOOKS_PER_CLOCK; look++) {
            if (atomic_load(&call) != seen)
                return atomic_load(&call);
            relax();
        }
    } while (nanoseconds() < patience);
    pthread_mutex_lock(&lock);
    while (atomic_load(&call) == seen)
        pthread_cond_wait(&called, &lock);
    pthread_mutex_unlock(&lock);
    return atomic_load(&call);
}

static void *work(void *number)
{
    int hand = (int)(intptr_t)number;
    for (unsigned seen = 0;;) {
        seen = await_call(seen);
        if (enter_gate()) {
            if (hand < current_threads)
                take_slices(hand);
            leave_gate();
        }
    }
    return NULL;
}

static void close_gate(void)
{
    if (atomic_fetch_or(&gate, CLOSED) == 0)
        return;
    int64_t patience = nanoseconds() + SPIN_NANOSECONDS;
    while (atomic_load(&gate) != CLOSED && nanoseconds() < patience)
        relax();
    pthread_mutex_lock(&lock);
    while (atomic_load(&gate) != CLOSED)
        pthread_cond_wait(&finished, &lock);
    pthread_mutex_unlock(&lock);
}

/* A forked child has none of the workers, and whatever they held is as it was: begin anew. */
static void begin_anew_in_child(void)
{
    workers = 0;
    atomic_store(&gate, CLOSED);
    atomic_store(&call, 0);
    pthread_mutex_init(&busy, NULL);
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&called, NULL);
    pthread_cond_init(&finished, NULL);
}

/* Where the system gives no more threads the call runs on those there are. */
static void start_workers(int wanted)
{
    static bool prepared;
    if (!prepared)
        prepared = pthread_atfork(NULL, NULL, begin_anew_in_child) == 0;
    sigset_t every, before; /* signals are for the program's own threads, but for a thread's own faults */
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    sigfillset(&every);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&every, faults[i]);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    while (workers < wanted && workers < MOST_WORKERS) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, (void *)(intptr_t)(workers + 1)) != 0)
            break;
        pthread_detach(thread);
        workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Run task(context, slice, hand) for every slice in [0, slices) on up to `threads` threads, this one among them; there
 * are at most MOST_WORKERS beside it. While another thread's call has the workers, this one does its slices alone: the
 * results are the same. */
void team_run(slice_task task, void *context, long slices, int threads)
{
    if (threads > slices)
        threads = (int)slices;
    if (threads > MOST_WORKERS + 1)
        threads = MOST_WORKERS + 1;
    if (threads <= 1 || pthread_mutex_trylock(&busy) != 0) {
        for (long slice = 0; slice < slices; slice++)
            task(context, slice, 0);
        return;
    }
    if (workers < threads - 1)
        start_workers(threads - 1);
    current_task = task;
    current_context = context;
    current_slices = slices;
    current_threads = threads;
    for (int hand = 0; hand < threads; hand++)
        atomic_store(&ranges[hand].next, range_begin(hand));
    atomic_store(&gate, 0);
    pthread_mutex_lock(&lock);
    atomic_fetch_add(&call, 1);
    pthread_cond_broadcast(&called);
    pthread_mutex_unlock(&lock);
    take_slices(0);
    close_gate();
    pthread_mutex_unlock(&busy);
}
