/* Has the n-th operation of a process fail, or kill it there: loaded with LD_PRELOAD, for tests/support/nth_operation.py.

   Operations are those that change files under a folder, and sends on sockets if there is no folder.
   nth_arm(n, error, folder): from now on count, and let the n-th fail with this errno; 0: kill the process before it.
   nth_count(): how many operations there have been. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static char folder[PATH_MAX];
static atomic_int count, at;
static int code;

void nth_arm(int n, int error, const char *where) {
    snprintf(folder, sizeof folder, "%s", where);
    code = error, count = 0, at = n;
}
int nth_count(void) { return count; }

static int is_ours(const char *path) { return at && path && *folder && !strncmp(path, folder, strlen(folder)); }

static int is_our_file(int fd) {
    char link[64], path[PATH_MAX];
    if (!at || !*folder) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return is_ours(path);
}

/* Whether this operation fails. */
static int fails(int is_counted) {
    if (!is_counted || ++count != at) return 0;
    if (!code) syscall(SYS_kill, getpid(), SIGKILL);
    errno = code;
    return 1;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    REAL(pwrite); return fails(is_our_file(fd)) ? -1 : real(fd, data, size, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    REAL(pwrite64); return fails(is_our_file(fd)) ? -1 : real(fd, data, size, offset);
}
ssize_t write(int fd, const void *data, size_t size) {
    REAL(write); return fails(is_our_file(fd)) ? -1 : real(fd, data, size);
}
int ftruncate(int fd, off_t size) { REAL(ftruncate); return fails(is_our_file(fd)) ? -1 : real(fd, size); }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64); return fails(is_our_file(fd)) ? -1 : real(fd, size); }
int fsync(int fd) { REAL(fsync); return fails(is_our_file(fd)) ? -1 : real(fd); }
int fdatasync(int fd) { REAL(fdatasync); return fails(is_our_file(fd)) ? -1 : real(fd); }
int unlink(const char *path) { REAL(unlink); return fails(is_ours(path)) ? -1 : real(path); }
int rmdir(const char *path) { REAL(rmdir); return fails(is_ours(path)) ? -1 : real(path); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); return fails(is_ours(path)) ? -1 : real(path, mode); }
int link(const char *from, const char *to) { REAL(link); return fails(is_ours(to)) ? -1 : real(from, to); }
int rename(const char *from, const char *to) { REAL(rename); return fails(is_ours(from)) ? -1 : real(from, to); }

#define MODE mode_t mode = 0; if (flags & O_CREAT) { va_list values; va_start(values, flags); \
    mode = va_arg(values, int); va_end(values); }
int open(const char *path, int flags, ...) {
    MODE return fails((flags & O_CREAT) && is_ours(path)) ? -1 : syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE return fails((flags & O_CREAT) && is_ours(path)) ? -1 : syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode);
}
