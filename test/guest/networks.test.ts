/** Networks of this machine behind the command's guests, wherever these run: a switch of two commands, a tap. */
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { busybox } from '../../lib/images/busybox.js';
import { MAIN, start, vivarium, Vivarium } from '../lib/command.js';

const NO_DHCP = ['--append', 'vivarium.dhcp=off'];
const inGuest = (script: string) => ['--', 'sh', '-c', script];

describe('run --nic', () => {
  it('switch joins the guests of two commands', async () => {
    const data = randomBytes(1_000_000);
    const nic = ['--nic', `switch:test-${process.pid}`, ...NO_DHCP];
    const take = `ip addr add 10.3.0.1/24 dev eth0; { sleep 1000 | nc -l -p 5000; } > /tmp/in & echo listens
      until [ "$(wc -c < /tmp/in)" -ge ${data.length} ]; do usleep 50000; done; sha256sum < /tmp/in`;
    const taker = start(['run', '--quiet', ...nic, ...inGuest(take)], { stdin: '' });
    const give = `ip addr add 10.3.0.2/24 dev eth0; cat > /tmp/data
      until ping -q -c 1 -W 1 10.3.0.1 > /dev/null; do :; done; nc 10.3.0.1 5000 < /tmp/data; ip -o link show dev eth0`;
    await taker.until(/listens/);
    const giver = await vivarium(['run', '--quiet', ...nic, ...inGuest(give)], { stdin: data });
    expect([giver.status, giver.stderr]).toEqual([0, '']);
    const { status, stdout } = await taker.ended;
    expect(status).toBe(0);
    expect(stdout.toString()).toContain(createHash('sha256').update(data).digest('hex'));
  });

  it('tap is on an interface of this machine', async (context) => {
    const isRoot = process.getuid?.() === 0;
    const unshare = isRoot ? ['-n'] : ['-r', '-n'];
    try {
      execFileSync('unshare', [...unshare, 'true'], { stdio: 'ignore' });
    } catch {
      context.skip('this user may make no network namespace');
    }
    const { path } = await busybox();
    const command = [process.execPath, MAIN, 'run', '--quiet', '--nic', 'tap:tap0', ...NO_DHCP];
    const script = `set -e; bb=$1; shift; $bb tunctl -t tap0 > /dev/null; $bb ip addr add 10.5.0.1/24 dev tap0
      $bb ip link set tap0 up; exec "$@"`;
    const guest = inGuest('ip addr add 10.5.0.2/24 dev eth0; ping -q -c 3 10.5.0.1');
    const run = new Vivarium('unshare', [...unshare, 'sh', '-c', script, 'sh', path, ...command, ...guest], {
      stdin: '',
    });
    const { status, stdout, stderr } = await run.ended;
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout.toString()).toContain('3 packets received');
    const missing = await vivarium(['run', '--nic', 'tap:missing', '--', 'true']);
    expect(missing.status).toBe(125);
    expect(missing.stderr).toMatch(/tap missing: there is no such interface/);
  });
});
