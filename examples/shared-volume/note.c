// note write FILE TEXT: adds a line to a file; note read FILE: prints it. The same source for Wasm and for Linux.
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    if (argc == 4 && !strcmp(argv[1], "write")) {
        FILE *file = fopen(argv[2], "a");
        if (!file || fprintf(file, "%s\n", argv[3]) < 0 || fclose(file)) return perror(argv[2]), 1;
        return 0;
    }
    if (argc == 3 && !strcmp(argv[1], "read")) {
        FILE *file = fopen(argv[2], "r");
        if (!file) return perror(argv[2]), 1;
        for (int c; (c = getc(file)) != EOF;) putchar(c);
        return 0;
    }
    return fputs("note write FILE TEXT, note read FILE\n", stderr), 2;
}
