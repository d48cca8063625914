// probe: does one thing per verb and says what it saw, so that a test can look at a sandbox from the inside.
// The same source is built for WASI and for Linux. Each verb consumes its own arguments, so verbs can be chained:
//
//   args [A...]       prints every argument that is left, one on a line (last verb)
//   env NAME          prints NAME=value or "NAME is not set"
//   environ           prints the whole environment
//   cwd               prints the working directory
//   cat               copies standard input to standard output
//   read PATH         prints a file
//   write PATH TEXT   replaces a file
//   append PATH TEXT  adds to a file
//   mkdir PATH, rm PATH, ls PATH, exists PATH
//   hold PATH COUNT   opens COUNT files at once, made as needed, and says how many it got; closes them again
//   err TEXT          prints TEXT on standard error
//   tty               says which of the three streams are terminals
//   flood BYTES       writes BYTES bytes to standard output
//   sleep SECONDS, spin (never ends)
//   trap              ends abnormally
//   exit CODE
//
// A call that fails prints "VERB PATH: reason" on standard error and the program ends with code 1.
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void fail(const char *verb, const char *what) {
    fprintf(stderr, "%s %s: %s\n", verb, what, strerror(errno));
    exit(1);
}

static void copy(int from, int to) {
    char buffer[8192];
    for (;;) {
        ssize_t n = read(from, buffer, sizeof buffer);
        if (n < 0) fail("read", "stream");
        if (n == 0) return;
        for (ssize_t done = 0; done < n;) {
            ssize_t k = write(to, buffer + done, (size_t)(n - done));
            if (k < 0) fail("write", "stream");
            done += k;
        }
    }
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void list(const char *path) {
    DIR *dir = opendir(path);
    if (!dir) fail("ls", path);
    char *names[256];
    size_t count = 0;
    for (struct dirent *entry; count < 256 && (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) names[count++] = strdup(entry->d_name);
    }
    qsort(names, count, sizeof *names, by_name);
    for (size_t i = 0; i < count; i++) puts(names[i]);
    closedir(dir);
}

static void put(const char *verb, const char *path, const char *mode, const char *text) {
    FILE *file = fopen(path, mode);
    if (!file || fputs(text, file) < 0 || fputc('\n', file) < 0 || fclose(file) != 0) fail(verb, path);
}

static void hold(const char *path, long count) {
    FILE *files[256];
    long have = 0;
    while (have < count && have < 256 && (files[have] = fopen(path, "a"))) have++;
    if (have < count) fprintf(stderr, "hold %s: %s\n", path, strerror(errno));
    for (long i = 0; i < have; i++) fclose(files[i]);
    FILE *again = fopen(path, "r");
    if (!again) fail("hold", path);
    fclose(again);
    if (have < count) puts("held fewer");
    else printf("held %ld\n", have);
}

static void flood(long bytes) {
    char line[4096];
    memset(line, 'x', sizeof line);
    for (long done = 0; done < bytes;) {
        size_t want = (size_t)(bytes - done) < sizeof line ? (size_t)(bytes - done) : sizeof line;
        ssize_t n = write(1, line, want);
        if (n < 0) fail("write", "stream");
        done += n;
    }
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const char *verb = argv[i];
        const char *one = i + 1 < argc ? argv[i + 1] : "";
        const char *two = i + 2 < argc ? argv[i + 2] : "";
        fflush(stdout);
        if (!strcmp(verb, "args")) {
            while (++i < argc) puts(argv[i]);
        } else if (!strcmp(verb, "argv0")) {
            puts(argv[0]);
        } else if (!strcmp(verb, "env")) {
            const char *value = getenv(one);
            if (value) printf("%s=%s\n", one, value);
            else printf("%s is not set\n", one);
            i++;
        } else if (!strcmp(verb, "environ")) {
            for (char **entry = environ; entry && *entry; entry++) puts(*entry);
        } else if (!strcmp(verb, "cwd")) {
            char path[4096];
            if (!getcwd(path, sizeof path)) fail("cwd", "");
            puts(path);
        } else if (!strcmp(verb, "cat")) {
            copy(0, 1);
        } else if (!strcmp(verb, "read")) {
            FILE *file = fopen(one, "r");
            if (!file) fail("read", one);
            fflush(stdout);
            copy(fileno(file), 1);
            fclose(file);
            i++;
        } else if (!strcmp(verb, "write")) {
            put(verb, one, "w", two);
            i += 2;
        } else if (!strcmp(verb, "append")) {
            put(verb, one, "a", two);
            i += 2;
        } else if (!strcmp(verb, "mkdir")) {
            if (mkdir(one, 0755) != 0) fail(verb, one);
            i++;
        } else if (!strcmp(verb, "rm")) {
            if (remove(one) != 0) fail(verb, one);
            i++;
        } else if (!strcmp(verb, "ls")) {
            list(one);
            i++;
        } else if (!strcmp(verb, "exists")) {
            struct stat status;
            printf("%s %s\n", one, stat(one, &status) == 0 ? "exists" : "does not exist");
            i++;
        } else if (!strcmp(verb, "hold")) {
            hold(one, atol(two));
            i += 2;
        } else if (!strcmp(verb, "err")) {
            fprintf(stderr, "%s\n", one);
            i++;
        } else if (!strcmp(verb, "tty")) {
            printf("stdin %d stdout %d stderr %d\n", isatty(0), isatty(1), isatty(2));
        } else if (!strcmp(verb, "flood")) {
            flood(atol(one));
            i++;
        } else if (!strcmp(verb, "sleep")) {
            struct timespec time = {.tv_sec = atol(one)};
            nanosleep(&time, NULL);
            i++;
        } else if (!strcmp(verb, "spin")) {
            for (volatile unsigned long n = 0;; n++) {
            }
        } else if (!strcmp(verb, "trap")) {
            __builtin_trap();
        } else if (!strcmp(verb, "exit")) {
            fflush(stdout);
            exit(atoi(one));
        } else {
            fprintf(stderr, "probe: unknown verb %s\n", verb);
            return 2;
        }
    }
    return 0;
}
