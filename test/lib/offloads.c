/*
 * What `ethtool -K` does, for guests that have none: turns features of a network interface on or off by their names in
 * the kernel (net/ethtool/common.c), and prints those of them that are on afterwards.
 *
 *   offloads eth0 [on|off FEATURE...]...
 */
#include <linux/ethtool.h>
#include <linux/if.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static int fd;
static struct ifreq request;

static void ask(void* data, const char* what) {
  request.ifr_data = data;
  if (ioctl(fd, SIOCETHTOOL, &request) >= 0) return;
  perror(what);
  exit(1);
}

int main(int count, char** words) {
  if (count < 2) return 2;
  fd = socket(AF_INET, SOCK_DGRAM, 0);
  strncpy(request.ifr_name, words[1], IFNAMSIZ - 1);

  struct {
    struct ethtool_sset_info head;
    __u32 length;
  } info = {.head = {.cmd = ETHTOOL_GSSET_INFO, .sset_mask = 1ull << ETH_SS_FEATURES}};
  ask(&info, "ETHTOOL_GSSET_INFO");
  struct ethtool_gstrings* names = calloc(1, sizeof *names + info.length * ETH_GSTRING_LEN);
  *names = (struct ethtool_gstrings){.cmd = ETHTOOL_GSTRINGS, .string_set = ETH_SS_FEATURES, .len = info.length};
  ask(names, "ETHTOOL_GSTRINGS");

  __u32 blocks = (info.length + 31) / 32;
  struct ethtool_sfeatures* set = calloc(1, sizeof *set + blocks * sizeof *set->features);
  struct ethtool_gfeatures* got = calloc(1, sizeof *got + blocks * sizeof *got->features);
  *set = (struct ethtool_sfeatures){.cmd = ETHTOOL_SFEATURES, .size = blocks};
  int on = 1;
  for (int i = 2; i < count; i++) {
    if (!strcmp(words[i], "on") || !strcmp(words[i], "off")) {
      on = words[i][1] == 'n';
      continue;
    }
    __u32 at = 0;
    while (at < info.length && strcmp((char*)names->data + at * ETH_GSTRING_LEN, words[i])) at++;
    if (at == info.length) {
      fprintf(stderr, "no feature %s\n", words[i]);
      return 1;
    }
    set->features[at / 32].valid |= 1u << at % 32;
    if (on) set->features[at / 32].requested |= 1u << at % 32;
  }
  if (count > 2) ask(set, "ETHTOOL_SFEATURES");

  *got = (struct ethtool_gfeatures){.cmd = ETHTOOL_GFEATURES, .size = blocks};
  ask(got, "ETHTOOL_GFEATURES");
  for (__u32 at = 0; at < info.length; at++)
    if (got->features[at / 32].active & 1u << at % 32) puts((char*)names->data + at * ETH_GSTRING_LEN);
  return 0;
}
