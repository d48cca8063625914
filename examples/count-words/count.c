// Counts lines and words of each file that it is given, or of its standard input.
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static int count(FILE *file, const char *name) {
    long lines = 0, words = 0;
    for (int c, inside = 0; (c = getc(file)) != EOF;) {
        lines += c == '\n';
        words += !isspace(c) && !inside;
        inside = !isspace(c);
    }
    printf("%ld lines, %ld words: %s\n", lines, words, name);
    return ferror(file) != 0;
}

int main(int argc, char **argv) {
    int failed = 0;
    if (argc < 2) return count(stdin, "standard input");
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "r");
        if (!file) {
            fprintf(stderr, "%s: %s\n", argv[i], strerror(errno));
            failed = 1;
            continue;
        }
        failed |= count(file, argv[i]);
        fclose(file);
    }
    return failed;
}
