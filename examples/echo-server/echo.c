// A TCP server of WASI 0.1. Its socket is open when it begins: each published port is one, from descriptor 3 on behind
// the directories; LISTEN_FDS says how many, as systemd does it, and LISTEN_FD_START where.
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

// The first descriptor that is a listening socket.
static int listener(void) {
    for (int fd = 3; fd < 64; fd++) {
        int type = 0;
        socklen_t size = sizeof type;
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM) return fd;
    }
    return -1;
}

int main(void) {
    int server = listener();
    if (server < 0) {
        fputs("there is no socket: publish a port with -p\n", stderr);
        return 1;
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        int client = accept(server, NULL, NULL);
        if (client < 0) return 1;
        char buffer[4096];
        ssize_t length;
        while ((length = recv(client, buffer, sizeof buffer, 0)) > 0) send(client, buffer, (size_t)length, 0);
        close(client);
    }
}
