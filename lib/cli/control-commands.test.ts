import { execFileSync } from 'node:child_process';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { FakeProcess } from '../agent/fake-agent.js';
import { FakeQemuGa } from '../agent/qemu/fake-qemu-ga.js';
import { ManualClock } from '../base/clock.js';
import {
  claimName,
  connect,
  endedOutputOf,
  endedRecordOf,
  listEndedMachines,
  listenFor,
  listMachines,
  listRecords,
  MachineControl,
  scrapeMachines,
  type ControlSocket,
  type EndToRemember,
  type MachineClaim,
} from '../control/index.js';
import { FakeControlled, ownPlace } from '../control/testing.js';
import type { ControlWorld } from './control-world.js';
import { parseCopy } from './copy-command.js';
import { FakeIo, type FakeIoOptions } from './fake-world.js';
import { runMain, type Worlds } from './main-command.js';

let place: ReturnType<typeof ownPlace>;
let claim: MachineClaim;
let socket: ControlSocket;
let control: MachineControl;
let machine: FakeControlled;
let ga: FakeQemuGa;
let onProcess: (process: FakeProcess) => void;
const clock = new ManualClock({ wallMs: Date.parse('2026-01-01T00:05:00Z') });

beforeEach(async () => {
  place = ownPlace();
  claim = await claimName('box', { host: 'native', wallMs: Date.parse('2026-01-01T00:00:00Z') }, place);
  ga = new FakeQemuGa();
  machine = new FakeControlled('box', (process) => onProcess(process), ga);
  onProcess = () => undefined;
  control = new MachineControl(machine, { record: claim.record });
  socket = await listenFor(claim, (stream) => control.accept(stream));
});
afterEach(async () => {
  await end({ status: 0, reason: 'killed' });
  place.done();
});

let ending: Promise<void> | undefined;
function end(told: EndToRemember): Promise<void> {
  ending ??= (async () => {
    const closed = socket.close();
    await control.close({ reason: 'poweroff', status: told.status });
    await closed;
    claim.release(told);
  })();
  return ending;
}
beforeEach(() => (ending = undefined));

const world: ControlWorld = {
  clock,
  connect: (name, signal) => connect(name, { place, signal }),
  list: () => listMachines({ place }),
  scrape: () => scrapeMachines({ place }),
  names: () => listRecords(place).map(({ name }) => name),
  listEnded: () => listEndedMachines(place),
  ended: (name) => endedRecordOf(name, place),
  endedOutput: (name) => endedOutputOf(name, place),
};
const none = (): Promise<never> => Promise.reject(new Error('not asked for'));
const worlds: Worlds = {
  run: none,
  doctor: none,
  snapshots: none,
  dashboard: none,
  control: () => Promise.resolve(world),
};

function start(argv: string[], options: FakeIoOptions = {}) {
  const io = new FakeIo(options);
  return { io, status: runMain(argv, io, worlds) };
}

async function main(...argv: string[]) {
  const { io, status } = start(argv);
  return { status: await status, out: io.collected.text, err: io.stderr.text };
}

describe('ps', () => {
  it('lists for people and for programs, also those that have ended', async () => {
    const { id, pid } = claim.record;
    const people = await main('ps');
    expect(people.out.split('\n')).toEqual([
      `NAME  ID            STATE    ${'PID'.padEnd(String(pid).length)}  HOST    SINCE`,
      `box   ${id}  running  ${pid}  native  5 min ago`,
      '',
    ]);
    const machines = JSON.parse((await main('ps', '--json')).out) as object[];
    expect(machines).toEqual([
      { name: 'box', id, state: 'running', pid, host: 'native', since: '2026-01-01T00:00:00.000Z' },
    ]);
    await end({ status: 3, reason: 'command' });
    expect((await main('ps')).out).toBe('');
    expect((await main('ps', '-a')).out).toMatch(/^NAME.*\nbox .* ended \(command, 3\) +- +native/);
    expect(JSON.parse((await main('ps', '-a', '--json')).out)).toEqual([
      expect.objectContaining({ name: 'box', state: 'ended', status: 3, reason: 'command' }),
    ]);
  });
});

