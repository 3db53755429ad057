// The loads of the net program in a guest and on the host beside it: small frames without pause, a count of what comes
// in, and echoes one after the other. Built by bench/lib/net-image.ts, static, so that it runs in any initramfs.
//
//   netload send INTERFACE SECONDS      frames of 64 bytes; prints how many a second the kernel took
//   netload count INTERFACE SECONDS     prints how many frames a second came in
//   netload tap INTERFACE 1|0           makes a tap that lasts, or takes it away
//   netload ping ADDRESS SECONDS        prints the median of the round trips in us, and how many there were a second
#define _GNU_SOURCE  // sendmmsg
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { kFrameBytes = 64, kBatch = 32, kMaxRounds = 1 << 20, kAnswerMs = 1000 };
// For experiments on a local network (IEEE 802).
static const uint16_t kEtherType = 0x88b5;

static double nowSeconds(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int fail(const char* what) {
  fprintf(stderr, "netload: %s: %s\n", what, strerror(errno));
  return 1;
}

static int sendFrames(const char* name, double seconds) {
  const int fd = socket(AF_PACKET, SOCK_RAW, 0);
  if (fd < 0) return fail("socket");
  struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htons(kEtherType), .sll_halen = ETH_ALEN};
  to.sll_ifindex = (int)if_nametoindex(name);
  if (to.sll_ifindex == 0) return fail(name);
  // To all: whose address the other end has does not matter.
  uint8_t frame[kFrameBytes] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 0x77};
  frame[12] = kEtherType >> 8;
  frame[13] = kEtherType & 0xff;
  struct iovec piece = {frame, sizeof frame};
  struct mmsghdr batch[kBatch];
  memset(batch, 0, sizeof batch);
  for (int index = 0; index < kBatch; index++) {
    batch[index].msg_hdr.msg_name = &to;
    batch[index].msg_hdr.msg_namelen = sizeof to;
    batch[index].msg_hdr.msg_iov = &piece;
    batch[index].msg_hdr.msg_iovlen = 1;
  }
  const double start = nowSeconds();
  double frames = 0;
  double elapsed;
  while ((elapsed = nowSeconds() - start) < seconds) {
    const int sent = sendmmsg(fd, batch, kBatch, 0);
    if (sent > 0) {
      frames += sent;
    } else if (errno == ENOBUFS || errno == EINTR) {
      sched_yield();  // the interface's queue is full
    } else {
      return fail("sendmmsg");
    }
  }
  printf("%.0f\n", frames / elapsed);
  return 0;
}

static double received(const char* name) {
  char path[128];
  snprintf(path, sizeof path, "/sys/class/net/%s/statistics/rx_packets", name);
  FILE* file = fopen(path, "r");
  double packets = -1;
  if (file == NULL) return packets;
  if (fscanf(file, "%lf", &packets) != 1) packets = -1;
  fclose(file);
  return packets;
}

static int countFrames(const char* name, double seconds) {
  const double before = received(name);
  if (before < 0) return fail(name);
  const double start = nowSeconds();
  const double left = seconds;
  struct timespec time = {(time_t)left, (long)((left - (double)(time_t)left) * 1e9)};
  nanosleep(&time, NULL);
  printf("%.0f\n", (received(name) - before) / (nowSeconds() - start));
  return 0;
}

static uint16_t checksum(const uint8_t* bytes, size_t length) {
  uint32_t sum = 0;
  for (size_t at = 0; at < length; at += 2) sum += (uint32_t)(bytes[at] << 8 | bytes[at + 1]);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return htons((uint16_t)~sum);
}

static int ascending(const void* left, const void* right) {
  const double difference = *(const double*)left - *(const double*)right;
  return difference < 0 ? -1 : difference > 0;
}

static int ping(const char* address, double seconds) {
  const int fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
  if (fd < 0) return fail("socket");
  struct sockaddr_in to = {.sin_family = AF_INET};
  if (inet_pton(AF_INET, address, &to.sin_addr) != 1) return fail(address);
  double* trips = malloc(kMaxRounds * sizeof *trips);
  if (trips == NULL) return fail("malloc");
  const uint16_t id = (uint16_t)getpid();
  const double start = nowSeconds();
  int count = 0;
  int lost = 0;
  for (uint16_t sequence = 0; count < kMaxRounds && nowSeconds() - start < seconds; sequence++) {
    union {
      struct icmphdr header;
      uint8_t bytes[56 + sizeof(struct icmphdr)];
    } request = {.header = {.type = ICMP_ECHO}};
    request.header.un.echo.id = id;
    request.header.un.echo.sequence = sequence;
    request.header.checksum = checksum(request.bytes, sizeof request.bytes);
    const double sentAt = nowSeconds();
    if (sendto(fd, &request, sizeof request, 0, (struct sockaddr*)&to, sizeof to) < 0) return fail("sendto");
    for (;;) {
      struct pollfd waiting = {.fd = fd, .events = POLLIN};
      if (poll(&waiting, 1, kAnswerMs) <= 0) {
        lost++;
        break;
      }
      uint8_t answer[256];
      const ssize_t got = recv(fd, answer, sizeof answer, 0);
      struct icmphdr header;
      const size_t headerAt = sizeof(struct iphdr);
      if (got < (ssize_t)(headerAt + sizeof header)) continue;
      memcpy(&header, answer + headerAt, sizeof header);
      if (header.type != ICMP_ECHOREPLY || header.un.echo.id != id || header.un.echo.sequence != sequence) continue;
      trips[count++] = (nowSeconds() - sentAt) * 1e6;
      break;
    }
  }
  if (count == 0) {
    fprintf(stderr, "netload: %d echoes, no answer\n", lost);
    return 1;
  }
  const double elapsed = nowSeconds() - start;
  qsort(trips, (size_t)count, sizeof *trips, ascending);
  printf("%.1f %.1f\n", trips[count / 2], count / elapsed);
  return 0;
}

static int setTap(const char* name, int lasting) {
  const int fd = open("/dev/net/tun", O_RDWR);
  if (fd < 0) return fail("/dev/net/tun");
  struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
  snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
  if (ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETPERSIST, lasting) < 0) return fail(name);
  return 0;
}

int main(int argc, char** argv) {
  if (argc == 4) {
    const double seconds = atof(argv[3]);
    if (strcmp(argv[1], "send") == 0) return sendFrames(argv[2], seconds);
    if (strcmp(argv[1], "tap") == 0) return setTap(argv[2], seconds != 0);
    if (strcmp(argv[1], "count") == 0) return countFrames(argv[2], seconds);
    if (strcmp(argv[1], "ping") == 0) return ping(argv[2], seconds);
  }
  fprintf(stderr, "usage: netload send|count|tap INTERFACE NUMBER, or netload ping ADDRESS SECONDS\n");
  return 2;
}
