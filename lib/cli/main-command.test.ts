/** The command line: what is accepted, what is refused with which words, help, version, and doctor's two forms. */
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { snapshots } from '../snapshot/index.js';
import { examine, type DoctorWorld, type KvmFacts } from './doctor.js';
import { FakeIo, FakeWorld } from './fake-world.js';
import { runMain } from './main-command.js';

const KVM: KvmFacts = {
  present: true,
  accessible: true,
  apiVersion: 12,
  vendor: 'AMD',
  linuxGuests: true,
  reason: 'the probe guest ran',
};

function doctorWorld(changes: Partial<DoctorWorld> = {}): DoctorWorld {
  return {
    nodeVersion: 'v20.19.0',
    addonProblem: () => Promise.resolve(undefined),
    kvm: () => Promise.resolve(KVM),
    snapshots: () => Promise.resolve({ lazy: undefined, instant: undefined, compresses: true }),
    fence: () => Promise.resolve({ launcher: true, landlock: 6 }),
    qemu: () => Promise.resolve({ path: '/usr/bin/qemu-system-x86_64', version: '7.2' }),
    cached: () => Promise.resolve({ kernel: '6.1', initramfs: '/c/initramfs', hostImage: '/c/host-image' }),
    cacheFolder: () => Promise.resolve({ path: '/c', freeBytes: 2 ** 40, writable: true }),
    ...changes,
  };
}

async function main(argv: string[], options: { world?: FakeWorld; doctor?: DoctorWorld } = {}) {
  const io = new FakeIo();
  const world = options.world ?? new FakeWorld((machine) => machine.end({ reason: 'poweroff' }));
  const status = await runMain(argv, io, {
    run: () => Promise.resolve(world),
    doctor: () => Promise.resolve(options.doctor ?? doctorWorld()),
    snapshots: () => Promise.resolve({ clock: new ManualClock(), store: snapshots }),
    control: () => Promise.reject(new Error('not asked for')),
    dashboard: () => Promise.reject(new Error('not asked for')),
  });
  return { status, out: io.collected.text, err: io.stderr.text, world };
}

describe('the command line', () => {
  it('runs, and gives the status', async () => {
    const { status, world } = await main(['run', '--memory', '64MiB', '--cpus=2', '--append', '-x --y']);
    expect(status).toBe(0);
    expect(world.machine?.options).toMatchObject({ cpus: 2, memoryBytes: 67108864 });
    expect(world.machine?.options.cmdline).toMatch(/ -x --y$/);
  });

  it('takes everything after -- as the COMMAND, options and all', async () => {
    const world = new FakeWorld((machine) => machine.agent.boot());
    world.onProcess = (process) => queueMicrotask(() => process.exit(3));
    const { status } = await main(['run', '--', 'run', '--help', '--', '--memory'], { world });
    expect(status).toBe(3);
    expect(world.machine?.agent.processes.get(1)?.request.argv).toEqual(['run', '--help', '--', '--memory']);
  });

  it.each([
    ['no command', [], 'a command is wanted, such as run, ps or doctor; vivarium --help tells which there are'],
    ['an unknown command', ['rnu'], "unknown command 'rnu'; did you mean 'run'?; vivarium --help tells more"],
    ['an unknown option', ['run', '--frobnicate'], "unknown option '--frobnicate'; vivarium run --help tells more"],
    [
      'a misspelled option',
      ['run', '--memroy', '1G'],
      "unknown option '--memroy'; did you mean '--memory'?; vivarium run --help tells more",
    ],
    [
      'a misspelled option with =',
      ['run', '--kernl=x'],
      "unknown option '--kernl=x'; did you mean '--kernel'?; vivarium run --help tells more",
    ],
    [
      'an option of a later day',
      ['run', '--publish', 'x'],
      "unknown option '--publish'; vivarium run --help tells more",
    ],
    [
      'a misspelled option of doctor',
      ['doctor', '--jsn'],
      "unknown option '--jsn'; did you mean '--json'?; vivarium doctor --help tells more",
    ],
    [
      'a missing value',
      ['run', '--kernel'],
      "option '--kernel <file>' argument missing; vivarium run --help tells more",
    ],
    [
      'a stray word',
      ['run', '--cpus', '2', 'ls'],
      "run: what is 'ls'?; a COMMAND stands after --, as in: vivarium run -- ls",
    ],
    ['an empty COMMAND', ['run', '--'], 'after -- a COMMAND is wanted'],
    ['a COMMAND for doctor', ['doctor', '--', 'x'], 'doctor: there is nothing to put after --'],
    [
      'an initrd with a COMMAND',
      ['run', '--initrd', 'x', '--', 'ls'],
      '--initrd: a COMMAND runs in the default initramfs, so there is no place for another',
    ],
    ['0 CPUs', ['run', '--cpus', '0'], '--cpus: at least 1 is wanted'],
    ['half a CPU', ['run', '--cpus', '1.5'], "--cpus: '1.5' is not a whole number"],
    ['CPUs in words', ['run', '--cpus', 'two'], "--cpus: 'two' is not a whole number"],
    ['memory in words', ['run', '--memory', 'lots'], "--memory: 'lots' is no size; write it as 256M or 256MiB"],
    ['half a byte', ['run', '--memory', '1.5b'], '--memory: 1.5b is not a whole, positive number of bytes'],
    ['a host that is none', ['run', '--kvm', 'both'], "--kvm: 'both' is none of auto, native, embedded"],
    ['a policy that is none', ['run', '--pit', 'ketchup'], "--pit: 'ketchup' is none of catch-up, reinject, discard"],
    ['no time at all', ['run', '--timeout', '0'], "--timeout: '0' is not a number of seconds above 0"],
    ['time in words', ['run', '--timeout', 'soon'], "--timeout: 'soon' is not a number of seconds above 0"],
    ['time without end', ['run', '--timeout', '1e9'], "--timeout: '1e9' is not a number of seconds above 0"],
    ['a very long time', ['run', '--timeout', '9999999'], '--timeout: 9999999 seconds are more than 24 days'],
    ['a kernel without a name', ['run', '--kernel', ''], '--kernel: the name of a file is wanted'],
  ])('refuses %s with status 125', async (_name, argv, message) => {
    const { status, out, err } = await main(argv);
    expect(status).toBe(125);
    expect(err).toBe(`vivarium: ${message}\n`);
    expect(out).toBe('');
  });

  it('refuses as events when asked for events', async () => {
    const { status, err } = await main(['run', '--json', '--cpus', '0']);
    expect(status).toBe(125);
    expect(
      err
        .trim()
        .split('\n')
        .map((line) => (JSON.parse(line) as { event: string }).event),
    ).toEqual(['error', 'exit']);
    expect((await main(['run', '--cpus', '0', '--', 'x', '--json'])).err).toMatch(/^vivarium: /);
  });

  it('prints help and version on stdout with status 0', async () => {
    const help = await main(['--help']);
    expect(help).toMatchObject({ status: 0, err: '' });
    expect(help.out).toMatch(/run .*\n\s+doctor /);
    const run = await main(['run', '-h']);
    expect(run.out).toContain('--memory <size>');
    expect(run.out).toContain('126: the guest\ncrashed');
    expect(await main(['--version'])).toMatchObject({ status: 0, out: '0.1.0\n' });
  });
});