describe('a change', () => {
  it('is told by the name, or as JSON', async () => {
    expect(await main('pause', '--clock', 'freeze', 'box')).toEqual({ status: 0, out: 'box\n', err: '' });
    expect(JSON.parse((await main('resume', '--json', 'box')).out)).toEqual({ name: 'box', state: 'running' });
    expect(machine.calls).toEqual(['pause', 'resume']);
  });

  it('that is refused has status 125 and its reason', async () => {
    expect(await main('resume', 'box')).toEqual({ status: 125, out: '', err: 'vivarium: box is not paused\n' });
  });

  it('of a machine that is not there says which there are', async () => {
    const { status, err } = await main('pause', 'other');
    expect(status).toBe(125);
    expect(err).toBe(
      'vivarium: there is no machine named other\nvivarium: to cure it: vivarium ps tells which there are\n',
    );
    expect((await main('pause', '../box')).err).toMatch(/^vivarium: name: "..\/box" is no name/);
  });

  it('ends it', async () => {
    const stopping = main('stop', '--json', 'box');
    await expect.poll(() => machine.calls).toEqual(['stop']);
    void end({ status: 0, reason: 'poweroff' });
    expect(JSON.parse((await stopping).out)).toEqual({
      name: 'box',
      state: 'stopped',
      end: { reason: 'poweroff', status: 0 },
    });
  });
});

describe('wait', () => {
  it('prints the status, also of one that has ended before', async () => {
    const waiting = main('wait', 'box');
    await new Promise((resolve) => setTimeout(resolve, 50));
    await end({ status: 7, reason: 'command' });
    expect(await waiting).toEqual({ status: 0, out: '7\n', err: '' });
    expect(await main('wait', 'box')).toEqual({ status: 0, out: '7\n', err: '' });
  });

  it('gives up with 124', async () => {
    expect(await main('wait', '--timeout', '0.01', 'box')).toEqual({
      status: 124,
      out: '',
      err: 'vivarium: box has not ended in 10 ms\n',
    });
  });
});

describe('stats --prometheus', () => {
  it('prints the metrics of one machine, or of all with how many did not answer', async () => {
    const exits = 'vivarium_vcpu_exits_total{machine="box",cpu="0"} 7\n';
    const one = await main('stats', '--prometheus', 'box');
    expect(one).toMatchObject({ status: 0, err: '', out: expect.stringContaining(exits) });
    expect(one.out).not.toContain('vivarium_scrape_failed');
    const all = await main('stats', '--all', '--prometheus');
    expect(all).toMatchObject({ status: 0, err: '', out: expect.stringContaining(exits) });
    expect(all.out).toContain('\nvivarium_scrape_failed 0\n');
  });

  it('is not JSON', async () => {
    const { status, out, err } = await main('stats', '--json', '--prometheus', 'box');
    expect({ status, out }).toEqual({ status: 125, out: '' });
    expect(err).toContain('stats: one of --json, --prometheus, not both');
  });
});

describe('logs', () => {
  it('print what was printed; with -f also what comes; and what is remembered', async () => {
    machine.print('one\n');
    await expect.poll(async () => (await main('logs', 'box')).out).toBe('one\n');
    const following = main('logs', '-f', 'box');
    machine.print('two\n');
    machine.end({ reason: 'poweroff' });
    expect((await following).out).toBe('one\ntwo\n');
    await end({ status: 0, reason: 'poweroff', output: [Buffer.from('last words\n')] });
    expect(await main('logs', 'box')).toEqual({ status: 0, out: 'last words\n', err: '' });
  });

  it('print the last lines, also of what is remembered', async () => {
    machine.print('one\ntwo\nthree\n');
    await expect.poll(async () => (await main('logs', '--tail', '2', 'box')).out).toBe('two\nthree\n');
    expect((await main('logs', '--tail', '0', 'box')).out).toBe('');
    expect((await main('logs', '--tail', '-1', 'box')).err).toMatch(/^vivarium: --tail: '-1' is not a number of lines/);
    await end({ status: 0, reason: 'poweroff', output: [Buffer.from('one\ntwo\nlast words')] });
    expect(await main('logs', '--tail', '2', 'box')).toEqual({ status: 0, out: 'two\nlast words', err: '' });
  });
});

