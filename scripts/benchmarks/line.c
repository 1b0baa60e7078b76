/* A long line between two network namespaces: every packet arrives DELAY later than it was sent.
 *
 *   line DELAY_NS [LOST_PER_MILLE]
 *
 * Makes two network namespaces, a TUN interface "wan0" in each, and carries packets between them,
 * first in first out, each DELAY_NS nanoseconds after it was read. How fast one connection may be is
 * the sender's business (SO_MAX_PACING_RATE). LOST_PER_MILLE of a thousand packets are lost, on each
 * way, in an order that is the same each time. While the last byte on standard input was an "x", all
 * are lost; after any other byte they are not.
 *
 * For kernels without netem. TCP sees what it would see on a real line: round trips for handshakes,
 * slow start, acknowledgements that come late. Packets are passed with their virtio-net header, so
 * the kernel may hand over up to 64 KiB of segments at once (TSO) while TCP still counts in segments
 * of the interface's MTU. With losses it hands over each segment by itself.
 *
 * Both namespaces are held open as descriptors 3 (clients) and 4 (origin), to be entered through
 * /proc/PID/fd/3. "ready" is printed when the interfaces exist. The program ends when its standard
 * input does, so it cannot outlive whoever started it, and everything it made goes with it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define SLOT_BYTES (66 * 1024) /* the largest packet, 64 KiB, and its header */
#define SLOTS 32768            /* packets under way in one direction; memory is touched when used */

struct packet {
    int64_t due_ns;
    uint32_t slot;
    uint32_t length;
};

struct direction {
    int from, to;
    int64_t delay_ns;
    uint64_t dice;
};

static unsigned lost_per_mille;
static atomic_bool loses_all;

static void die(const char *what)
{
    fprintf(stderr, "line: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static bool is_lost(struct direction *way)
{
    /* xorshift64 (Marsaglia 2003). */
    way->dice ^= way->dice << 13;
    way->dice ^= way->dice >> 7;
    way->dice ^= way->dice << 17;
    return atomic_load(&loses_all) || way->dice % 1000 < lost_per_mille;
}

static void *carry(void *argument)
{
    struct direction *way = argument;
    char *slots = mmap(NULL, (size_t)SLOTS * SLOT_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct packet *queue = calloc(SLOTS, sizeof *queue);
    uint32_t *free_slots = calloc(SLOTS, sizeof *free_slots);
    uint32_t head = 0, count = 0, n_free = SLOTS;

    if (slots == MAP_FAILED || !queue || !free_slots)
        die("memory");
    /* Last freed, first used: the slots that are in the processor's caches are used again. */
    for (uint32_t i = 0; i < SLOTS; i++)
        free_slots[i] = SLOTS - 1 - i;

    for (;;) {
        struct pollfd readable = {.fd = way->from, .events = n_free ? POLLIN : 0};
        struct timespec wait = {0, 0}, *limit = NULL;
        int64_t now;

        if (count) {
            int64_t left = queue[head].due_ns - now_ns();
            if (left > 0) {
                wait.tv_sec = left / 1000000000LL;
                wait.tv_nsec = left % 1000000000LL;
            }
            limit = &wait;
        }
        if (ppoll(&readable, 1, limit, NULL) < 0 && errno != EINTR)
            die("poll");

        now = now_ns();
        /* A bounded burst, so that packets that are due never wait for a flood of new ones. */
        for (int burst = 0; burst < 16 && n_free && (readable.revents & POLLIN); burst++) {
            uint32_t slot = free_slots[n_free - 1];
            ssize_t length = read(way->from, slots + (size_t)slot * SLOT_BYTES, SLOT_BYTES);
            if (length <= 0)
                break;
            if (is_lost(way))
                continue;
            n_free--;
            queue[(head + count) % SLOTS] =
                (struct packet){now + way->delay_ns, slot, (uint32_t)length};
            count++;
        }
        now = now_ns();
        while (count && queue[head].due_ns <= now) {
            struct packet *packet = &queue[head];
            /* A refused packet is a lost one, as on any line. */
            (void)!write(way->to, slots + (size_t)packet->slot * SLOT_BYTES, packet->length);
            free_slots[n_free++] = packet->slot;
            head = (head + 1) % SLOTS;
            count--;
        }
    }
    return NULL;
}

static int interface(int namespace_fd)
{
    struct ifreq request = {0};
    unsigned offload = TUN_F_CSUM | (lost_per_mille ? 0 : TUN_F_TSO4 | TUN_F_TSO6);
    int tun, own;

    if (unshare(CLONE_NEWNET) < 0)
        die("network namespace");
    own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (own < 0 || dup2(own, namespace_fd) < 0)
        die("/proc/self/ns/net");
    tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tun < 0)
        die("/dev/net/tun");
    strcpy(request.ifr_name, "wan0");
    request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
    if (ioctl(tun, TUNSETIFF, &request) < 0)
        die("TUNSETIFF");
    if (ioctl(tun, TUNSETOFFLOAD, offload) < 0)
        die("TUNSETOFFLOAD");
    return tun;
}

int main(int argc, char **argv)
{
    struct direction there, back;
    pthread_t a, b;
    char byte;

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: line DELAY_NS [LOST_PER_MILLE]\n");
        return 2;
    }
    lost_per_mille = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
    /* Keep 3 and 4 for the namespaces, whatever was inherited. */
    for (int fd = 3; fd < 8; fd++)
        dup2(STDERR_FILENO, fd);
    there.from = back.to = interface(3);
    there.to = back.from = interface(4);
    there.delay_ns = back.delay_ns = atoll(argv[1]);
    there.dice = 0x9E3779B97F4A7C15;
    back.dice = 0xD1B54A32D192ED03;
    /* The line must not be late because the machine is busy. */
    setpriority(PRIO_PROCESS, 0, -15);
    if (pthread_create(&a, NULL, carry, &there) || pthread_create(&b, NULL, carry, &back))
        die("threads");
    puts("ready");
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0)
        atomic_store(&loses_all, byte == 'x');
    return 0;
}
