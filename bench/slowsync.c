/* Makes a cheap server's disk out of a good one: every sync takes 2 ms longer.
 *
 * Preloaded into semel and into PostgreSQL's server for one phase of the benchmark:
 *   gcc -shared -fPIC -O2 -o slowsync.so slowsync.c -ldl
 * A write with O_DSYNC or O_SYNC is not slowed; neither program uses one with the settings of the benchmark.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <time.h>

static void wait_a_little(void) {
    struct timespec left = {0, 2 * 1000 * 1000};
    int kept = errno;
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
    errno = kept;
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) {
        real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    }
    wait_a_little();
    return real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) {
        real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    }
    wait_a_little();
    return real(fd);
}
