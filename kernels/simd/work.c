/* One work array, kept from call to call.
 *
 * The fused last layer needs tens of megabytes for a moment; fresh from the system they cost more in page faults than
 * in arithmetic. The array grows to the largest call and stays; a second call at the same time gets memory of its own.
 * Large arrays lie on huge pages where the system has them. */
#ifdef __linux__
#include <sys/mman.h>
#endif
#include <pthread.h>
#include <stdlib.h>

#include "core.h"

enum { CACHE_LINE = 64, HUGE_PAGE = 1 << 21 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *kept;
static size_t kept_bytes;
static bool taken;

static void *allocate(size_t bytes)
{
    size_t alignment = bytes >= HUGE_PAGE ? HUGE_PAGE : CACHE_LINE;
    void *memory = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
#ifdef __linux__
    if (memory != NULL && alignment == HUGE_PAGE)
        madvise(memory, bytes, MADV_HUGEPAGE); /* advice only: without it the same results, slower */
#endif
    return memory;
}

/* A fork waits until the kept array is one thing or the other, and holds it there. */
static void before_fork(void)
{
    pthread_mutex_lock(&lock);
}

static void after_fork_in_parent(void)
{
    pthread_mutex_unlock(&lock);
}

static void after_fork_in_child(void)
{
    pthread_mutex_init(&lock, NULL);
    if (taken) { /* by a thread of the parent, which the child does not have */
        free(kept);
        kept = NULL;
        kept_bytes = 0;
        taken = false;
    }
}

void *work_take(size_t bytes)
{
    static bool prepared;
    void *memory;
    pthread_mutex_lock(&lock);
    if (!prepared)
        prepared = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) == 0;
    if (taken) {
        memory = allocate(bytes);
    } else {
        if (kept_bytes < bytes) {
            free(kept);
            kept = allocate(bytes);
            kept_bytes = kept != NULL ? bytes : 0;
        }
        memory = kept;
        taken = memory != NULL;
    }
    pthread_mutex_unlock(&lock);
    return memory;
}

void work_give(void *work)
{
    pthread_mutex_lock(&lock);
    if (work == kept)
        taken = false;
    else
        free(work);
    pthread_mutex_unlock(&lock);
}
