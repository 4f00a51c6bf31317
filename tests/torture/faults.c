//go:build ignore

// The disk that fails: loaded with LD_PRELOAD between the store and libc, for files below one directory only.
//
// It is not a file system. What the process sees are the real files; beside them it keeps a second, durable picture of
// the directory, which has only what was fsynced: an fsync of a file brings its changed bytes there, an fsync of a
// directory its names. After a kill, powercut.go makes a directory of that picture. It can also fail one fsync with EIO
// (and then drops the bytes, as Linux does), and play a full disk.
//
// The picture is flat. Every inode is an object: a file `oINODE` or `nCOUNT` with the bytes, or a directory of that name
// whose entries are hard links to files, and symbolic links that name directories. An inode that is made while the
// process runs gets a new name (`n…`), because the file system gives numbers of dead inodes to new ones.
//
// Invariant: nothing gets into the picture that was not fsynced. All state is behind one lock.
//
// Environment: TORTURE_DATA the directory; TORTURE_SHADOW the picture; TORTURE_SYNC_US time an fsync takes;
// TORTURE_EIO=KIND:N fails the Nth fsync of wal, segment, dir, catalog or catalogdb; TORTURE_EVENTS a file that gets a
// line when it happened; TORTURE_FULL a file, and the disk is full while it exists.

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FDS_MAX = 65536, BUCKETS = 4096, RANGES_MAX = 1024, COPY_BYTES = 1 << 16, PATH_BYTES = 4096 };
// What a file descriptor stands for; UNKNOWN is asked when it is first needed.
enum { UNKNOWN = 0, OUTSIDE, FILE_BELOW, DIR_BELOW };

struct range {
    off_t from, to;
};

// An inode below the directory, with the bytes that were written since its last fsync.
struct object {
    ino_t inode;
    char name[32];
    struct range ranges[RANGES_MAX];
    int count;
    struct object *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *data_dir, *shadow_dir, *events_file, *full_file;
static size_t data_dir_bytes;
static char fault_kind[16];
static long fault_in;
static useconds_t sync_us;
static unsigned char states[FDS_MAX];
static struct object *objects[BUCKETS];
static long objects_made;
static bool half_written;

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

__attribute__((constructor)) static void start(void) {
    shadow_dir = setting("TORTURE_SHADOW");
    events_file = setting("TORTURE_EVENTS");
    full_file = setting("TORTURE_FULL");
    const char *us = setting("TORTURE_SYNC_US"), *fault = setting("TORTURE_EIO"), *dir = setting("TORTURE_DATA");
    sync_us = us ? (useconds_t)atol(us) : 0;
    if (fault && sscanf(fault, "%15[a-z]:%ld", fault_kind, &fault_in) != 2) {
        fault_in = 0;
    }
    data_dir_bytes = dir ? strlen(dir) : 0;
    data_dir = dir;
}

// A fault of this layer must never look like one of the store.
static void give_up(const char *what, const char *path) {
    dprintf(2, "faults: %s '%s': %s\n", what, path, strerror(errno));
    _exit(99);
}

static bool is_below(const char *path) {
    return data_dir && path && strncmp(path, data_dir, data_dir_bytes) == 0 &&
           (path[data_dir_bytes] == '/' || path[data_dir_bytes] == 0);
}

static bool path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t bytes = readlink(link, path, PATH_BYTES - 1);
    path[bytes < 0 ? 0 : bytes] = 0;
    return bytes > 0;
}

static int state_of(int fd) {
    if (!data_dir || fd < 0 || fd >= FDS_MAX) {
        return OUTSIDE;
    }
    if (states[fd] == UNKNOWN) {
        int before = errno;
        struct stat found;
        char path[PATH_BYTES];
        int state = OUTSIDE;
        if (fstat(fd, &found) == 0 && (S_ISREG(found.st_mode) || S_ISDIR(found.st_mode)) && path_of(fd, path) &&
            is_below(path)) {
            state = S_ISDIR(found.st_mode) ? DIR_BELOW : FILE_BELOW;
        }
        states[fd] = (unsigned char)state;
        errno = before;
    }
    return states[fd];
}

