// Takes memory, a mebibyte at a time, until there is no more.
#include <stdio.h>
#include <stdlib.h>

int main(void) {
    for (int has = 0;; has++) {
        // Each page is written to, and the compiler shall not know better.
        volatile char *more = malloc(1 << 20);
        if (!more) return printf("was refused more than %d MiB\n", has), 1;
        for (int at = 0; at < 1 << 20; at += 4096) more[at] = 1;
    }
}
