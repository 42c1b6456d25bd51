/* Stands between a program and its disk: counts its calls on the files of one folder, kills it at one of them, lets one
 * fail, and writes down what was written.
 *
 * Preloaded into the program:
 *   gcc -shared -fPIC -O2 -o disk.so disk.c -ldl -lpthread
 * DISK_SHIM_FOLDER   the folder, without symbolic links; files directly in it count, and the folder itself
 * DISK_SHIM_CONTROL  a file of 4096 zero bytes that the campaign and the program share, as 64-bit words:
 *                     0 whether calls are counted, 1 the call that is meant (counted from the arming), 2 what happens there
 *                     (1 death, 2 EIO), 3 calls of the armed kind so far, 4 how often it happened, 5 the armed kind (0 none),
 *                     6 how much the campaign has seen acknowledged, from 8 on the calls of each kind
 * DISK_SHIM_LOG      if given: every change, appended, in the order in which they were made
 *
 * One lock is held over each call and its record, so that the order in the log is the order on the disk. Files that are
 * mapped into memory are not seen: SQLite maps only its index of the log, which it makes anew after a crash.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { WRITE = 1, SYNC = 2, RESIZE = 3, CREATE = 4, UNLINK = 5, RENAME = 6, SYNC_FOLDER = 7 };
enum word { COUNTING = 0, NTH = 1, ACTION = 2, PASSED = 3, HITS = 4, ARMED = 5, ACKNOWLEDGED = 6, COUNTS = 8 };
enum action { DEATH = 1, FAILURE = 2 };

#define FILES 65536
#define NAME 128
#define MAGIC 0x6b736964u

struct file {
    int seen; /* 1 a file, 2 the folder itself */
    uint64_t inode;
    char name[NAME];
};

struct record {
    uint32_t magic, kind;
    uint64_t inode, offset, length, acknowledged;
    uint32_t names, unused;
};

static struct file *files[FILES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static volatile uint64_t *control;
static char folder[4096];
static size_t folder_length;
static int log_fd = -1;

#define REAL(name) ((__typeof__(&name))real(#name))

/* A name is looked up once; the lookup itself may be repeated by two threads, with the same answer. */
static void *real(const char *name) {
    static struct { const char *name; void *at; } known[64];
    for (int i = 0; i < 64; i++) {
        const char *there = __atomic_load_n(&known[i].name, __ATOMIC_ACQUIRE);
        if (there == name) {
            return known[i].at;
        }
    }
    void *at = dlsym(RTLD_NEXT, name);
    static pthread_mutex_t finding = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&finding);
    for (int i = 0; i < 64; i++) {
        if (known[i].name == NULL) {
            known[i].at = at;
            __atomic_store_n(&known[i].name, name, __ATOMIC_RELEASE);
            break;
        }
    }
    pthread_mutex_unlock(&finding);
    return at;
}

__attribute__((constructor)) static void begin(void) {
    const char *where = getenv("DISK_SHIM_FOLDER"), *shared = getenv("DISK_SHIM_CONTROL"), *log = getenv("DISK_SHIM_LOG");
    if (where != NULL && strlen(where) < sizeof folder) {
        strcpy(folder, where);
        folder_length = strlen(folder);
    }
    if (shared != NULL) {
        int fd = REAL(open)(shared, O_RDWR | O_CLOEXEC);
        void *at = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (at == MAP_FAILED) {
            fprintf(stderr, "the disk shim cannot map %s\n", shared);
            _exit(70);
        }
        REAL(close)(fd);
        control = at;
    }
    if (log != NULL) {
        log_fd = REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (log_fd < 0) {
            fprintf(stderr, "the disk shim cannot open %s\n", log);
            _exit(70);
        }
    }
}

/* The name of a file directly in the folder; "" for the folder itself; NULL for everything else. */
static const char *inside(const char *path) {
    if (folder_length == 0 || path == NULL || strncmp(path, folder, folder_length) != 0) {
        return NULL;
    }
    const char *rest = path + folder_length;
    if (*rest == 0 || (rest[0] == '/' && rest[1] == 0)) {
        return "";
    }
    if (*rest != '/' || strchr(rest + 1, '/') != NULL || strlen(rest + 1) >= NAME) {
        return NULL;
    }
    return rest + 1;
}

