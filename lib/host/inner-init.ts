/**
 * The first program of the embedded host, a shell script in its image: file systems, modules, then the inner daemon.
 * As process 1 it also reaps what others leave; when the daemon ends it powers off, which ends QEMU.
 */
export const INIT_SCRIPT = `#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/net
mount -t devpts -o gid=0,mode=620,ptmxmode=666 pts /dev/pts
mount -t tmpfs shm /dev/shm
mkdir -p -m 0700 /run/tmp /run/user /run/vivarium
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
for module in $(cat /modules/order); do
  insmod /modules/$module.ko || echo "init: $module can't be loaded"
done
rm -r /modules
hostname vivarium-host
ip link set lo up
ulimit -n 65536
echo 1 > /proc/sys/vm/overcommit_memory
node /vivarium/host/inner-daemon.js </dev/null
echo "init: the inner daemon ended with status $?"
sync
poweroff -f
`;
