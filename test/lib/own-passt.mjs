/** passt on a network that is this script's own: what it wants of a host that has nothing else. */
import { execFileSync } from 'node:child_process';
import { appendFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';

/** Runs shell words on the host, with busybox's ip. */
export function onHost(busybox, script) {
  return execFileSync('sh', ['-ec', `ip() { '${busybox}' ip "$@"; }\n${script}`], { encoding: 'utf8' });
}

/**
 * An address, a default route, a user to become, and a root that is a mount, which that of an initramfs is not. `tap` is made, and is
 * whoever makes it to take away.
 */
export function makePasstHost({ busybox, tap, isEmbedded }) {
  onHost(
    busybox,
    `'${busybox}' tunctl -t ${tap} > /dev/null; ip link set lo up; ip link set ${tap} up
    ip addr add 192.0.2.1/24 dev ${tap}; ip route add default via 192.0.2.2 dev ${tap}`,
  );
  if (!isEmbedded) return;
  if (!readFileSync('/etc/passwd', 'utf8').includes('nobody:'))
    appendFileSync('/etc/passwd', 'nobody:x:65534:65534::/:\n');
  mkdirSync('/run/root', { recursive: true });
  mkdirSync('/run/bin', { recursive: true });
  const inRoot = 'mount -o rbind / /run/root && cd /run/root && mount -o move . / && exec chroot . /usr/bin/passt "$@"';
  writeFileSync('/run/bin/passt', `#!/bin/sh\nexec unshare -m sh -c '${inRoot}' sh "$@"\n`, { mode: 0o755 });
  process.env.PATH = `/run/bin:${process.env.PATH}`;
}

export function unmakeTaps(busybox, taps) {
  // One of a run that was broken off may be there, or none.
  onHost(busybox, `for tap in ${taps.join(' ')}; do '${busybox}' tunctl -d $tap > /dev/null; done`);
}
