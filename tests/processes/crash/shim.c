/* Makes the Nth change of a database file fail. It is loaded before the C library (LD_PRELOAD).

   It counts the calls with which SQLite changes the files below a path: write, pwrite, ftruncate,
   fdatasync, fsync, unlink; for LOCK, its requests for a lock. It counts nothing before crash_arm(). */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { KILL, TORN, FULL_DISK, IO_ERROR, LOCK, READ_ONLY };

static char prefix[PATH_MAX];
static int how, armed;
static long calls, first, last;

void crash_arm(const char *path, int what, long from, long times) {
    strncpy(prefix, path, sizeof prefix - 1);
    how = what;
    first = from;
    last = from + times - 1;
    calls = 0;
    armed = 1;
}

int crash_fired(void) { return calls >= first; }

void crash_disarm(void) { armed = 0; }

static int is_ours(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return strncmp(path, prefix, strlen(prefix)) == 0;
}

/* Whether this call must fail. */
static int is_due(int locking) {
    if (locking != (how == LOCK)) return 0;
    calls++;
    return calls >= first && calls <= last;
}

static int fail(void) {
    if (how == KILL || how == TORN) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
    errno = how == FULL_DISK ? ENOSPC : how == IO_ERROR ? EIO : how == READ_ONLY ? EROFS : EAGAIN;
    return -1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define DUE(fd) (armed && is_ours(fd) && is_due(0))

ssize_t write(int fd, const void *data, size_t size) {
    if (DUE(fd)) {
        if (how == TORN) REAL(write)(fd, data, size / 2);
        return fail();
    }
    return REAL(write)(fd, data, size);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    if (DUE(fd)) {
        if (how == TORN) REAL(pwrite64)(fd, data, size / 2, offset);
        return fail();
    }
    return REAL(pwrite64)(fd, data, size, offset);
}

int ftruncate64(int fd, off64_t size) { return DUE(fd) ? fail() : REAL(ftruncate64)(fd, size); }

int fdatasync(int fd) { return DUE(fd) ? fail() : REAL(fdatasync)(fd); }

int fsync(int fd) { return DUE(fd) ? fail() : REAL(fsync)(fd); }

int unlink(const char *path) {
    if (armed && strncmp(path, prefix, strlen(prefix)) == 0 && is_due(0)) return fail();
    return REAL(unlink)(path);
}

int fcntl64(int fd, int command, ...) {
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (armed && command == F_SETLK && ((struct flock64 *)argument)->l_type != F_UNLCK && is_ours(fd) && is_due(1))
        return fail();
    return REAL(fcntl64)(fd, command, argument);
}
