// A mock engine that costs next to nothing, so that a benchmark measures what stands in front of it: every POST is
// answered with EVENTS events of a stream, chunked, one write() each, as llama.cpp's server does it. One thread, epoll.
//
//     mock_sse EVENTS TICK_US     TICK_US > 0: one event on every open stream each tick; 0: as fast as they are taken
//     mock_sse 0 0                no events: one answer of JSON, 0.6 KB
//
// The port is printed on the first line.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define MAX_FD 16384
#define EVENT "data: {\"choices\":[{\"text\":\" token\",\"index\":0,\"logprobs\":null,\"finish_reason\":null}],"\
  "\"created\":1795265415,\"id\":\"chatcmpl-LE3jq3ElpH7aixciebQfUAIoSKYPPJKa\",\"model\":\"mock\","\
  "\"system_fingerprint\":\"b0-unknown\",\"object\":\"text_completion\"}\n\n"
#define DONE "data: [DONE]\n\n"
#define WORDS "The quick brown fox jumps over the lazy dog while the harbour lies quiet in the morning. "
#define JSON "{\"id\":\"chatcmpl-LE3jq3ElpH7aixciebQfUAIoSKYPPJKa\",\"object\":\"chat.completion\",\"created\":1795265415,"\
  "\"model\":\"mock\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"" WORDS WORDS WORDS WORDS "\"},"\
  "\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":219,\"completion_tokens\":73,\"total_tokens\":292}}"

static const char HEAD[] = "HTTP/1.1 200 OK\r\nServer: mock\r\nContent-Type: text/event-stream\r\n"
                           "Transfer-Encoding: chunked\r\n\r\n";

struct stream { int left; long want; char seen[4096]; int have; int blocked; };

static struct stream streams[MAX_FD];
static char event[1024], last[256], whole[2048];
static int event_size, last_size, whole_size, events, epoll, highest;

static void die(const char *what) { perror(what); exit(1); }

static void watch(int fd, unsigned flags, int operation) {
    struct epoll_event e = {.events = flags, .data.fd = fd};
    if (epoll_ctl(epoll, operation, fd, &e) < 0) die("epoll_ctl");
}

static void drop(int fd) { streams[fd].left = 0; close(fd); }

// Write one event, or the end. 1: written; 0: the stream is over or cannot be written to now.
static int step(int fd) {
    struct stream *s = &streams[fd];
    if (s->left <= 0) return 0;
    const char *data = s->left > 1 ? event : last;
    int size = s->left > 1 ? event_size : last_size;
    int sent = write(fd, data, size);
    if (sent == size) { s->left--; return 1; }
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) { s->blocked = 1; watch(fd, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD); return 0; }
    drop(fd);  // a partial write or an error: the benchmark will see a cut stream
    return 0;
}

static void pour(int fd, int tick) {
    if (tick) return;
    while (step(fd)) {}
}

static void request(int fd, int tick) {
    struct stream *s = &streams[fd];
    char buffer[65536];
    int size = read(fd, buffer, sizeof buffer);
    if (size <= 0) { drop(fd); return; }
    if (s->want == 0) {  // in the head
        int copy = size < (int)sizeof s->seen - 1 - s->have ? size : (int)sizeof s->seen - 1 - s->have;
        memcpy(s->seen + s->have, buffer, copy);
        s->have += copy;
        s->seen[s->have] = 0;
        char *end = strstr(s->seen, "\r\n\r\n"), *length = strcasestr(s->seen, "content-length:");
        if (!end) return;
        s->want = (length ? atol(length + 15) : 0) - (s->have - (end + 4 - s->seen)) - (size - copy);
    } else {
        s->want -= size;
    }
    if (s->want > 0) return;
    s->want = s->have = 0;
    if (!events) {
        if (write(fd, whole, whole_size) != whole_size) drop(fd);
        return;
    }
    if (write(fd, HEAD, sizeof HEAD - 1) < 0) { drop(fd); return; }
    s->left = events + 1;
    pour(fd, tick);
}

int main(int argc, char **argv) {
    if (argc != 3) { fprintf(stderr, "usage: mock_sse EVENTS TICK_US\n"); return 2; }
    events = atoi(argv[1]);
    int tick = atoi(argv[2]), one = 1;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    event_size = snprintf(event, sizeof event, "%zx\r\n%s\r\n", sizeof EVENT - 1, EVENT);
    last_size = snprintf(last, sizeof last, "%zx\r\n%s\r\n0\r\n\r\n", sizeof DONE - 1, DONE);
    whole_size = snprintf(whole, sizeof whole, "HTTP/1.1 200 OK\r\nServer: mock\r\nContent-Type: application/json\r\n"
                          "Content-Length: %zu\r\n\r\n%s", sizeof JSON - 1, JSON);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0) die("listen");
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    epoll = epoll_create1(0);
    watch(listener, EPOLLIN, EPOLL_CTL_ADD);
    int timer = -1;
    if (tick) {
        timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
        struct itimerspec every = {.it_value = {tick / 1000000, tick % 1000000 * 1000L}, .it_interval = {tick / 1000000, tick % 1000000 * 1000L}};
        timerfd_settime(timer, 0, &every, NULL);
        watch(timer, EPOLLIN, EPOLL_CTL_ADD);
    }
    for (;;) {
        struct epoll_event ready[256];
        int count = epoll_wait(epoll, ready, 256, -1);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) {
                int client;
                while ((client = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    if (client >= MAX_FD) { close(client); continue; }
                    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    struct stream *s = &streams[client];
                    s->left = s->have = s->blocked = 0, s->want = 0;
                    if (client > highest) highest = client;
                    watch(client, EPOLLIN, EPOLL_CTL_ADD);
                }
            } else if (fd == timer) {
                unsigned long ticks;
                if (read(timer, &ticks, sizeof ticks) < 0) continue;
                for (int client = 0; client <= highest; client++)
                    if (streams[client].left > 0) step(client);
            } else {
                if (ready[i].events & EPOLLOUT) { streams[fd].blocked = 0; watch(fd, EPOLLIN, EPOLL_CTL_MOD); pour(fd, tick); }
                if (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) request(fd, tick);
            }
        }
    }
}