describe('console', () => {
  it('shows and types, and Ctrl-] leaves the machine as it is', async () => {
    machine.print('login: ');
    const { io, status } = start(['console', 'box'], { terminal: true });
    await expect.poll(() => io.collected.text).toContain('login: ');
    io.stdin.write('root\r');
    await expect.poll(() => machine.typed).toBe('root\r');
    const { io: second, status: other } = start(['console', 'box'], { terminal: true });
    await expect.poll(() => second.collected.text).toContain('login: ');
    io.stdin.write('x\x1dy');
    expect(await status).toBe(0);
    await expect.poll(() => machine.typed).toBe('root\rx');
    expect(io.rawModes).toEqual([true, false]);
    expect(io.stderr.text).toContain('left the console; box goes on');
    expect(machine.state).toBe('running');
    machine.print('bye');
    machine.end({ reason: 'poweroff' });
    expect(await other).toBe(0);
    expect(second.collected.text).toContain('bye');
  });

  it('goes with the machine, and gives the terminal back', async () => {
    const { io, status } = start(['console', 'box'], { terminal: true });
    await expect.poll(() => io.rawModes).toEqual([true]);
    await end({ status: 0, reason: 'killed' });
    expect(await status).toBe(125);
    expect(io.stderr.text).toContain('the process of box went away');
    expect(io.rawModes).toEqual([true, false]);
  });
});

describe('exec', () => {
  const processes: FakeProcess[] = [];
  beforeEach(() => {
    processes.length = 0;
    onProcess = (process) => void processes.push(process);
    machine.agent.boot();
  });
  const started = async (): Promise<FakeProcess> => {
    await expect.poll(() => processes.length).toBe(1);
    return processes[0]!;
  };

  it("has streams, environment, folder, and the command's status", async () => {
    const { io, status } = start(['exec', '-e', 'A=b', '-e', 'LANG', '-w', '/tmp', 'box', '--', 'cat', '--json'], {
      env: { LANG: 'C' },
    });
    const process = await started();
    expect(process.request).toMatchObject({ argv: ['cat', '--json'], cwd: '/tmp', env: { A: 'b', LANG: 'C' } });
    process.grantStdin(1000);
    io.stdin.end('hello');
    await process.until(() => process.stdinEnded);
    expect(process.stdin.toString()).toBe('hello');
    process.stdout('out');
    process.stderr('err');
    process.exit(7);
    expect(await status).toBe(7);
    expect(io.collected.text).toBe('out');
    expect(io.stderr.text).toBe('err');
  });

  it.each([
    ['not found', (process: FakeProcess) => process.fail(2), 127, 'vivarium: nope: not found in the guest\n'],
    ['killed', (process: FakeProcess) => process.die(9), 137, ''],
  ])('tells a command that was %s', async (_what, how, status, err) => {
    const run = main('exec', '-n', 'box', '--', 'nope');
    const process = await started();
    expect(process.stdinEnded).toBe(true);
    how(process);
    expect(await run).toEqual({ status, out: '', err });
  });

  it('hands a signal on, and gives up at its second', async () => {
    const { io, status } = start(['exec', 'box', '--', 'sleep', '9']);
    const process = await started();
    io.signal('SIGINT');
    await expect.poll(() => process.signals).toEqual([2]);
    io.signal('SIGINT');
    expect(await status).toBe(130);
    await expect.poll(() => process.signals).toEqual([2, 9]);
  });

  it('has a terminal of its own with -t, and gives this one back', async () => {
    const { io, status } = start(['exec', '-t', 'box', '--', 'sh'], { terminal: true });
    const process = await started();
    expect(process.request.terminal).toEqual({ columns: 100, rows: 30 });
    await expect.poll(() => io.rawModes).toEqual([true]);
    process.stdout('$ ');
    await expect.poll(() => io.collected.text).toBe('$ ');
    process.exit(0);
    expect(await status).toBe(0);
    expect(io.rawModes).toEqual([true, false]);
  });

  it('ends with 124 when its time is over', async () => {
    const run = main('exec', '--timeout', '0.05', 'box', '--', 'sleep', '9');
    const process = await started();
    await expect.poll(() => process.signals).toEqual([9]);
    process.die(9);
    expect(await run).toEqual({ status: 124, out: '', err: 'vivarium: sleep: the time is over\n' });
  });

  it('says when there is no agent', async () => {
    machine.channel.open();
    const { status, err } = await main('exec', '--wait', '0.05', 'box', '--', 'ls');
    expect(status).toBe(125);
    expect(err).toMatch(/^vivarium: no agent in the guest after 50 ms/);
  });
});

