/* Has the n-th operation of a process fail, or kill it there: loaded with LD_PRELOAD, for tests/support/nth_operation.py
   and tests/support/nth_message.py.

   Operations are those that change files under a folder; without a folder, those of sockets and shared memory.
   nth_arm(n, error, folder): from now on count, and let the n-th fail with this errno; 0: kill the process before it;
   -1: fail as this operation fails in earnest (a connection is reset, there is no memory, …); -2: hang there until the
   file NTH_FILE.go is there, and then work.
   nth_count(): how many operations there have been. nth_hit(): the name of the one that failed; "": none did.
   A process whose environment has NTH_FILE is armed by the signal SIGRTMIN + 5: the file has "n error" or
   "n error folder".
   The operation that fails then writes its name into NTH_FILE.hit. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static char folder[PATH_MAX];
static atomic_int count, at;
static int code;
static const char *hit = "";

void nth_arm(int n, int error, const char *where) {
    snprintf(folder, sizeof folder, "%s", where);
    code = error, count = 0, hit = "", at = n;
}
int nth_count(void) { return count; }
const char *nth_hit(void) { return hit; }

static const char *file; /* NTH_FILE */

static void arm_by_signal(int number) {
    char text[PATH_MAX] = "", *rest;
    int saved = errno, fd = syscall(SYS_openat, AT_FDCWD, file, O_RDONLY);
    if (fd >= 0 && syscall(SYS_read, fd, text, sizeof text - 1) > 0) {
        long n = strtol(text, &rest, 10);
        at = 0, *folder = 0, count = 0, code = strtol(rest, &rest, 10);
        if (*rest == ' ') snprintf(folder, sizeof folder, "%s", rest + 1);
        at = n;
    }
    if (fd >= 0) syscall(SYS_close, fd);
    errno = saved;
}

static void disarm(void) { at = 0; }

__attribute__((constructor)) static void listen_for_the_signal(void) {
    file = getenv("NTH_FILE");
    pthread_atfork(NULL, NULL, disarm); /* the children of a process that is armed are not */
    struct sigaction action = {.sa_handler = arm_by_signal, .sa_flags = SA_RESTART};
    if (file) sigaction(SIGRTMIN + 5, &action, NULL);
}

static void tell(const char *name) {
    char path[PATH_MAX];
    if (!file) return;
    snprintf(path, sizeof path, "%s.hit", file);
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) return;
    syscall(SYS_write, fd, name, strlen(name));
    syscall(SYS_close, fd);
}

static void wait_until_told(void) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s.go", file);
    while (syscall(SYS_faccessat, AT_FDCWD, path, F_OK)) usleep(10000);
}

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

/* Whether this operation fails. `own`: the error that it has in earnest. */
static int fails_as(int is_counted, const char *name, int own) {
    if (!is_counted || ++count != at) return 0;
    tell(hit = name);
    if (!code) syscall(SYS_kill, getpid(), SIGKILL);
    if (code == -2 && file) {
        wait_until_told();
        return 0;
    }
    errno = code < 0 ? own : code;
    return 1;
}
static int fails(int is_counted) { return fails_as(is_counted, "file", EIO); }

/* Without a folder, sockets and shared memory are counted. */
static int is_message(void) { return at && !*folder; }

static int is_shared_memory(int fd) {
    char link[64], path[16] = "";
    if (!is_message() || fd < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    return !strncmp(path, "/memfd:", 7);
}

/* The other end sees the end of a connection that was reset. */
static int is_reset(int fd, const char *name) {
    if (!fails_as(is_message(), name, ECONNRESET)) return 0;
    int saved = errno;
    if (errno == ECONNRESET) shutdown(fd, SHUT_RDWR);
    errno = saved;
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
    REAL(write);
    return fails(is_our_file(fd)) || fails_as(is_shared_memory(fd), "write", ENOSPC) ? -1 : real(fd, data, size);
}
int ftruncate(int fd, off_t size) {
    REAL(ftruncate);
    return fails(is_our_file(fd)) || fails_as(is_shared_memory(fd), "ftruncate", ENOSPC) ? -1 : real(fd, size);
}
int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64);
    return fails(is_our_file(fd)) || fails_as(is_shared_memory(fd), "ftruncate64", ENOSPC) ? -1 : real(fd, size);
}

static const char *sync_of(int fd) {
    struct stat found;
    return !fstat(fd, &found) && S_ISDIR(found.st_mode) ? "sync of a folder" : "sync";
}
int fsync(int fd) { REAL(fsync); return fails_as(is_our_file(fd), sync_of(fd), EIO) ? -1 : real(fd); }
int fdatasync(int fd) { REAL(fdatasync); return fails_as(is_our_file(fd), sync_of(fd), EIO) ? -1 : real(fd); }
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

/* Sockets and shared memory. */
ssize_t send(int fd, const void *data, size_t size, int flags) {
    REAL(send); return is_reset(fd, "send") ? -1 : real(fd, data, size, flags);
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    REAL(sendmsg); return is_reset(fd, "sendmsg") ? -1 : real(fd, message, flags);
}
ssize_t recv(int fd, void *data, size_t size, int flags) {
    REAL(recv); return is_reset(fd, "recv") ? -1 : real(fd, data, size, flags);
}
ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    REAL(recvmsg); return is_reset(fd, "recvmsg") ? -1 : real(fd, message, flags);
}
int socket(int domain, int type, int protocol) {
    REAL(socket); return fails_as(is_message(), "socket", EMFILE) ? -1 : real(domain, type, protocol);
}
int socketpair(int domain, int type, int protocol, int ends[2]) {
    REAL(socketpair); return fails_as(is_message(), "socketpair", EMFILE) ? -1 : real(domain, type, protocol, ends);
}
int connect(int fd, __CONST_SOCKADDR_ARG address, socklen_t length) {
    static int (*real)(int, const struct sockaddr *, socklen_t);
    if (!real) real = (__typeof__(real))dlsym(RTLD_NEXT, "connect");
    return fails_as(is_message(), "connect", ECONNREFUSED) ? -1 : real(fd, address.__sockaddr__, length);
}
int accept4(int fd, __SOCKADDR_ARG address, socklen_t *length, int flags) {
    static int (*real)(int, struct sockaddr *, socklen_t *, int);
    if (!real) real = (__typeof__(real))dlsym(RTLD_NEXT, "accept4");
    return fails_as(is_message(), "accept4", EMFILE) ? -1 : real(fd, address.__sockaddr__, length, flags);
}
int memfd_create(const char *name, unsigned int flags) {
    REAL(memfd_create); return fails_as(is_message(), "memfd_create", EMFILE) ? -1 : real(name, flags);
}
void *mmap(void *place, size_t size, int access, int flags, int fd, off_t offset) {
    REAL(mmap);
    return fails_as(is_shared_memory(fd), "mmap", ENOMEM) ? MAP_FAILED : real(place, size, access, flags, fd, offset);
}
void *mmap64(void *place, size_t size, int access, int flags, int fd, off64_t offset) {
    REAL(mmap64);
    return fails_as(is_shared_memory(fd), "mmap64", ENOMEM) ? MAP_FAILED : real(place, size, access, flags, fd, offset);
}