static struct object *object_of(ino_t inode) {
    struct object **at = &objects[inode % BUCKETS];
    while (*at && (*at)->inode != inode) {
        at = &(*at)->next;
    }
    if (!*at) {
        *at = calloc(1, sizeof **at);
        (*at)->inode = inode;
        snprintf((*at)->name, sizeof(*at)->name, "o%lu", (unsigned long)inode);
    }
    return *at;
}

static void begin_object(ino_t inode) {
    struct object *object = object_of(inode);
    snprintf(object->name, sizeof object->name, "n%ld", ++objects_made);
    object->count = 0;
}

static void mark_changed(struct object *object, off_t from, off_t to) {
    if (!shadow_dir || from >= to) {
        return;
    }
    struct range *last = object->count ? &object->ranges[object->count - 1] : NULL;
    if (last && from <= last->to && to >= last->from) {
        last->from = from < last->from ? from : last->from;
        last->to = to > last->to ? to : last->to;
        return;
    }
    if (object->count == RANGES_MAX) {
        // Too scattered to remember each; the span over all of them is right too, the bytes between are equal.
        for (int i = 0; i < RANGES_MAX; i++) {
            from = object->ranges[i].from < from ? object->ranges[i].from : from;
            to = object->ranges[i].to > to ? object->ranges[i].to : to;
        }
        object->count = 0;
    }
    object->ranges[object->count++] = (struct range){from, to};
}

// ---- the durable picture ----

static void shadow_path(char *path, const char *dir, const char *name) {
    int bytes = dir ? snprintf(path, PATH_BYTES, "%s/%s/%s", shadow_dir, dir, name)
                    : snprintf(path, PATH_BYTES, "%s/%s", shadow_dir, name);
    if (bytes >= PATH_BYTES) {
        give_up("the path is too long", name);
    }
}

static int open_raw(const char *path, int flags) {
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0644);
}

static void close_raw(int fd) { syscall(SYS_close, fd); }

static void copy_range(int in, int out, struct range range, const char *path) {
    static char buffer[COPY_BYTES];
    while (range.from < range.to) {
        size_t want = range.to - range.from < COPY_BYTES ? (size_t)(range.to - range.from) : COPY_BYTES;
        ssize_t got = pread(in, buffer, want, range.from);
        if (got < 0) {
            give_up("can't read back", path);
        }
        if (got == 0) {
            return;
        }
        if (syscall(SYS_pwrite64, out, buffer, got, range.from) != got) {
            give_up("can't write", path);
        }
        range.from += got;
    }
}

static void keep_file(int fd) {
    struct stat found;
    char path[PATH_BYTES], link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    fstat(fd, &found);
    struct object *object = object_of(found.st_ino);
    shadow_path(path, NULL, object->name);
    int in = open_raw(link, O_RDONLY), out = open_raw(path, O_WRONLY | O_CREAT);
    if (in < 0 || out < 0) {
        give_up("can't open", in < 0 ? link : path);
    }
    for (int i = 0; i < object->count; i++) {
        copy_range(in, out, object->ranges[i], path);
    }
    object->count = 0;
    if (syscall(SYS_ftruncate, out, found.st_size) != 0) {
        give_up("can't cut", path);
    }
    close_raw(in);
    close_raw(out);
}

// Makes the entry `name` of the durable directory stand for what it stands for in the real one.
static void keep_entry(const char *dir, const char *name, const struct stat *real) {
    struct object *object = object_of(real->st_ino);
    char entry[PATH_BYTES], whole[PATH_BYTES], fresh[PATH_BYTES], target[PATH_BYTES];
    struct stat known, wanted;
    shadow_path(entry, dir, name);
    shadow_path(whole, NULL, object->name);
    shadow_path(fresh, NULL, "fresh");
    bool exists = lstat(entry, &known) == 0;
    if (S_ISDIR(real->st_mode)) {
        ssize_t bytes = exists ? readlink(entry, target, sizeof target - 1) : -1;
        target[bytes < 0 ? 0 : bytes] = 0;
        if (strcmp(target, object->name) == 0) {
            return;
        }
        if (symlink(object->name, fresh) != 0) {
            give_up("can't link", fresh);
        }
    } else if (S_ISREG(real->st_mode)) {
        close_raw(open_raw(whole, O_WRONLY | O_CREAT));
        if (stat(whole, &wanted) != 0) {
            give_up("can't make", whole);
        }
        if (exists && known.st_ino == wanted.st_ino) {
            return;
        }
        if (link(whole, fresh) != 0) {
            give_up("can't link", fresh);
        }
    } else {
        return;
    }
    if (rename(fresh, entry) != 0) {
        give_up("can't rename to", entry);
    }
}

