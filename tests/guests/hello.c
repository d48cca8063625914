// hello: greets its arguments. The smallest program that shows a container ran; also built as a native binary.
#include <stdio.h>

int main(int argc, char **argv) {
#ifdef __wasm__
    const char *kind = "Wasm";
#else
    const char *kind = "Linux";
#endif
    printf("hello from %s", kind);
    for (int i = 1; i < argc; i++) printf("%s%s", i == 1 ? ": " : " ", argv[i]);
    printf("\n");
    return 0;
}
