// What WASI 0.1's functions answer, checked from inside: `wasi DIR` in a folder that has `lower.txt` ("lower\n"),
// `dir/a`, `dir/b` and a link `link` to `lower.txt`. Prints each answer that is wrong and ends with their number.
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wasi/api.h>

static int wrong;

static void check(int line, const char *what, int got, int wanted) {
    if (got == wanted) return;
    printf("line %d: %s answers %d, not %d\n", line, what, got, wanted);
    wrong++;
}
#define IS(call, wanted) check(__LINE__, #call, (int)(call), (int)(wanted))
#define OK(call) IS(call, 0)

static __wasi_fd_t root;
static const __wasi_rights_t RW = __WASI_RIGHTS_FD_READ | __WASI_RIGHTS_FD_WRITE;

static __wasi_errno_t open_at(__wasi_fd_t dir, const char *path, int oflags, __wasi_rights_t rights, int flags, __wasi_fd_t *fd) {
    return __wasi_path_open(dir, __WASI_LOOKUPFLAGS_SYMLINK_FOLLOW, path, oflags, rights, 0, flags, fd);
}

static __wasi_errno_t put(__wasi_fd_t fd, const char *text) {
    __wasi_ciovec_t vectors[] = {{(const uint8_t *)text, 1}, {(const uint8_t *)text + 1, strlen(text) - 1}};
    __wasi_size_t length;
    return __wasi_fd_write(fd, vectors, 2, &length);
}

static int holds(const char *path, const char *text) {
    char buffer[100] = {0};
    __wasi_iovec_t vectors[] = {{(uint8_t *)buffer, 2}, {(uint8_t *)buffer + 2, 90}};
    __wasi_size_t length;
    __wasi_fd_t fd;
    if (open_at(root, path, 0, __WASI_RIGHTS_FD_READ, 0, &fd) != 0) return 0;
    int same = __wasi_fd_read(fd, vectors, 2, &length) == 0 && strcmp(buffer, text) == 0;
    return __wasi_fd_close(fd) == 0 && same;
}

static void paths(void) {
    __wasi_fd_t fd, dir;
    __wasi_filestat_t stat, other;
    IS(open_at(root, "/lower.txt", 0, RW, 0, &fd), __WASI_ERRNO_PERM);
    IS(open_at(root, "none", 0, RW, 0, &fd), __WASI_ERRNO_NOENT);
    IS(open_at(root, "", 0, RW, 0, &fd), __WASI_ERRNO_NOENT);
    IS(open_at(root, "lower.txt/", 0, RW, 0, &fd), __WASI_ERRNO_NOTDIR);
    IS(open_at(root, "lower.txt/x", 0, RW, 0, &fd), __WASI_ERRNO_NOTDIR);
    IS(open_at(root, "lower.txt", __WASI_OFLAGS_DIRECTORY, 0, 0, &fd), __WASI_ERRNO_NOTDIR);
    IS(open_at(root, "lower.txt", __WASI_OFLAGS_CREAT | __WASI_OFLAGS_EXCL, RW, 0, &fd), __WASI_ERRNO_EXIST);
    IS(open_at(root, "dir", 0, RW, 0, &fd), __WASI_ERRNO_ISDIR);
    IS(open_at(root, "dir", __WASI_OFLAGS_DIRECTORY, RW, 0, &fd), __WASI_ERRNO_ISDIR);
    IS(__wasi_path_open(root, 0, "link", 0, RW, 0, 0, &fd), __WASI_ERRNO_LOOP);
    OK(open_at(root, "dir/.//../dir/", __WASI_OFLAGS_DIRECTORY, 0, 0, &dir));
    // An opened directory is the end of the world, whatever is above it.
    IS(open_at(dir, "..", __WASI_OFLAGS_DIRECTORY, 0, 0, &fd), __WASI_ERRNO_PERM);
    IS(open_at(dir, "../lower.txt", 0, __WASI_RIGHTS_FD_READ, 0, &fd), __WASI_ERRNO_PERM);
    IS(__wasi_path_filestat_get(dir, 0, "a/../../dir/a", &stat), __WASI_ERRNO_PERM);
    IS(__wasi_path_unlink_file(dir, "../lower.txt"), __WASI_ERRNO_PERM);
    IS(__wasi_path_rename(dir, "a", dir, "../a"), __WASI_ERRNO_PERM);
    OK(__wasi_path_filestat_get(dir, 0, "././a", &stat));
    OK(__wasi_fd_close(dir));

    OK(__wasi_path_filestat_get(root, 0, "link", &stat));
    IS(stat.filetype, __WASI_FILETYPE_SYMBOLIC_LINK);
    OK(__wasi_path_filestat_get(root, __WASI_LOOKUPFLAGS_SYMLINK_FOLLOW, "link", &stat));
    OK(__wasi_path_filestat_get(root, 0, "lower.txt", &other));
    IS(stat.filetype, __WASI_FILETYPE_REGULAR_FILE);
    IS(stat.ino == other.ino && stat.size == 6, 1);

    OK(__wasi_path_create_directory(root, "new"));
    IS(__wasi_path_create_directory(root, "new/"), __WASI_ERRNO_EXIST);
    IS(__wasi_path_unlink_file(root, "new"), __WASI_ERRNO_ISDIR);
    IS(__wasi_path_remove_directory(root, "lower.txt"), __WASI_ERRNO_NOTDIR);
    OK(__wasi_path_symlink("../lower.txt", root, "new/up"));
    IS(holds("new/up", "lower\n"), 1);
    IS(__wasi_path_symlink("/lower.txt", root, "new/absolute"), __WASI_ERRNO_PERM);
    IS(__wasi_path_symlink("x", root, "lower.txt/"), __WASI_ERRNO_NOTDIR);
    IS(__wasi_path_remove_directory(root, "new"), __WASI_ERRNO_NOTEMPTY);
    OK(__wasi_path_rename(root, "new/up", root, "up"));
    OK(__wasi_path_remove_directory(root, "new/"));
    OK(__wasi_path_unlink_file(root, "up"));
    uint8_t target[4] = "****";
    __wasi_size_t length;
    OK(__wasi_path_readlink(root, "link", target, 3, &length));
    IS(length == 3 && memcmp(target, "low*", 4) == 0, 1);
    IS(__wasi_path_readlink(root, "lower.txt", target, 3, &length), __WASI_ERRNO_INVAL);
}