describe('doctor', () => {
  it('prints at least what was promised as JSON', async () => {
    const { status, out, err } = await main(['doctor', '--json']);
    expect(status).toBe(0);
    expect(err).toBe('');
    const report = JSON.parse(out) as Record<string, unknown>;
    expect(report).toMatchObject({ kvm: KVM, host: 'native' });
    expect(report['checks']).toContainEqual({ name: 'kvm', ok: true, found: '/dev/kvm, API 12, AMD' });
  });

  it('prints the cure of each lack, and status 1 when no guest can run', async () => {
    const { status, out } = await main(['doctor'], {
      doctor: doctorWorld({
        nodeVersion: 'v18.20.1',
        kvm: () =>
          Promise.resolve({
            ...KVM,
            accessible: false,
            linuxGuests: false,
            reason: 'no permission',
            cure: 'usermod -aG kvm me',
          }),
        qemu: () => Promise.resolve(undefined),
        cacheFolder: () => Promise.resolve({ path: '/c', freeBytes: 2 ** 20, writable: false }),
      }),
    });
    expect(status).toBe(1);
    expect(out).toMatch(/lack {2}kvm .*may not be opened by this user\n.*cure: usermod -aG kvm me\n/);
    expect(out).toContain('cure: install Node 20.19 or later');
    expect(out).toContain('1 MiB free, may not be written');
    expect(out).toContain('Linux guests cannot run here yet.');
    expect(out).not.toContain('\x1b[');
  });

  it('tells what snapshots lack, which keeps no guest from running', async () => {
    const lack = { name: 'userfaultfd (open: EACCES)', cure: 'run as root' };
    const doctor = doctorWorld({
      snapshots: () => Promise.resolve({ lazy: lack, instant: lack, compresses: false }),
    });
    const { status, out } = await main(['doctor'], { doctor });
    expect(status).toBe(0);
    expect(out).toMatch(/lack {2}userfaultfd .*no instant snapshots .*lazy restores .*EACCES.*\n.*cure: run as root\n/);
    expect(out).toMatch(/lack {2}zstd .*libzstd\.so\.1.*\n.*cure: apt-get install libzstd1\n/);
    const { checks } = await examine(doctorWorld({ snapshots: () => Promise.resolve(undefined) }));
    expect(checks.filter(({ name }) => ['userfaultfd', 'zstd'].includes(name))).toMatchObject([
      { ok: false, cure: 'npm run build' },
      { ok: false, cure: 'npm run build' },
    ]);
  });

  it('tells what fences processes of -d', async () => {
    const found = async (facts: { launcher: boolean; landlock: number }) => {
      const { checks } = await examine(doctorWorld({ fence: () => Promise.resolve(facts) }));
      return checks.find(({ name }) => name === 'fence');
    };
    expect(await found({ launcher: true, landlock: 6 })).toMatchObject({
      ok: true,
      found: expect.stringMatching(/^Landlock 6/) as string,
    });
    expect(await found({ launcher: true, landlock: 0 })).toMatchObject({
      ok: false,
      cure: expect.stringMatching(/CONFIG_SECURITY_LANDLOCK/) as string,
    });
    expect(await found({ launcher: false, landlock: 0 })).toMatchObject({ ok: false, cure: 'npm run build' });
  });

  it.each([
    ['native', doctorWorld()],
    ['embedded', doctorWorld({ kvm: () => Promise.resolve({ ...KVM, linuxGuests: false }) })],
    [
      'embedded',
      doctorWorld({
        kvm: () =>
          Promise.resolve({
            ...KVM,
            present: false,
            accessible: false,
            apiVersion: null,
            vendor: null,
            linuxGuests: false,
          }),
      }),
    ],
    ['none', doctorWorld({ addonProblem: () => Promise.resolve('not built') })],
  ] as const)('decides for %s', async (host, world) => {
    const report = await examine(world);
    expect(report.host).toBe(host);
    for (const check of report.checks) {
      if (check.ok) expect(check.cure, check.name).toBeUndefined();
      else expect(check.cure, check.name).toBeTypeOf('string');
    }
    expect(report.checks.some(({ name }) => name === 'host-image')).toBe(host !== 'native');
  });
});
