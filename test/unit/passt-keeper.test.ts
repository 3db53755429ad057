/**
 * The keeper that starts passt for a machine's fenced process, asked by a hostile one: the real launcher, with a script in the place of
 * passt that tells how it was started.
 */
import { execFile } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { findLauncher } from '../../lib/cli/fence-launch.js';

interface Request {
  readonly args?: readonly string[];
  /** In the place of arguments. */
  readonly text?: string;
  /** Default 'both', as it should be. */
  readonly descriptors?: 'both' | 'none' | 'one' | 'three' | 'fileForFrames' | 'fileForWords' | 'ownEnd';
  /** What is done at its first words. */
  readonly then?: 'wait' | 'endFrames' | 'endWords' | 'leave';
}

const HOSTILE = fileURLToPath(new URL('../lib/hostile-holder.mjs', import.meta.url));
const folder = realpathSync(mkdtempSync(join(tmpdir(), 'vivarium-keeper-')));
const program = join(folder, 'passt');
const startedPath = join(folder, 'started');
afterAll(() => rmSync(folder, { recursive: true }));

/** By its MTU: tells how it was started; ends with its frames; goes on for ever; crashes. */
const [TELLS, READS, STAYS, CRASHES] = ['1', '2', '3', '4'] as const;
writeFileSync(
  program,
  `#!/bin/sh
  echo "$$ $PPID $*" >> '${startedPath}'
  case "$*" in
    *'--mtu ${TELLS}')
      echo "session $(cut -d ' ' -f 6 /proc/$$/stat) of $$" >&2
      echo "in $(pwd), variables: $(tr '\\0' ' ' < /proc/$$/environ)" >&2
      # In the background: for a command in front the shell redirects its own.
      ls -l /proc/$$/fd >&2 & wait
      exit 3 ;;
    *'--mtu ${READS}') echo reads >&2; exec cat <&3 >/dev/null ;;
    *'--mtu ${STAYS}') echo stays >&2; exec sleep 600 ;;
    *'--mtu ${CRASHES}') kill -SEGV $$ ;;
  esac
`,
);
chmodSync(program, 0o755);
beforeEach(() => writeFileSync(startedPath, ''));

/** What each was told. */
async function ask(requests: readonly Request[], passt = program): Promise<readonly string[]> {
  const launcher = findLauncher();
  if (launcher === undefined) throw new Error('vivarium-fence is not built');
  const options = ['--no-paths', '--passt', passt];
  const running = promisify(execFile)(launcher, [...options, '--', process.execPath, HOSTILE]);
  running.child.stdin!.end(JSON.stringify(requests));
  const { stdout } = await running;
  return JSON.parse(stdout.trim().split('\n').at(-1)!) as readonly string[];
}

interface Started {
  readonly pid: number;
  readonly keeper: number;
  readonly args: string;
}

function started(): readonly Started[] {
  const lines = readFileSync(startedPath, 'latin1').split('\n').slice(0, -1);
  return lines.map((line) => {
    const [, pid, keeper, args] = /^(\d+) (\d+) (.*)$/.exec(line)!;
    return { pid: Number(pid), keeper: Number(keeper), args: args! };
  });
}

/** Also one whom nobody has waited for yet. */
function hasGone(pid: number): boolean {
  const path = `/proc/${pid}/stat`;
  return !existsSync(path) || /\) [ZX] /.test(readFileSync(path, 'latin1'));
}