// New names first: a rename that is half kept must not lose the file.
static void keep_dir(int fd) {
    struct stat found, inside;
    char real[PATH_BYTES], kept[PATH_BYTES];
    fstat(fd, &found);
    const char *name = object_of(found.st_ino)->name;
    snprintf(real, sizeof real, "/proc/self/fd/%d", fd);
    shadow_path(kept, NULL, name);
    syscall(SYS_mkdirat, AT_FDCWD, kept, 0755);
    for (int pass = 0; pass < 2; pass++) {
        DIR *dir = opendir(pass == 0 ? real : kept);
        if (!dir) {
            give_up("can't list", pass == 0 ? real : kept);
        }
        for (struct dirent *entry; (entry = readdir(dir));) {
            if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
                continue;
            }
            bool exists = fstatat(fd, entry->d_name, &inside, AT_SYMLINK_NOFOLLOW) == 0;
            if (pass == 0 && exists) {
                keep_entry(name, entry->d_name, &inside);
            } else if (pass == 1 && !exists) {
                unlinkat(dirfd(dir), entry->d_name, 0);
            }
        }
        closedir(dir);
    }
}

// ---- faults ----

static const char *kind_of(const char *path, int state) {
    const char *below = path + data_dir_bytes;
    if (state == DIR_BELOW) {
        return "dir";
    }
    if (strncmp(below, "/wal/", 5) == 0) {
        return "wal";
    }
    if (strncmp(below, "/segments/", 10) == 0) {
        return "segment";
    }
    if (strcmp(below, "/catalog.sqlite-wal") == 0) {
        return "catalog";
    }
    return strcmp(below, "/catalog.sqlite") == 0 ? "catalogdb" : "other";
}

static bool fault_is_due(int fd, int state) {
    char path[PATH_BYTES], line[PATH_BYTES + 32];
    if (fault_in <= 0 || !path_of(fd, path) || strcmp(kind_of(path, state), fault_kind) != 0 || --fault_in > 0) {
        return false;
    }
    struct stat found;
    fstat(fd, &found);
    // The kernel drops what it could not write, and says so only once.
    object_of(found.st_ino)->count = 0;
    int events = events_file ? open_raw(events_file, O_WRONLY | O_CREAT | O_APPEND) : -1;
    if (events >= 0) {
        int bytes = snprintf(line, sizeof line, "eio %s %s\n", fault_kind, path);
        syscall(SYS_write, events, line, bytes);
        close_raw(events);
    }
    return true;
}

static int synced(int fd, long call) {
    int state = state_of(fd);
    if (state == OUTSIDE) {
        return (int)syscall(call, fd);
    }
    if (sync_us) {
        usleep(sync_us);
    }
    pthread_mutex_lock(&lock);
    bool fault = fault_is_due(fd, state);
    if (!fault && shadow_dir) {
        state == DIR_BELOW ? keep_dir(fd) : keep_file(fd);
    }
    pthread_mutex_unlock(&lock);
    if (fault) {
        errno = EIO;
        return -1;
    }
    // With a picture the real disk does not matter.
    return shadow_dir ? 0 : (int)syscall(call, fd);
}

// A full disk takes what still fits, then nothing: every second write is cut in half before one is refused.
static bool is_refused(size_t *bytes) {
    if (!full_file || access(full_file, F_OK) != 0) {
        return false;
    }
    half_written = !half_written;
    if (half_written && *bytes > 1) {
        *bytes /= 2;
        return false;
    }
    errno = ENOSPC;
    return true;
}

static ssize_t wrote(int fd, ssize_t bytes, off_t at) {
    if (bytes > 0 && shadow_dir) {
        int before = errno;
        struct stat found;
        off_t end = at < 0 ? lseek(fd, 0, SEEK_CUR) : at + bytes;
        if (fstat(fd, &found) == 0) {
            pthread_mutex_lock(&lock);
            mark_changed(object_of(found.st_ino), end - bytes, end);
            pthread_mutex_unlock(&lock);
        }
        errno = before;
    }
    return bytes;
}