static void files(void) {
    __wasi_fd_t fd, other;
    __wasi_fdstat_t stat;
    __wasi_filestat_t before, after;
    __wasi_filesize_t at;
    __wasi_size_t length;
    OK(__wasi_path_filestat_get(root, 0, "lower.txt", &before));
    OK(open_at(root, "lower.txt", 0, RW, __WASI_FDFLAGS_APPEND, &fd));
    OK(__wasi_fd_fdstat_get(fd, &stat));
    IS(stat.fs_flags, __WASI_FDFLAGS_APPEND);
    OK(put(fd, "more\n"));
    OK(__wasi_fd_filestat_get(fd, &after));
    // The same file still, also when it has just been copied up.
    IS(after.ino == before.ino && after.dev == before.dev && after.size == 11, 1);
    OK(__wasi_fd_fdstat_set_flags(fd, __WASI_FDFLAGS_DSYNC));
    IS(__wasi_fd_fdstat_set_flags(fd, 32), __WASI_ERRNO_INVAL);
    OK(__wasi_fd_seek(fd, 0, __WASI_WHENCE_SET, &at));
    OK(put(fd, "LOW"));
    OK(__wasi_fd_tell(fd, &at));
    IS(at, 3);
    IS(__wasi_fd_seek(fd, -4, __WASI_WHENCE_CUR, &at), __WASI_ERRNO_INVAL);
    IS(__wasi_fd_seek(fd, 0, 3, &at), __WASI_ERRNO_INVAL);
    uint8_t buffer[8] = {0};
    __wasi_iovec_t vector = {buffer, 2};
    OK(__wasi_fd_pread(fd, &vector, 1, 1, &length));
    IS(length == 2 && memcmp(buffer, "OW", 3) == 0, 1);
    OK(__wasi_fd_pread(fd, &vector, 1, 100, &length));
    IS(length, 0);
    __wasi_ciovec_t source = {(const uint8_t *)"ER\n", 3};
    OK(__wasi_fd_pwrite(fd, &source, 1, 3, &length));
    OK(__wasi_fd_filestat_set_size(fd, 6));
    IS(holds("lower.txt", "LOWER\n"), 1);
    OK(__wasi_fd_filestat_set_times(fd, 0, 1000000000, __WASI_FSTFLAGS_MTIM));
    OK(__wasi_fd_filestat_get(fd, &after));
    IS(after.mtim, 1000000000);
    IS(__wasi_fd_filestat_set_times(fd, 0, 0, __WASI_FSTFLAGS_MTIM | __WASI_FSTFLAGS_MTIM_NOW), __WASI_ERRNO_INVAL);
    IS(__wasi_path_filestat_set_times(root, 0, "lower.txt", 0, 0, 16), __WASI_ERRNO_INVAL);
    OK(__wasi_fd_advise(fd, 0, 0, __WASI_ADVICE_SEQUENTIAL));
    IS(__wasi_fd_advise(fd, 0, 0, 6), __WASI_ERRNO_INVAL);
    IS(__wasi_fd_allocate(fd, 0, 1), __WASI_ERRNO_NOTSUP);
    IS(__wasi_fd_fdstat_set_rights(fd, 0, 0), __WASI_ERRNO_NOTSUP);
    OK(__wasi_fd_sync(fd));
    OK(__wasi_fd_datasync(fd));

    OK(open_at(root, "lower.txt", 0, __WASI_RIGHTS_FD_READ, 0, &other));
    IS(put(other, "no"), __WASI_ERRNO_BADF);
    IS(__wasi_fd_filestat_set_size(other, 0), __WASI_ERRNO_INVAL);
    OK(__wasi_fd_renumber(other, fd));
    IS(__wasi_fd_close(other), __WASI_ERRNO_BADF);
    IS(put(fd, "no"), __WASI_ERRNO_BADF);
    IS(__wasi_fd_renumber(fd, 999), __WASI_ERRNO_BADF);
    OK(__wasi_fd_close(fd));
    OK(open_at(root, "lower.txt", __WASI_OFLAGS_TRUNC, RW, 0, &fd));
    OK(__wasi_fd_close(fd));
    IS(holds("lower.txt", ""), 1);

    // Directories and streams.
    IS(__wasi_fd_read(root, &vector, 1, &length), __WASI_ERRNO_BADF);
    IS(__wasi_fd_seek(root, 0, __WASI_WHENCE_SET, &at), __WASI_ERRNO_BADF);
    IS(__wasi_fd_seek(1, 0, __WASI_WHENCE_SET, &at), __WASI_ERRNO_SPIPE);
    IS(__wasi_fd_read(1, &vector, 1, &length), __WASI_ERRNO_BADF);
    IS(put(0, "no"), __WASI_ERRNO_BADF);
    IS(__wasi_sock_shutdown(root, __WASI_SDFLAGS_RD), __WASI_ERRNO_NOTSOCK);
    IS(__wasi_sock_shutdown(999, __WASI_SDFLAGS_RD), __WASI_ERRNO_BADF);
}