describe('the keeper of passt', () => {
  it('starts it with nothing but its socket and its words, and tells how it ended', async () => {
    const forwards = ['--tcp-ports', '127.0.0.1/8080:80', '--tcp-ports', '::ffff:1.2.3.4/1:2', '--udp-ports', 'none'];
    const args = ['--address', '10.0.2.15', '--netmask', '24', '--gateway', '10.0.2.2', '--no-map-gw', ...forwards];
    const [told, ...others] = await ask([
      { args: [...args, '--mtu', TELLS] },
      { args: ['--mtu', READS], then: 'endFrames' },
      { args: ['--mtu', CRASHES] },
    ]);
    expect(others).toEqual(['reads\n\nit ended with status 0\n', '\nit ended with signal 11\n']);
    const [first] = started();
    expect(first!.args).toBe(['--foreground --quiet --fd 3', ...args, '--mtu', TELLS].join(' '));
    expect(told).toMatch(new RegExp(`^session ${first!.pid} of ${first!.pid}\nin /, variables: \n`));
    expect(told).toMatch(/\n\nit ended with status 3\n$/);
    // The shell reads the script itself by a descriptor of its own.
    const descriptors = [...told!.matchAll(/ (\d+) -> ([^:\n]+)/g)].map(([, fd, target]) => `${fd} ${target}`);
    const inherited = descriptors.filter((each) => !each.endsWith(` ${program}`));
    expect(inherited.sort()).toEqual(['0 /dev/null', '1 /dev/null', '2 socket', '3 socket']);
  });

  it('starts nothing for what vivarium does not ask for, and lives on', async () => {
    const wrong: readonly (readonly string[])[] = [
      ['--pcap', '/tmp/frames'],
      ['--log-file', 'none'],
      ['--runas', '0'],
      ['-t', '1'],
      ['--tcp-port', '1'],
      ['--mtu=1'],
      ['--mtu'],
      ['--mtu', TELLS, '--tcp-ports'],
      ['--mtu', '--mtu', TELLS],
      ['--mtu', ''],
      ['--mtu', ' 1'],
      ['--mtu', '-1'],
      ['--mtu', '0x1'],
      [TELLS],
      ['--no-map-gw', '1'],
      ['--address', 'fe80::1'],
      ...['--address', '--netmask', '--gateway', '--mtu'].map((option) => [option, 'none']),
      ['--address', '1'.repeat(65)],
      ...['all', 'auto', '1-9', '~1', '1,2', '127.0.0.1%lo/1:2', '/dev/null', ''].map((ports) => [
        '--tcp-ports',
        ports,
      ]),
      Array.from({ length: 1100 }, () => '--no-map-gw'),
    ];
    const right = { args: ['--mtu', TELLS] };
    const requests: Request[] = [
      ...wrong.map((args) => ({ args })),
      // What would be right, but for its end.
      { text: `--mtu\0${TELLS}` },
      { text: '' },
      { text: '\0' },
      { text: `--mtu\0${TELLS}\0`.repeat(5000) },
      ...(['none', 'one', 'three', 'fileForFrames', 'fileForWords', 'ownEnd'] as const).map((descriptors) => ({
        ...right,
        descriptors,
      })),
    ];
    expect(await ask(requests)).toEqual(requests.map(() => ''));
    expect(started()).toEqual([]);
    const last = (await ask([...requests, right])).at(-1)!;
    expect([last.endsWith('\nit ended with status 3\n'), started().length]).toEqual([true, 1]);
    expect(await ask([{ text: 'x'.repeat(2 ** 20) }, right])).toEqual([
      'EMSGSIZE',
      expect.stringContaining('status 3'),
    ]);
  });

  it('takes as many forwards as a request over the control socket may have', async () => {
    const forwards = Array.from({ length: 256 }, (_, index) => [
      '--tcp-ports',
      `255.255.255.255/${65_000 + index}:65000`,
    ]);
    const [told] = await ask([{ args: [...forwards.flat(), '--mtu', TELLS] }]);
    expect(told).toContain('it ended with status 3');
  });

  it('kills the one whose words are not wanted any more, and all of them when the machine has gone', async () => {
    const stays = { args: ['--mtu', STAYS] };
    const told = await ask([
      { ...stays, then: 'endWords' },
      ...[1, 2].map(() => ({ ...stays, then: 'leave' as const })),
    ]);
    expect(told).toEqual(['stays\n\nit ended with signal 9\n', 'stays\n', 'stays\n']);
    const all = started();
    const pids = [...all.map(({ pid }) => pid), all[0]!.keeper];
    expect(new Set(pids).size).toBe(4);
    await expect.poll(() => pids.filter((pid) => !hasGone(pid)), { timeout: 10_000 }).toEqual([]);
  });

  it('runs no more than 64 at once', async () => {
    const told = await ask([
      ...Array.from({ length: 64 }, () => ({ args: ['--mtu', STAYS], then: 'leave' as const })),
      { args: ['--mtu', TELLS] },
    ]);
    expect(told.slice(-2)).toEqual(['stays\n', 'too many of them run']);
    await expect.poll(() => started().filter(({ pid }) => !hasGone(pid)), { timeout: 10_000 }).toEqual([]);
  });

  it('says that passt is not there', async () => {
    const told = await ask([{ args: ['--mtu', TELLS] }], join(folder, 'nowhere'));
    expect(told).toEqual(['passt is not installed\n\nit ended with status 127\n']);
  });
});
