// One source for both kinds of image.
#include <stdio.h>

int main(int argc, char **argv) {
    printf("hello from %s", KIND);
    for (int i = 1; i < argc; i++) printf(" %s", argv[i]);
    puts("");
    return 0;
}
