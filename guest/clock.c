/* See clock.h. Built with -DAGENT_STDIO it only says what it was asked for. */
#define _GNU_SOURCE
#include "clock.h"

#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

uint64_t monotonic_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

#ifdef AGENT_STDIO

void set_clock(uint64_t unix_ns, uint64_t then_ns) {
  fprintf(stderr, "set clock %llu\n", (unsigned long long)(unix_ns + monotonic_ns() - then_ns));
}

void reseed(const uint8_t* bytes, size_t length) {
  (void)bytes, (void)length;
}

#else

void set_clock(uint64_t unix_ns, uint64_t then_ns) {
  unix_ns += monotonic_ns() - then_ns;
  struct timespec at = {(time_t)(unix_ns / 1000000000), (long)(unix_ns % 1000000000)};
  clock_settime(CLOCK_REALTIME, &at);
}

void reseed(const uint8_t* bytes, size_t length) {
  struct {
    struct rand_pool_info info;
    uint8_t bytes[MAX_SEED_BYTES];
  } pool = {{(int)(8 * length), (int)length}, {0}};
  memcpy(pool.bytes, bytes, length);
  int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  if (ioctl(fd, RNDADDENTROPY, &pool) == 0) ioctl(fd, RNDRESEEDCRNG);
  close(fd);
}

#endif