static struct file *seen(int fd) {
    return fd >= 0 && fd < FILES ? __atomic_load_n(&files[fd], __ATOMIC_ACQUIRE) : NULL;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) {
        pause();
    }
}

/* A call of this kind is about to be made, under the lock. Does not come back when the program is to die here; otherwise
 * answers whether the call is to fail. */
static int strikes(int kind) {
    if (control == NULL) {
        return 0;
    }
    if (control[COUNTING]) {
        control[COUNTS + kind]++;
    }
    if (control[ARMED] != (uint64_t)kind || ++control[PASSED] != control[NTH]) {
        return 0;
    }
    control[HITS]++;
    if (control[ACTION] == DEATH) {
        die();
    }
    return 1;
}

/* What was done, under the lock. What the campaign saw acknowledged is read last: until the next sync has ended, the disk
 * may still be as if this had not been done. */
static void record(int kind, uint64_t inode, uint64_t offset, const void *data, uint64_t length, const char *name,
                   const char *second) {
    if (log_fd < 0) {
        return;
    }
    char names[2 * NAME + 2];
    int size = second == NULL ? snprintf(names, sizeof names, "%s", name) : snprintf(names, sizeof names, "%s/%s", name, second);
    struct record head = {MAGIC, kind, inode, offset, length, control ? control[ACKNOWLEDGED] : 0, (uint32_t)size, 0};
    struct iovec parts[3] = {{&head, sizeof head}, {names, (size_t)size}, {(void *)data, data == NULL ? 0 : length}};
    if (data == NULL) {
        head.length = 0;
    }
    int kept = errno;
    ssize_t wanted = (ssize_t)(sizeof head + (size_t)size + parts[2].iov_len);
    if (REAL(writev)(log_fd, parts, 3) != wanted) {
        fprintf(stderr, "the disk shim cannot write its log\n");
        _exit(70);
    }
    errno = kept;
}

static void forget(int fd) {
    if (fd >= 0 && fd < FILES && seen(fd) != NULL) {
        pthread_mutex_lock(&lock);
        struct file *file = files[fd];
        __atomic_store_n(&files[fd], NULL, __ATOMIC_RELEASE);
        free(file);
        pthread_mutex_unlock(&lock);
    }
}

typedef int (*opener)(const char *, int, ...);

static int open_as(opener how, const char *path, int flags, mode_t mode) {
    const char *name = inside(path);
    if (name == NULL) {
        return how(path, flags, mode);
    }
    pthread_mutex_lock(&lock);
    int fresh = (flags & O_CREAT) && access(path, F_OK) != 0;
    if (fresh) {
        strikes(CREATE);
    }
    int fd = how(path, flags, mode);
    struct stat about;
    if (fd >= 0 && fd < FILES && fstat(fd, &about) == 0) {
        struct file *file = calloc(1, sizeof *file);
        if (file != NULL) {
            file->seen = S_ISDIR(about.st_mode) ? 2 : 1;
            file->inode = about.st_ino;
            strcpy(file->name, name);
            free(files[fd]);
            __atomic_store_n(&files[fd], file, __ATOMIC_RELEASE);
        }
        if (fresh) {
            record(CREATE, about.st_ino, 0, NULL, 0, name, NULL);
        } else if ((flags & O_TRUNC) && S_ISREG(about.st_mode)) {
            record(RESIZE, about.st_ino, 0, NULL, 0, name, NULL);
        }
    }
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
    return fd;
}

#define MODE(flags, mode)                                                                                                \
    mode_t mode = 0;                                                                                                     \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                                             \
        va_list rest;                                                                                                    \
        va_start(rest, flags);                                                                                           \
        mode = va_arg(rest, mode_t);                                                                                     \
        va_end(rest);                                                                                                    \
    }

int open(const char *path, int flags, ...) {
    MODE(flags, mode)
    return open_as((opener)REAL(open), path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags, mode)
    return open_as((opener)REAL(open64), path, flags, mode);
}

