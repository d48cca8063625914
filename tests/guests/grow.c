// grow: takes memory a mebibyte at a time, writes into each page of it, and says how far it got.
//
//   grow [MEBIBYTES]   ends with 0 when it has that much, or with 3 when it was refused more; without a number it
//                      goes on until it is refused
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    long wanted = argc > 1 ? atol(argv[1]) : -1, has = 0;
    while (has != wanted) {
        char *more = malloc(1 << 20);
        if (!more)
            break;
        for (int at = 0; at < 1 << 20; at += 4096)
            ((volatile char *)more)[at] = 1;
        has++;
    }
    printf("has %ld MiB\n", has);
    return has == wanted ? 0 : 3;
}
