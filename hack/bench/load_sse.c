// Load of many streams at a time that costs next to nothing: every connection sends one request and reads its stream to
// the end. All are connected before the first request goes. One thread, epoll.
//
//     load_sse PORT STREAMS SECONDS < REQUEST
//
// The answers have to be status 200, chunked, events with `data: `, `data: [DONE]` and the last chunk at the end;
// anything else is an error. SECONDS bounds it all. The last line is JSON: events, errors, most streams open at a time,
// events per second from the first to the last, and of the times between two events of a stream p50, p99 and the most;
// "together" are events that came in one read with an earlier one.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST 16384
#define PER_ADDRESS 16000  // connections from one address to one port: the rest come from the next address of the loopback
#define AT_ONCE 128        // connections that are being made at a time
#define SLOTS 500000       // of 10 us: gaps up to 5 s

struct stream { int fd, connected, over, ended; long sent, got, events; double last; char tail[16]; int kept; };

static struct stream streams[MOST];
static char request[1 << 20];
static unsigned gaps[SLOTS + 1];
static long errors, together, size;
static int epoll, count, over, open_now, open_most;
static double first, latest;

static void die(const char *what) { perror(what); exit(1); }

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void finish(struct stream *s, const char *problem) {
    if (s->over) return;
    s->over = 1;
    over++;
    if (s->events || s->got) open_now--;
    if (problem && errors++ < 3) fprintf(stderr, "stream %ld: %s\n", (long)(s - streams), problem);
    close(s->fd);
}

static void dial(int number, int port) {
    struct stream *s = &streams[number];
    int one = 1;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (s->fd < 0) die("socket");
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + number / PER_ADDRESS)};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(s->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(s->fd, (struct sockaddr *)&from, sizeof from) < 0) die("bind");
    if (connect(s->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) die("connect");
    struct epoll_event e = {.events = EPOLLOUT, .data.u32 = number};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, s->fd, &e) < 0) die("epoll_ctl");
}

static void send_more(struct stream *s) {
    while (s->sent < size) {
        long sent = write(s->fd, request + s->sent, size - s->sent);
        if (sent < 0 && errno == EAGAIN) return;
        if (sent <= 0) { finish(s, "the request could not be sent"); return; }
        s->sent += sent;
    }
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = s - streams};
    epoll_ctl(epoll, EPOLL_CTL_MOD, s->fd, &e);
}

static long count_in(const char *data, long length, const char *what) {
    long found = 0, step = strlen(what);
    for (const char *end = data + length; (data = memmem(data, end - data, what, step)); data += step) found++;
    return found;
}

static void read_some(struct stream *s) {
    static char buffer[sizeof s->tail + 262144];
    long length = read(s->fd, buffer + s->kept, 262144);
    if (length < 0 && errno == EAGAIN) return;
    if (length <= 0) { finish(s, length < 0 ? strerror(errno) : "it ended too soon"); return; }
    if (s->got == 0) {
        if (++open_now > open_most) open_most = open_now;
        if (length < 12 || memcmp(buffer, "HTTP/1.1 200", 12)) {
            buffer[length < 300 ? length : 300] = 0;
            finish(s, buffer);
            return;
        }
    }
    s->got += length;
    memcpy(buffer, s->tail, s->kept);
    // Of what was kept no more is looked at than is too short to hold a whole mark, so that none is counted twice.
    long all = s->kept + length, again = s->kept < 6 ? s->kept : 6;
    long found = count_in(buffer + s->kept - again, length + again, "\ndata: ");
    if (count_in(buffer, all, "data: [DONE]")) s->ended = 1;
    if (found) {
        double at = now();
        if (!first) first = at;
        latest = at;
        if (s->last) {
            long slot = (at - s->last) * 1e5;
            gaps[slot < SLOTS ? slot : SLOTS]++;
        }
        s->last = at;
        s->events += found;
        together += found - 1;
    }
    if (s->ended && all >= 5 && !memcmp(buffer + all - 5, "0\r\n\r\n", 5)) { finish(s, NULL); return; }
    s->kept = all < 11 ? all : 11;
    memcpy(s->tail, buffer + all - s->kept, s->kept);
}

static double quantile(double q) {
    unsigned long total = 0, seen = 0;
    for (int i = 0; i <= SLOTS; i++) total += gaps[i];
    for (int i = 0; i <= SLOTS; i++) if ((seen += gaps[i]) && seen >= q * total) return i / 100.0;
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 4 || (count = atoi(argv[2])) > MOST) { fprintf(stderr, "usage: load_sse PORT STREAMS SECONDS\n"); return 2; }
    int port = atoi(argv[1]), dialed = 0, connected = 0;
    signal(SIGPIPE, SIG_IGN);
    size = fread(request, 1, sizeof request, stdin);
    epoll = epoll_create1(0);
    double end = now() + atof(argv[3]);
    while (over < count && now() < end) {
        while (dialed < count && dialed - connected < AT_ONCE) dial(dialed++, port);
        struct epoll_event ready[512];
        int found = epoll_wait(epoll, ready, 512, 100);
        for (int i = 0; i < found; i++) {
            struct stream *s = &streams[ready[i].data.u32];
            if (s->over) continue;
            if (!s->connected) {
                int error = 0;
                socklen_t length = sizeof error;
                getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &length);
                s->connected = 1;
                connected++;
                struct epoll_event none = {.events = 0, .data.u32 = ready[i].data.u32};
                epoll_ctl(epoll, EPOLL_CTL_MOD, s->fd, &none);
                if (error) finish(s, strerror(error));
                for (int n = 0; connected == count && n < count; n++) if (!streams[n].over) send_more(&streams[n]);
            } else if (s->sent < size) {
                send_more(s);
            } else {
                read_some(s);
            }
        }
    }
    long events = 0;
    for (int n = 0; n < count; n++) {
        if (n < dialed && !streams[n].over) finish(&streams[n], "not over in time");
        if (n >= dialed) errors++;
        events += streams[n].events;
    }
    double most = 0;
    for (int i = SLOTS; i >= 0 && !most; i--) if (gaps[i]) most = i / 100.0;
    printf("{\"events\":%ld,\"errors\":%ld,\"open_most\":%d,\"together\":%ld,\"events_per_second\":%.1f,"
           "\"gap_ms_p50\":%.2f,\"gap_ms_p99\":%.2f,\"gap_ms_most\":%.2f}\n",
           events, errors, open_most, together, latest > first ? events / (latest - first) : 0, quantile(0.5), quantile(0.99), most);
    return 0;
}