/* Opening by a path that names its folder itself: an absolute one. */
int openat(int at, const char *path, int flags, ...) {
    MODE(flags, mode)
    return inside(path) == NULL ? REAL(openat)(at, path, flags, mode) : open_as((opener)REAL(open), path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...) {
    MODE(flags, mode)
    return inside(path) == NULL ? REAL(openat64)(at, path, flags, mode) : open_as((opener)REAL(open64), path, flags, mode);
}

int close(int fd) {
    forget(fd);
    return REAL(close)(fd);
}

/* A write at `offset`, or where the file stands when that is negative. Its data is one piece. */
static ssize_t put(int fd, const void *data, size_t length, off64_t offset) {
    struct file *file = seen(fd);
    if (file == NULL) {
        return offset < 0 ? REAL(write)(fd, data, length) : REAL(pwrite64)(fd, data, length, offset);
    }
    pthread_mutex_lock(&lock);
    ssize_t done = -1;
    if (strikes(WRITE)) {
        errno = EIO;
    } else {
        done = offset < 0 ? REAL(write)(fd, data, length) : REAL(pwrite64)(fd, data, length, offset);
    }
    if (done > 0) {
        off64_t from = offset < 0 ? lseek64(fd, 0, SEEK_CUR) - done : offset;
        record(WRITE, file->inode, (uint64_t)from, data, (uint64_t)done, file->name, NULL);
    }
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
    return done;
}

ssize_t write(int fd, const void *data, size_t length) {
    return put(fd, data, length, -1);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    return put(fd, data, length, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    return put(fd, data, length, offset);
}

/* To a file that is watched only the first piece is written: the caller goes on with the rest, as after any short write. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (seen(fd) == NULL || count < 1) {
        return REAL(writev)(fd, parts, count);
    }
    int first = 0;
    while (first + 1 < count && parts[first].iov_len == 0) {
        first++;
    }
    return put(fd, parts[first].iov_base, parts[first].iov_len, -1);
}

static int synced(int fd, int (*how)(int)) {
    struct file *file = seen(fd);
    if (file == NULL) {
        return how(fd);
    }
    pthread_mutex_lock(&lock);
    int done = -1;
    /* SQLite does not look at what becomes of the folder's sync when it makes its log; Semel has synced the folder itself by
     * then. So that one may be a place to die at, and not one to fail. */
    int spared = file->seen == 2 && control != NULL && control[ACTION] != DEATH;
    if (!spared && strikes(SYNC)) {
        errno = EIO;
    } else {
        done = how(fd);
    }
    if (done == 0) {
        record(file->seen == 2 ? SYNC_FOLDER : SYNC, file->inode, 0, NULL, 0, file->name, NULL);
    }
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
    return done;
}

int fsync(int fd) {
    return synced(fd, REAL(fsync));
}

int fdatasync(int fd) {
    return synced(fd, REAL(fdatasync));
}

static int resized(int fd, off64_t length) {
    struct file *file = seen(fd);
    if (file == NULL) {
        return REAL(ftruncate64)(fd, length);
    }
    pthread_mutex_lock(&lock);
    int done = -1;
    if (strikes(RESIZE)) {
        errno = EIO;
    } else {
        done = REAL(ftruncate64)(fd, length);
    }
    if (done == 0) {
        record(RESIZE, file->inode, (uint64_t)length, NULL, 0, file->name, NULL);
    }
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
    return done;
}

int ftruncate(int fd, off_t length) {
    return resized(fd, length);
}

int ftruncate64(int fd, off64_t length) {
    return resized(fd, length);
}

int unlink(const char *path) {
    const char *name = inside(path);
    if (name == NULL || access(path, F_OK) != 0) {
        return REAL(unlink)(path);
    }
    pthread_mutex_lock(&lock);
    int done = -1;
    if (strikes(UNLINK)) {
        errno = EIO;
    } else {
        done = REAL(unlink)(path);
    }
    if (done == 0) {
        record(UNLINK, 0, 0, NULL, 0, name, NULL);
    }
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
    return done;
}

int rename(const char *from, const char *to) {
    const char *old = inside(from), *fresh = inside(to);
    if (old == NULL || fresh == NULL) {
        return REAL(rename)(from, to);
    }
    pthread_mutex_lock(&lock);
    int done = -1;
    if (strikes(RENAME)) {
        errno = EIO;
    } else {
        done = REAL(rename)(from, to);
    }
    if (done == 0) {
        record(RENAME, 0, 0, NULL, 0, old, fresh);
    }
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
    return done;
}
