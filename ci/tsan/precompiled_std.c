/* Tells ThreadSanitizer what the standard library does out of its sight.
 *
 * The toolchain's std is compiled without the sanitizer, so of its locks TSan sees the fast paths alone, which are inlined
 * into our code, and it knows no fences at all. Each would be taken for a missing lock. The linker passes our calls of the
 * functions below through here (--wrap, see ci/sanitize.sh, which finds their names), and each adds the edge that the
 * function really makes, on the word that it makes it on. Nothing is hidden by this: no report is suppressed.
 */
#include <stdbool.h>
#include <stdint.h>

void __tsan_acquire(void *word);
void __tsan_release(void *word);

#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)
#define REAL(name) __asm__("__real_" TEXT(name))
#define WRAP(name) __asm__("__wrap_" TEXT(name))

/* Mutex::lock_contended(&self): the word is all of it. The unlock, which TSan sees, has released it. */
void mutex_lock(void *mutex) REAL(MUTEX_LOCK);
void wrap_mutex_lock(void *mutex) WRAP(MUTEX_LOCK);
void wrap_mutex_lock(void *mutex) {
    mutex_lock(mutex);
    __tsan_acquire(mutex);
}

/* RwLock::{read,write}_contended(&self): the state comes first. */
void rwlock_read(void *lock) REAL(RWLOCK_READ);
void wrap_rwlock_read(void *lock) WRAP(RWLOCK_READ);
void wrap_rwlock_read(void *lock) {
    rwlock_read(lock);
    __tsan_acquire(lock);
}

void rwlock_write(void *lock) REAL(RWLOCK_WRITE);
void wrap_rwlock_write(void *lock) WRAP(RWLOCK_WRITE);
void wrap_rwlock_write(void *lock) {
    rwlock_write(lock);
    __tsan_acquire(lock);
}

/* ScopeData::decrement_num_running_threads(&self, panic: bool), with which a thread of a scope ends: it releases the count
 * that the scope's owner loads, which is one of the words of ScopeData. */
void scope_end(void *scope, bool panicked) REAL(SCOPE_END);
void wrap_scope_end(void *scope, bool panicked) WRAP(SCOPE_END);
void wrap_scope_end(void *scope, bool panicked) {
    for (int word = 0; word < 3; word++) {
        __tsan_release((uint64_t *)scope + word);
    }
    scope_end(scope, panicked);
}

/* An acquire fence behind a relaxed load, as everywhere in memit, or behind Arc's decrement: it acquires what was loaded
 * last. (Fences that release do so for no data in memit: those of the doorbells order flags alone.) */
static __thread void *loaded;

#define LOADS(type, function, ...)                                      \
    type __real_##function(__VA_ARGS__);                                \
    type __wrap_##function(__VA_ARGS__);                                \
    type __wrap_##function(__VA_ARGS__)

LOADS(uint32_t, __tsan_atomic32_load, const volatile uint32_t *word, int order) {
    loaded = (void *)word;
    return __real___tsan_atomic32_load(word, order);
}

LOADS(uint64_t, __tsan_atomic64_load, const volatile uint64_t *word, int order) {
    loaded = (void *)word;
    return __real___tsan_atomic64_load(word, order);
}

LOADS(uint64_t, __tsan_atomic64_fetch_sub, volatile uint64_t *word, uint64_t operand, int order) {
    loaded = (void *)word;
    return __real___tsan_atomic64_fetch_sub(word, operand, order);
}

void __real___tsan_atomic_thread_fence(int order);
void __wrap___tsan_atomic_thread_fence(int order);
void __wrap___tsan_atomic_thread_fence(int order) {
    __real___tsan_atomic_thread_fence(order);
    if (order != __ATOMIC_RELEASE && loaded) {
        __tsan_acquire(loaded);
    }
}