describe("exec by QEMU's agent", () => {
  beforeEach(async () => {
    ga.exit = (_argv, { arguments: args = {} }) => ({ exitcode: 4, out: (args['input-data'] ?? 'no input') as string });
    ga.open();
    const kind = async (): Promise<string | undefined> => (await (await connect('box', { place })).summary()).agentKind;
    await expect.poll(kind).toBe('qemu');
  });

  it('has what is piped to it as its input, and nothing of a terminal', async () => {
    const piped = start(['exec', 'box', '--', 'cat']);
    piped.io.stdin.end('hello');
    expect([await piped.status, piped.io.collected.text]).toEqual([4, Buffer.from('hello').toString('base64')]);
    // Its input has no end.
    const typed = start(['exec', 'box', '--', 'cat'], { terminal: true });
    expect([await typed.status, typed.io.collected.text]).toEqual([4, 'no input']);
  });

  it('has no terminal, and says what does', async () => {
    const { io, status } = start(['exec', '-t', 'box', '--', 'sh'], { terminal: true });
    expect(await status).toBe(125);
    expect(io.stderr.text).toMatch(/vivarium: QEMU's agent gives a command no terminal.*\n.*cure it: leave -t out/);
    expect(ga.argvs).toEqual([]);
    // It was in raw mode no longer than it took.
    expect(io.rawModes.at(-1)).not.toBe(true);
  });
});

describe('snapshot and rebind', () => {
  it('take paths that count from here', async () => {
    const { io, status } = start(['snapshot', 'box', 'snaps/a', '--instant', '--json'], { cwd: '/home/me' });
    expect(await status).toBe(0);
    expect(JSON.parse(io.collected.text)).toMatchObject({ dir: '/home/me/snaps/a' });
    const { io: second, status: rebound } = start(['rebind', 'box', 'root', 'b.qcow2'], { cwd: '/home/me' });
    expect(await rebound).toBe(0);
    expect(second.collected.text).toMatch(/^box root: 0 requests were held/);
    expect(machine.calls.at(-1)).toContain('/home/me/b.qcow2');
  });
});

describe('cp', () => {
  it.each([
    ['box:/etc/x', 'here', { direction: 'out', name: 'box', from: '/etc/x', to: 'here' }],
    ['./a:b', 'box:c:d', { direction: 'in', name: 'box', from: './a:b', to: 'c:d' }],
    ['dir/a:b', 'box:', { direction: 'in', name: 'box', from: 'dir/a:b', to: '' }],
  ] as const)('from %s to %s', (from, to, request) => {
    expect(parseCopy(from, to)).toEqual(request);
  });

  it.each([
    ['a:b', 'c:d', 'cp: one of the two has to be here; copy over here from one guest to another'],
    ['a', 'b', "cp: neither 'a' nor 'b' is in a machine; NAME:PATH is wanted for one of them"],
  ])('refuses %s to %s', async (from, to, message) => {
    expect(await main('cp', from, to)).toEqual({ status: 125, out: '', err: `vivarium: ${message}\n` });
  });
});

describe('completion', () => {
  it.each([
    [['st'], 'stats\nstop\n'],
    [['snapshots', 'd'], 'delete\n'],
    [['run', '--me'], '--memory\n'],
    [['run', '--holder'], ''],
    [['pause', ''], 'box\n'],
    [['pause', '--clock', ''], ''],
    [['pause', '--clock', 'freeze', 'b'], 'box\n'],
    [['pause', 'box', ''], ''],
    [['cp', 'b'], 'box:\n'],
    [['read', 'b'], 'box:\n'],
    [['write', '--mode', '600', ''], 'box:\n'],
    [['list', 'box:/', ''], ''],
    [['exec', 'box', '--', 'b'], ''],
    [['comp'], 'completion\n'],
    [['nothing', ''], ''],
  ])('of %j', async (words, out) => {
    expect(await main('complete', '--', ...words)).toEqual({ status: 0, out, err: '' });
  });

  it('is what a shell does with the script', async () => {
    const { out: script } = await main('completion', 'bash');
    const line = `${script}
      vivarium() { local IFS=' '; echo "asked: $*"; }
      COMP_WORDS=(vivarium exec 'b x'); COMP_CWORD=2; _vivarium; echo "\${#COMPREPLY[@]} \${COMPREPLY[0]}"`;
    expect(execFileSync('bash', ['-c', line], { encoding: 'utf8' })).toBe('1 asked: complete -- exec b x\n');
    expect((await main('completion', 'tcsh')).err).toBe("vivarium: completion: 'tcsh' is none of bash, zsh, fish\n");
  });
});

describe('the command line', () => {
  it.each([
    [['exec', 'box'], 'exec: a COMMAND is wanted, as in: vivarium exec NAME -- COMMAND'],
    [['exec', 'box', 'ls'], "exec: what is 'box'?; a COMMAND stands after --, as in: vivarium exec NAME -- box"],
    [['exec', '-w', 'tmp', 'box', '--', 'ls'], '--workdir: an absolute path is wanted'],
    [['exec', '-e', 'NO', 'box', '--', 'ls'], '-e NO: NAME=VALUE is wanted, or the name of a variable that is set'],
    [['pause', '--clock', 'stop', 'box'], "--clock: 'stop' is none of count, freeze"],
    [['stop', '--timeout', 'soon', 'box'], "--timeout: 'soon' is not a number of seconds above 0 and below 24 days"],
    [['snapshot', 'box', 'd', '--live', '--paused'], 'snapshot: one of --live, --paused, not all'],
    [['snapshot', 'box', 'd', '--max-pause', '0'], "--max-pause: '0' is not a number of milliseconds above 0"],
    [['rebind', 'box', 'net0', 'tap:'], "rebind: 'tap:' is none of PATH, tap:NAME, switch:NAME, passt"],
    [['write', '--mode', '8', 'box:/x'], "--mode: '8' is not a number of up to four octal digits"],
    [['read', '/etc/motd'], "read: '/etc/motd' is not in a machine; NAME:PATH is wanted"],
    [['wait', '--port', '0', 'box'], "--port: '0' is not a number from 1 to 65535"],
    [['stats'], 'stats: the NAME of a machine is wanted'],
    [['stats', '--all'], 'stats: --all goes with --prometheus'],
    [['stats', '--all', '--prometheus', 'box'], 'stats: a NAME or --all, not both'],
    [['ps', '--', 'x'], 'ps: there is nothing to put after --'],
    [['pause'], "missing required argument 'name'; vivarium pause --help tells more"],
  ])('refuses %j', async (argv, message) => {
    expect(await main(...argv)).toEqual({ status: 125, out: '', err: `vivarium: ${message}\n` });
    expect(machine.calls).toEqual([]);
  });

  it('has help with examples for each', async () => {
    for (const name of [
      'ps',
      'inspect',
      'stats',
      'pause',
      'resume',
      'stop',
      'kill',
      'wait',
      'logs',
      'events',
      'console',
      'exec',
      'cp',
      'read',
      'write',
      'list',
      'snapshot',
      'rebind',
    ]) {
      const { status, out } = await main(name, '--help');
      expect(status).toBe(0);
      expect(out).toMatch(new RegExp(`Examples:\n  vivarium ${name}`));
    }
  });
});
