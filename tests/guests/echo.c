// A TCP echo server for WASI 0.1: it serves the sockets that LISTEN_FDS announces, all at once, until it has served
// as many connections as its argument says. `echo poll N` waits with poll(2) and never blocks anywhere else.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int fail(const char *what) {
    fprintf(stderr, "echo: %s: %s\n", what, strerror(errno));
    return 1;
}

static int number(const char *name) {
    const char *text = getenv(name);
    return text ? atoi(text) : 0;
}

// Sends back everything of one connection, which blocks.
static int serve(int client) {
    char buffer[4096];
    for (;;) {
        ssize_t peeked = recv(client, buffer, 1, MSG_PEEK);
        ssize_t length = recv(client, buffer, sizeof buffer, 0);
        if (length < 0) return fail("recv");
        if ((peeked == 0) != (length == 0)) return fail("peek");
        if (length == 0) return shutdown(client, SHUT_WR) == 0 && close(client) == 0 ? 0 : fail("close");
        for (ssize_t done = 0; done < length;) {
            ssize_t sent = send(client, buffer + done, length - done, 0);
            if (sent < 0) return fail("send");
            done += sent;
        }
    }
}

// The same for all sockets at once, one step whenever one can go on.
static int serve_all(int first, int count, int connections) {
    struct pollfd fds[64] = {0};
    int open = count, served = 0;
    char buffer[4096];
    for (int i = 0; i < count; i++) {
        fds[i] = (struct pollfd){.fd = first + i, .events = POLLRDNORM};
        if (fcntl(first + i, F_SETFL, O_NONBLOCK) != 0) return fail("fcntl");
        if (accept(first + i, NULL, NULL) >= 0 || errno != EAGAIN) return fail("accept of nothing");
    }
    while (served < connections) {
        if (poll(fds, open, 10000) <= 0) return fail("poll");
        for (int i = open - 1; i >= 0; i--) {
            if (!(fds[i].revents & (POLLRDNORM | POLLHUP))) continue;
            if (i < count) {
                int client = accept4(fds[i].fd, NULL, NULL, SOCK_NONBLOCK);
                if (client < 0) return fail("accept");
                fds[open++] = (struct pollfd){.fd = client, .events = POLLRDNORM};
                continue;
            }
            ssize_t length = read(fds[i].fd, buffer, sizeof buffer);
            if (length < 0 && errno == EAGAIN) continue;
            if (length < 0) return fail("read");
            if (length > 0 && write(fds[i].fd, buffer, length) != length) return fail("write");
            if (length == 0) {
                close(fds[i].fd);
                fds[i] = fds[--open];
                served++;
            }
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    int count = number("LISTEN_FDS"), first = number("LISTEN_FD_FIRST");
    int polling = argc > 2 && strcmp(argv[1], "poll") == 0;
    int connections = argc > 1 ? atoi(argv[argc - 1]) : 0;
    printf("%d sockets for %s\n", count, count ? getenv("LISTEN_FDNAMES") : "nothing");
    fflush(stdout);
    if (polling) return serve_all(first, count, connections);
    for (int i = 0; i < connections; i++) {
        int client = accept(first + i % count, NULL, NULL);
        if (client < 0) return fail("accept");
        if (serve(client) != 0) return 1;
    }
    return 0;
}