// Reads a listing in pieces of `size` bytes, going on where the last whole entry ended. Counts, and sums up the names.
static int list(const char *path, size_t size, unsigned *names) {
    __wasi_fd_t dir;
    __wasi_dircookie_t cookie = __WASI_DIRCOOKIE_START;
    int count = 0;
    *names = 0;
    if (open_at(root, path, __WASI_OFLAGS_DIRECTORY, __WASI_RIGHTS_FD_READDIR, 0, &dir) != 0) return -1;
    for (;;) {
        uint8_t buffer[4096];
        __wasi_size_t used, at = 0;
        if (__wasi_fd_readdir(dir, buffer, size, cookie, &used) != 0) return -2;
        while (at + sizeof(__wasi_dirent_t) <= used) {
            __wasi_dirent_t entry;
            memcpy(&entry, buffer + at, sizeof entry);
            if (at + sizeof entry + entry.d_namlen > used) break;
            for (__wasi_size_t i = 0; i < entry.d_namlen; i++) *names += buffer[at + sizeof entry + i];
            at += sizeof entry + entry.d_namlen;
            cookie = entry.d_next;
            count++;
        }
        if (used < size) break;
    }
    return __wasi_fd_close(dir) == 0 ? count : -3;
}

static void listings(void) {
    unsigned names, again;
    __wasi_fd_t fd;
    IS(list("dir", 4096, &names), 4);
    IS(names, '.' * 3 + 'a' + 'b');
    OK(open_at(root, "dir/c", __WASI_OFLAGS_CREAT, RW, 0, &fd));
    OK(__wasi_fd_close(fd));
    OK(__wasi_path_unlink_file(root, "dir/a"));
    IS(list("dir", 4096, &names), 4);
    IS(names, '.' * 3 + 'b' + 'c');
    for (size_t size = 27; size < 80; size += 13) IS(list("dir", size, &again) == 4 && again == names, 1);
    __wasi_size_t used;
    uint8_t buffer[64];
    IS(__wasi_fd_readdir(1, buffer, 64, 0, &used), __WASI_ERRNO_NOTDIR);
    OK(__wasi_fd_readdir(root, buffer, 64, 1ull << 60, &used));
    IS(used, 0);
}