static int opened(int dir, const char *path, int flags, mode_t mode) {
    if (!(flags & (O_CREAT | O_TRUNC)) || !is_below(path)) {
        int fd = (int)syscall(SYS_openat, dir, path, flags, mode);
        if (fd >= 0 && fd < FDS_MAX) {
            states[fd] = UNKNOWN;
        }
        return fd;
    }
    pthread_mutex_lock(&lock);
    struct stat before, after;
    int earlier = errno;
    bool existed = stat(path, &before) == 0;
    errno = earlier;
    int fd = (int)syscall(SYS_openat, dir, path, flags, mode);
    if (fd >= 0 && fstat(fd, &after) == 0) {
        if (fd < FDS_MAX) {
            states[fd] = UNKNOWN;
        }
        if (!existed) {
            begin_object(after.st_ino);
        } else if (flags & O_TRUNC) {
            mark_changed(object_of(after.st_ino), 0, before.st_size);
        }
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

static int cut(int fd, off_t bytes) {
    struct stat before;
    if (state_of(fd) != FILE_BELOW || fstat(fd, &before) != 0) {
        return (int)syscall(SYS_ftruncate, fd, bytes);
    }
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_ftruncate, fd, bytes);
    if (done == 0) {
        mark_changed(object_of(before.st_ino), bytes, before.st_size);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

static int made_dir(int dir, const char *path, mode_t mode) {
    if (!is_below(path)) {
        return (int)syscall(SYS_mkdirat, dir, path, mode);
    }
    struct stat found;
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_mkdirat, dir, path, mode);
    if (done == 0 && stat(path, &found) == 0) {
        begin_object(found.st_ino);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

// ---- what libc's names lead to ----

#define OPEN(NAME, PARAMETERS, DIR, FLAGS)                                                                            \
    int NAME PARAMETERS {                                                                                             \
        mode_t mode = 0;                                                                                              \
        if ((FLAGS) & (O_CREAT | __O_TMPFILE)) {                                                                      \
            va_list more;                                                                                             \
            va_start(more, flags);                                                                                    \
            mode = va_arg(more, mode_t);                                                                              \
            va_end(more);                                                                                             \
        }                                                                                                             \
        return opened(DIR, path, flags, mode);                                                                        \
    }

OPEN(open, (const char *path, int flags, ...), AT_FDCWD, flags)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, flags)
OPEN(openat, (int dir, const char *path, int flags, ...), dir, flags)
OPEN(openat64, (int dir, const char *path, int flags, ...), dir, flags)

int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd) {
    if (fd >= 0 && fd < FDS_MAX) {
        states[fd] = UNKNOWN;
    }
    return (int)syscall(SYS_close, fd);
}

ssize_t write(int fd, const void *from, size_t bytes) {
    if (state_of(fd) != FILE_BELOW) {
        return syscall(SYS_write, fd, from, bytes);
    }
    return is_refused(&bytes) ? -1 : wrote(fd, syscall(SYS_write, fd, from, bytes), -1);
}

ssize_t pwrite(int fd, const void *from, size_t bytes, off_t at) {
    if (state_of(fd) != FILE_BELOW) {
        return syscall(SYS_pwrite64, fd, from, bytes, at);
    }
    return is_refused(&bytes) ? -1 : wrote(fd, syscall(SYS_pwrite64, fd, from, bytes, at), at);
}

ssize_t pwrite64(int fd, const void *from, size_t bytes, off64_t at) { return pwrite(fd, from, bytes, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    size_t none = 0;
    if (state_of(fd) != FILE_BELOW) {
        return syscall(SYS_writev, fd, parts, count);
    }
    return is_refused(&none) ? -1 : wrote(fd, syscall(SYS_writev, fd, parts, count), -1);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    size_t none = 0;
    if (state_of(fd) != FILE_BELOW) {
        return syscall(SYS_pwritev, fd, parts, count, at, 0);
    }
    return is_refused(&none) ? -1 : wrote(fd, syscall(SYS_pwritev, fd, parts, count, at, 0), at);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return pwritev(fd, parts, count, at); }

int ftruncate(int fd, off_t bytes) { return cut(fd, bytes); }
int ftruncate64(int fd, off64_t bytes) { return cut(fd, bytes); }
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }
int mkdir(const char *path, mode_t mode) { return made_dir(AT_FDCWD, path, mode); }
int mkdirat(int dir, const char *path, mode_t mode) { return made_dir(dir, path, mode); }
