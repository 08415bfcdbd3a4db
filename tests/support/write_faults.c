/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded into a process, counts its calls that change files; at a given one the
 * process is killed, or the call fails. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int armed;
static long fatal;
static long seen;
static int number;
static int lasting;

/* From now on count, and at call `at` (0: at none) kill the process, or have the call
 * fail with `error` if that is not 0, and all later ones too if `forever`. */
void
faults_arm(long at, int error, int forever)
{
    fatal = at;
    number = error;
    lasting = forever;
    seen = 0;
    armed = 1;
}

long
faults_seen(void)
{
    armed = 0;
    return seen;
}

static int
is_due(void)
{
    if (!armed) {
        return 0;
    }
    seen++;
    return fatal && (seen == fatal || (lasting && seen > fatal));
}

static int
fails(void)
{
    if (!is_due()) {
        return 0;
    }
    if (!number) {
        kill(getpid(), SIGKILL);
    }
    errno = number;
    return 1;
}

#define WRAP(type, name, parameters, arguments)        \
    type name parameters                               \
    {                                                  \
        static type(*real) parameters;                 \
        if (!real)                                     \
            *(void **)&real = dlsym(RTLD_NEXT, #name); \
        return fails() ? (type) - 1 : real arguments;  \
    }

WRAP(int, rename, (const char *a, const char *b), (a, b))
WRAP(int, renameat, (int c, const char *a, int d, const char *b), (c, a, d, b))
WRAP(int, unlink, (const char *a), (a))
WRAP(int, unlinkat, (int c, const char *a, int f), (c, a, f))
WRAP(int, mkdir, (const char *a, mode_t m), (a, m))
WRAP(int, rmdir, (const char *a), (a))
WRAP(int, link, (const char *a, const char *b), (a, b))
WRAP(int, symlink, (const char *a, const char *b), (a, b))
WRAP(int, chmod, (const char *a, mode_t m), (a, m))
WRAP(int, fchmod, (int f, mode_t m), (f, m))
WRAP(int, fchmodat, (int d, const char *a, mode_t m, int f), (d, a, m, f))
WRAP(int, fsync, (int f), (f))
WRAP(int, fdatasync, (int f), (f))
WRAP(int, ftruncate, (int f, off_t n), (f, n))
WRAP(int, ftruncate64, (int f, off64_t n), (f, n))
WRAP(ssize_t, sendfile, (int o, int i, off_t *p, size_t n), (o, i, p, n))
WRAP(ssize_t, sendfile64, (int o, int i, off64_t *p, size_t n), (o, i, p, n))
WRAP(ssize_t, pwrite, (int f, const void *b, size_t n, off_t p), (f, b, n, p))
WRAP(ssize_t, pwrite64, (int f, const void *b, size_t n, off64_t p), (f, b, n, p))
WRAP(ssize_t, writev, (int f, const struct iovec *v, int n), (f, v, n))

/* Half of what was to be written is on the disk when the process is killed. */
ssize_t
write(int file, const void *bytes, size_t count)
{
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) {
        *(void **)&real = dlsym(RTLD_NEXT, "write");
    }
    if (file > 2 && is_due()) {
        if (!number) {
            if (real(file, bytes, count / 2) >= 0) {
                kill(getpid(), SIGKILL);
            }
        }
        errno = number;
        return -1;
    }
    return real(file, bytes, count);
}

#define WRAP_OPEN(name)                                 \
    int name(const char *path, int flags, ...)          \
    {                                                   \
        static int (*real)(const char *, int, ...);     \
        va_list rest;                                   \
        mode_t mode;                                    \
        va_start(rest, flags);                          \
        mode = va_arg(rest, mode_t);                    \
        va_end(rest);                                   \
        if (!real)                                      \
            *(void **)&real = dlsym(RTLD_NEXT, #name);  \
        if ((flags & O_ACCMODE) != O_RDONLY && fails()) \
            return -1;                                  \
        return real(path, flags, mode);                 \
    }

WRAP_OPEN(open)
WRAP_OPEN(open64)
