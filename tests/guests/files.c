// Work on files, for measurements and tests: the same source as a Wasm guest and as a Linux program.
//   list DIR      counts a directory's entries        write FILE   writes 64 MiB, then removes the file
//   small DIR     makes, looks at and removes 10,000 files          read FILE    reads a file to its end
//   append FILE   adds a byte                         many DIR N   makes N files and lists them
//   rename A B    renames                          clear DIR    removes all files in a directory
//   work DIR N    makes N files, lists them, removes all in the directory and lists it
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char buffer[64 << 10];

static int fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    return 1;
}

static long count(const char *path) {
    DIR *dir = opendir(path);
    if (!dir) return -1;
    long entries = 0;
    while (readdir(dir)) entries++;
    closedir(dir);
    return entries;
}

static int make(const char *dir, long files) {
    char path[512];
    if (mkdir(dir, 0755) && errno != EEXIST) return fail(dir);
    for (long i = 0; i < files; i++) {
        snprintf(path, sizeof path, "%s/n%ld", dir, i);
        int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
        if (fd < 0 || write(fd, "x", 1) != 1 || close(fd)) return fail(path);
    }
    return 0;
}

static int small(const char *dir) {
    char path[512];
    struct stat stat_;
    if (make(dir, 10000)) return 1;
    for (int i = 0; i < 10000; i++) {
        snprintf(path, sizeof path, "%s/n%d", dir, i);
        if (stat(path, &stat_) || stat_.st_size != 1) return fail(path);
    }
    for (int i = 0; i < 10000; i++) {
        snprintf(path, sizeof path, "%s/n%d", dir, i);
        if (unlink(path)) return fail(path);
    }
    return 0;
}

// Reads the directory to its end and removes what it named, until there is nothing more.
static int clear(const char *path) {
    char name[512];
    long removed = 0, before;
    do {
        DIR *dir = opendir(path);
        if (!dir) return fail(path);
        before = removed;
        for (struct dirent *entry; (entry = readdir(dir));) {
            if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
            snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
            if (unlink(name)) return fail(name);
            removed++;
        }
        closedir(dir);
    } while (removed != before);
    printf("%ld\n", removed);
    return 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "", *path = argc > 2 ? argv[2] : ".";
    if (!strcmp(what, "list")) {
        long entries = count(path);
        if (entries < 0) return fail(path);
        printf("%ld\n", entries);
    } else if (!strcmp(what, "many") && argc > 3) {
        long files = atol(argv[3]);
        if (make(path, files)) return 1;
        printf("%ld\n", count(path));
    } else if (!strcmp(what, "clear")) {
        return clear(path);
    } else if (!strcmp(what, "work") && argc > 3) {
        if (make(path, atol(argv[3]))) return 1;
        printf("%ld\n", count(path));
        if (clear(path)) return 1;
        printf("%ld\n", count(path));
    } else if (!strcmp(what, "small")) {
        if (small(path)) return 1;
        puts("done");
    } else if (!strcmp(what, "write")) {
        int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
        if (fd < 0) return fail(path);
        for (int i = 0; i < 1024; i++)
            if (write(fd, buffer, sizeof buffer) != sizeof buffer) return fail(path);
        if (close(fd) || unlink(path)) return fail(path);
        puts("done");
    } else if (!strcmp(what, "read")) {
        long long total = 0;
        ssize_t got;
        int fd = open(path, O_RDONLY);
        if (fd < 0) return fail(path);
        while ((got = read(fd, buffer, sizeof buffer)) > 0) total += got;
        if (got) return fail(path);
        printf("%lld\n", total);
    } else if (!strcmp(what, "append")) {
        int fd = open(path, O_WRONLY | O_APPEND);
        if (fd < 0 || write(fd, "+", 1) != 1 || close(fd)) return fail(path);
        puts("done");
    } else if (!strcmp(what, "rename") && argc > 3) {
        if (rename(path, argv[3])) return fail(path);
        puts("done");
    } else {
        fprintf(stderr, "usage: files list|small|write|read|append|many|rename ...\n");
        return 2;
    }
    return 0;
}
