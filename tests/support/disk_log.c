/* Logs what a process does to the files under a folder: loaded with LD_PRELOAD, for tests of power cuts.

   $DISK_LOG_FOLDER is the folder, $DISK_LOG the log. A record is a line, and for a write the bytes after it:
     W offset length path    T size path    S path    C path    U path    R path\tpath    M path
   S: fsync or fdatasync of a file or a folder. C: a file is made. See power_cuts.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *folder;
static int log_fd = -1;

__attribute__((constructor)) static void begin(void) {
    folder = getenv("DISK_LOG_FOLDER");
    if (folder && getenv("DISK_LOG"))
        log_fd = syscall(SYS_openat, AT_FDCWD, getenv("DISK_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_ours(const char *path) {
    return log_fd >= 0 && path && !strncmp(path, folder, strlen(folder));
}

/* The path of a descriptor; 0 if it is none of ours. */
static int path_of(int fd, char *path) {
    char link[64];
    if (log_fd < 0 || fd == log_fd) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return is_ours(path);
}

static void put(const void *data, size_t size) {
    const char *rest = data;
    while (size) {
        ssize_t done = syscall(SYS_write, log_fd, rest, size);
        if (done <= 0) abort();
        rest += done, size -= done;
    }
}

static void say(const char *format, ...) {
    char line[2 * PATH_MAX + 64];
    va_list values;
    va_start(values, format);
    int length = vsnprintf(line, sizeof line, format, values);
    va_end(values);
    put(line, length);
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static ssize_t logged_write(int fd, const void *data, off_t offset, ssize_t done) {
    char path[PATH_MAX];
    if (done > 0 && path_of(fd, path)) {
        say("W %lld %lld %s\n", (long long)offset, (long long)done, path);
        put(data, done);
    }
    return done;
}

#define LOCKED(type, call) pthread_mutex_lock(&lock); type result = call; pthread_mutex_unlock(&lock); return result

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    REAL(pwrite); LOCKED(ssize_t, logged_write(fd, data, offset, real(fd, data, size, offset)));
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    REAL(pwrite64); LOCKED(ssize_t, logged_write(fd, data, offset, real(fd, data, size, offset)));
}
ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    char path[PATH_MAX];
    if (!path_of(fd, path)) return real(fd, data, size);
    pthread_mutex_lock(&lock);
    off_t offset = lseek(fd, 0, SEEK_CUR);
    ssize_t done = logged_write(fd, data, offset, real(fd, data, size));
    pthread_mutex_unlock(&lock);
    return done;
}

static int logged(int fd, const char *what, long long size, int failed) {
    char path[PATH_MAX];
    if (!failed && path_of(fd, path)) {
        if (size >= 0) say("%s %lld %s\n", what, size, path); else say("%s %s\n", what, path);
    }
    return failed;
}
int ftruncate(int fd, off_t size) { REAL(ftruncate); LOCKED(int, logged(fd, "T", size, real(fd, size))); }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64); LOCKED(int, logged(fd, "T", size, real(fd, size))); }
int fsync(int fd) { REAL(fsync); LOCKED(int, logged(fd, "S", -1, real(fd))); }
int fdatasync(int fd) { REAL(fdatasync); LOCKED(int, logged(fd, "S", -1, real(fd))); }

static int logged_open(int (*real)(int, const char *, int, ...), int at, const char *name, int flags, mode_t mode) {
    struct stat before;
    if (log_fd < 0 || !(flags & O_CREAT)) return real(at, name, flags, mode);
    pthread_mutex_lock(&lock);
    int is_new = fstatat(at, name, &before, AT_SYMLINK_NOFOLLOW) != 0, fd = real(at, name, flags, mode);
    if (fd >= 0 && is_new) logged(fd, "C", -1, 0);
    if (fd >= 0 && !is_new && (flags & O_TRUNC)) logged(fd, "T", 0, 0);
    pthread_mutex_unlock(&lock);
    return fd;
}
#define MODE mode_t mode = 0; if (flags & O_CREAT) { va_list values; va_start(values, flags); \
    mode = va_arg(values, int); va_end(values); }
int openat(int at, const char *name, int flags, ...) {
    MODE REAL(openat); return logged_open((void *)real, at, name, flags, mode);
}
int openat64(int at, const char *name, int flags, ...) {
    MODE REAL(openat64); return logged_open((void *)real, at, name, flags, mode);
}
static int open_at(int at, const char *name, int flags, ...) { MODE return syscall(SYS_openat, at, name, flags, mode); }
int open(const char *name, int flags, ...) { MODE return logged_open(open_at, AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE return logged_open(open_at, AT_FDCWD, name, flags | O_LARGEFILE, mode); }

static int logged_path(const char *what, const char *path, int failed) {
    if (!failed && is_ours(path)) say("%s %s\n", what, path);
    return failed;
}
int unlink(const char *path) { REAL(unlink); LOCKED(int, logged_path("U", path, real(path))); }
int rmdir(const char *path) { REAL(rmdir); LOCKED(int, logged_path("U", path, real(path))); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); LOCKED(int, logged_path("M", path, real(path, mode))); }
int rename(const char *from, const char *to) {
    REAL(rename);
    pthread_mutex_lock(&lock);
    int failed = real(from, to);
    if (!failed && is_ours(from)) say("R %s\t%s\n", from, to);
    pthread_mutex_unlock(&lock);
    return failed;
}
