/** What threads of ours may ask the kernel for: that each has its filter while it works, and what the filters answer. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startGuest } from '../lib/machine.js';
import { CAN_PAGE, SHORTEST } from '../lib/snapshots.js';

const { EBADF, ENOSYS, EPERM } = constants.errno;
const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'vivarium-threads-'));
const probe = join(folder, 'probe');
/** As in ThreadDuty of native/thread/thread_fence.h. */
const DUTIES = ['vcpu', 'events', 'pager', 'fill', 'io', 'groups'];

beforeAll(() => {
  const sources = [
    'test/lib/thread-fence-probe.cc',
    'native/thread/thread_fence.cc',
    'native/core/syscall_filter.cc',
    'native/core/seal.cc',
  ];
  const flags = ['-std=c++20', '-D_GNU_SOURCE', '-Inative', '-pthread', '-o', probe];
  execFileSync('c++', [...flags, ...sources], { cwd: root });
}, 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The errno of a call that a thread with that duty makes; the signal that ended the process for it. */
function answer(duty: string, call: string): number | string {
  const { signal, stdout } = spawnSync(probe, [String(DUTIES.indexOf(duty)), call], { encoding: 'latin1' });
  return signal ?? Number(stdout);
}

describe('a thread of ours', () => {
  it.each(DUTIES)('%s: ends the process that would do what it never does', (duty) => {
    for (const call of ['execve', 'socket', 'ptrace', 'fork', 'io_uring'])
      expect([call, answer(duty, call)]).toEqual([call, 'SIGSYS']);
  });

  it.each(DUTIES)('%s: finds what it does not need not to be there', (duty) => {
    for (const call of ['open', 'uname']) expect([call, answer(duty, call)]).toEqual([call, ENOSYS]);
    expect(answer(duty, 'gettid')).toBe(0);
  });

  it('may do what it is there for, and not what others are', () => {
    // A descriptor that is none: whoever may ask hears of that.
    const wanted: Record<string, Record<string, number>> = {
      vcpu: { ioctl: EBADF, fdatasync: ENOSYS, epoll_wait: ENOSYS },
      events: { ioctl: EBADF, fdatasync: ENOSYS, epoll_wait: EBADF },
      pager: { ioctl: EBADF, fdatasync: ENOSYS, epoll_wait: ENOSYS },
      fill: { ioctl: EBADF, fdatasync: ENOSYS, epoll_wait: ENOSYS },
      io: { ioctl: ENOSYS, fdatasync: EBADF, epoll_wait: ENOSYS },
      groups: { ioctl: ENOSYS, fdatasync: EBADF, epoll_wait: ENOSYS },
    };
    for (const [duty, calls] of Object.entries(wanted)) {
      for (const [call, errno] of Object.entries(calls))
        expect([duty, call, answer(duty, call)]).toEqual([duty, call, errno]);
    }
  });
});

describe('a process that is sealed', () => {
  const sealed = (call: string): number | string => {
    const { signal, status, stdout } = spawnSync(probe, ['sealed', call], { encoding: 'latin1' });
    return signal ?? (status === 0 ? Number(stdout) : `status ${status}`);
  };

  it('has given up on all of its threads what it has no use for', () => {
    const denied = [
      ...[
        'execve',
        'fork',
        'ptrace',
        'io_uring',
        'connect',
        'unshare',
        'internet',
        'datagram',
        'raw',
        'pair',
        'sendto',
      ],
      ...['chmod', 'fchmod', 'fchmodat2', 'chown', 'xattr', 'shm', 'mq', 'limits of others'],
    ];
    for (const call of denied) expect([call, sealed(call)]).toEqual([call, EPERM]);
    expect(sealed('clone3')).toBe(ENOSYS);
    expect(sealed('dumpable')).toBe(0);
  });

  it('still does what Node does', () => {
    for (const call of ['open', 'uname', 'gettid', 'socket', 'own limits'])
      expect([call, sealed(call)]).toEqual([call, 0]);
    expect(sealed('ioctl')).toBe(EBADF);
  });
});

describe("a machine's threads", () => {
  /** Of this process, by name: 2 is a filter (PR_GET_SECCOMP in prctl(2)). */
  const filtered = (): Map<string, string> =>
    new Map(
      readdirSync('/proc/self/task').map((thread) => {
        const status = readFileSync(`/proc/self/task/${thread}/status`, 'latin1');
        return [/^Name:\s+(.*)/m.exec(status)![1]!, /^Seccomp:\s+(\d)/m.exec(status)![1]!];
      }),
    );

  it('have their filters while they work, and those of Node have none', async () => {
    const vm = await startGuest('count', { name: 'fenced', mode: 'long64', defines: { COUNTER: 0x20000 } });
    const saving = vm.snapshot(join(folder, 'one'), { mode: SHORTEST });
    const seen = new Map<string, string>();
    const look = setInterval(() => filtered().forEach((state, name) => seen.set(name, state)), 1);
    await saving;
    clearInterval(look);
    filtered().forEach((state, name) => seen.set(name, state));
    const ours = [...seen].filter(([name]) => /^(vivarium-|fenced|vcpu)/.test(name));
    const names = ['vivarium-events', 'vivarium-groups', ...(CAN_PAGE ? ['vivarium-pager'] : [])];
    expect(ours.map(([name]) => name)).toEqual(expect.arrayContaining(names));
    expect(ours.filter(([, state]) => state !== '2')).toEqual([]);
    expect(ours.length).toBeGreaterThan(names.length);
    // KVM's own worker is a thread of the process too, and has what the vCPU had that it came from.
    const nodes = [...seen].filter(([name]) => !name.startsWith('kvm-') && !ours.some(([other]) => other === name));
    expect(nodes.filter(([, state]) => state !== '0')).toEqual([]);
  });
});