static void waiting(void) {
    static __wasi_subscription_t all[1000];
    static __wasi_event_t events[1000];
    __wasi_timestamp_t start, end;
    __wasi_size_t count;
    OK(__wasi_clock_time_get(__WASI_CLOCKID_MONOTONIC, 0, &start));
    for (int i = 0; i < 1000; i++) {
        all[i].userdata = i;
        all[i].u.tag = __WASI_EVENTTYPE_CLOCK;
        all[i].u.u.clock = (__wasi_subscription_clock_t){.id = __WASI_CLOCKID_MONOTONIC, .timeout = (1 + i % 2 * 1000) * 1000000ull};
    }
    // A point in time, of another clock.
    OK(__wasi_clock_time_get(__WASI_CLOCKID_REALTIME, 0, &end));
    all[1].u.u.clock = (__wasi_subscription_clock_t){__WASI_CLOCKID_REALTIME, end + 500000, 0, __WASI_SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME};
    OK(__wasi_poll_oneoff(all, events, 1000, &count));
    OK(__wasi_clock_time_get(__WASI_CLOCKID_MONOTONIC, 0, &end));
    IS(count >= 1 && count <= 501 && end - start >= 400000, 1);
    for (__wasi_size_t i = 0; i < count; i++) IS(events[i].userdata % 2 == 0 || events[i].userdata == 1, 1);
    // Ready things come at once, with a bad descriptor's error beside them.
    all[2] = (__wasi_subscription_t){.userdata = 7, .u = {.tag = __WASI_EVENTTYPE_FD_WRITE, .u.fd_write.file_descriptor = 1}};
    all[3] = (__wasi_subscription_t){.userdata = 8, .u = {.tag = __WASI_EVENTTYPE_FD_READ, .u.fd_read.file_descriptor = 999}};
    OK(__wasi_poll_oneoff(all + 2, events, 2, &count));
    IS(count == 2 && events[0].error == 0 && events[1].error == __WASI_ERRNO_BADF && events[1].userdata == 8, 1);
    IS(__wasi_poll_oneoff(all, events, 0, &count), __WASI_ERRNO_INVAL);
    OK(__wasi_clock_res_get(__WASI_CLOCKID_REALTIME, &start));
    IS(__wasi_clock_time_get(99, 0, &start), __WASI_ERRNO_INVAL);
    OK(__wasi_sched_yield());
    static uint8_t noise[1 << 20];
    OK(__wasi_random_get(noise, sizeof noise));
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof noise; i++) sum |= noise[i];
    IS(sum, 255);
}

// With `stdin`: what a stream does that has nothing yet, when it is not to block. The other side then sends a line.
static void input(void) {
    uint8_t buffer[16];
    __wasi_iovec_t vector = {buffer, sizeof buffer};
    __wasi_size_t length, count;
    __wasi_fdstat_t stat;
    OK(__wasi_fd_fdstat_set_flags(0, __WASI_FDFLAGS_NONBLOCK));
    OK(__wasi_fd_fdstat_get(0, &stat));
    IS(stat.fs_flags, __WASI_FDFLAGS_NONBLOCK);
    IS(__wasi_fd_read(0, &vector, 1, &length), __WASI_ERRNO_AGAIN);
    puts("ready");
    fflush(stdout);
    __wasi_subscription_t one = {.userdata = 1, .u = {.tag = __WASI_EVENTTYPE_FD_READ, .u.fd_read.file_descriptor = 0}};
    __wasi_event_t event;
    OK(__wasi_poll_oneoff(&one, &event, 1, &count));
    IS(event.error == 0 && event.fd_readwrite.nbytes == 5, 1);
    OK(__wasi_fd_read(0, &vector, 1, &length));
    IS(length, 5);
}

int main(int argc, char **argv) {
    const char *place = argc > 1 ? argv[1] : "/";
    if (strcmp(place, "stdin") == 0) {
        input();
        return wrong;
    }
    for (root = 3;; root++) {
        __wasi_prestat_t stat;
        char name[256] = {0};
        if (__wasi_fd_prestat_get(root, &stat) != 0 || __wasi_fd_prestat_dir_name(root, (uint8_t *)name, sizeof name) != 0) {
            printf("%s is not preopened\n", place);
            return 100;
        }
        if (strcmp(name, place) == 0) break;
    }
    paths();
    files();
    listings();
    waiting();
    return wrong;
}
