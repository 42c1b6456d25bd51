/* A clock that somebody sets: one copy of the program sees the wall clock moved by the nanoseconds in a file.
 *
 * Preloaded into one copy by the campaign with several copies. The file named by CLOCKSTEP_FILE holds eight bytes, an
 * offset in this machine's order; it is mapped, so that a step is seen at once. The monotonic clocks stay as they are, as
 * they do when an operator or a time server sets a real clock.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t nothing = 0;
static volatile int64_t *offset = &nothing;

__attribute__((constructor)) static void open_offset(void) {
    const char *path = getenv("CLOCKSTEP_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) {
        return;
    }
    void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED) {
        offset = (volatile int64_t *)mapped;
    }
}

static int64_t moved(void) {
    static int (*real)(clockid_t, struct timespec *);
    struct timespec now;
    if (!real) {
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    }
    real(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec + *offset;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) {
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    }
    if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE) {
        return real(clock, now);
    }
    int64_t at = moved();
    now->tv_sec = at / 1000000000;
    now->tv_nsec = at % 1000000000;
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    int64_t at = moved();
    now->tv_sec = at / 1000000000;
    now->tv_usec = at % 1000000000 / 1000;
    return 0;
}

time_t time(time_t *into) {
    time_t at = moved() / 1000000000;
    if (into) {
        *into = at;
    }
    return at;
}
