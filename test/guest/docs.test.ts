/** What the documents tell people to type, and to run, with stock Linux guests: their blocks as they are written, in their order. */
import { copyFileSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { describe, expect, it, onTestFinished } from 'vitest';
import { probeKvm } from '../../lib/host/index.js';
import { defaultKernel } from '../../lib/images/kernel.js';
import { createQcow2Overlay } from '../../lib/vsp/index.js';
import { freePort } from '../../lib/vsp/net/testing-far.js';
import type { Vivarium } from '../lib/command.js';
import { blockNamed, ROOT } from '../lib/document-blocks.js';
import { RUN_ON_LINUX } from '../lib/document-runs.js';
import { type Ended, Workplace } from '../lib/run-block.js';

type Name = (typeof RUN_ON_LINUX)[number];
const PROMPT = /vivarium:~# /;
const LEAVE = '\x1d';
const PROGRAM_S = 240;

/** A folder where the embedded host that is there is found, if guests need one. */
const workplace = (): Workplace => new Workplace({ limitS: PROGRAM_S, ownNames: false });

/** The same with a suite of tests in it, as docs/ci.md has it. */
function withSuite(suite: string): Workplace {
  const place = workplace();
  mkdirSync(place.path('tests'));
  writeFileSync(place.path('tests/run.sh'), suite);
  return place;
}

/** What is done at a console before it is left. */
async function atConsole(line: Vivarium, typed: string, shown: RegExp): Promise<void> {
  await line.until(PROMPT);
  line.type(`${typed}\r`);
  await line.until(shown);
  line.type(LEAVE);
}

const linesOf = (name: Name): string[] => blockNamed(name).trimEnd().split('\n');

const tests: { readonly [name in Name]: (name: Name) => Promise<void> } = {
  'docs/ci.md > Tests in a fresh guest > 1': async (name) => {
    const suite = 'echo "in a guest: $(uname -s), $(cat /proc/sys/kernel/hostname)"; echo failed >&2; exit 3';
    const { status, stdout, stderr } = await withSuite(suite).type(blockNamed(name));
    expect(stderr).toContain('failed\n');
    expect(stdout).toBe('in a guest: Linux, vivarium\n');
    expect(status).toBe(3);
  },

  'docs/ci.md > Tests in a fresh guest > 2': async (name) => {
    const place = withSuite('mkdir results; echo whole > results/report; echo said');
    const { status, stderr } = await place.type(blockNamed(name));
    expect(stderr).toContain('said\n');
    expect(status).toBe(0);
    expect(readFileSync(place.path('results/report'), 'utf8')).toBe('whole\n');
  },

  'README.md > Two commands > 1': async (name) => {
    // `npm ci` has been typed where tests run, and `npm test` is what runs them.
    expect(linesOf(name).map((line) => line.replace(/ +#.*/, ''))).toEqual([
      'npm ci && npm start',
      'npm ci && npm test',
    ]);
    // Without a terminal the guest says what it is, and ends.
    const { stdout } = await answered(workplace(), `cd '${ROOT}' && npm start < /dev/null`);
    expect(stdout).toMatch(/^Linux vivarium /m);
    expect(stdout).toMatch(/^CPUs: \d+$/m);
  },

  'README.md > The command > 1': async (name) => {
    const place = workplace();
    for (const image of ['data.img', 'below.img']) {
      writeFileSync(place.path(image), '');
      truncateSync(place.path(image), 2 ** 20);
    }
    await createQcow2Overlay(place.path('base.qcow2'), { backing: place.path('below.img'), backingFormat: 'raw' });
    const port = await freePort('127.0.0.1');
    // Each line of the block, by how it begins: how it is answered, and its status.
    const lines: readonly (readonly [RegExp, (text: string) => Promise<number>])[] = [
      [/^vivarium run +#/, console('uname -s', /\nLinux\r/)],
      [/^vivarium run -- sh/, answers(7, /^\d+\.\d+\S*\n$/)],
      [/^tar c/, answers(0, / \.\/data\.img\n/)],
      [/^vivarium run --kernel/, withKernel(console('nproc', /\n2\r/))],
      [/^vivarium run --disk/, console('cat /sys/block/vda/ro /sys/block/vdb/ro', /\n0\r*\n1\r/)],
      [/^vivarium run --nic/, console('cat /sys/class/net/eth0/address', /\n[0-9a-f]{2}(:[0-9a-f]{2}){5}\r/)],
      [/^vivarium run -p 8080:80/, (text) => servesHosts(place, text.replace('8080', String(port)), port)],
      [/^vivarium snapshots list/, answers(0, /^/)],
      [/^vivarium dashboard/, (text) => servesPage(place, text)],
      [/^vivarium doctor/, answers(0, /kvm/i)],
    ];
    function console(typed: string, shown: RegExp) {
      return async (text: string): Promise<number> => {
        const line = place.terminal(text);
        await atConsole(line, typed, shown);
        return (await line.ended).status;
      };
    }
    function withKernel(answer: (text: string) => Promise<number>) {
      return async (text: string): Promise<number> => {
        copyFileSync((await defaultKernel()).path, place.path('vmlinux'));
        return answer(text);
      };
    }
    function answers(wanted: number, said: RegExp) {
      return async (text: string): Promise<number> => {
        const { status, stdout, stderr } = await place.type(text);
        expect(status, stderr).toBe(wanted);
        expect(stdout, text).toMatch(said);
        return 0;
      };
    }
    const written = linesOf(name);
    expect(written).toHaveLength(lines.length);
    for (const [index, [begins, answer]] of lines.entries()) {
      expect(written[index]).toMatch(begins);
      expect(await answer(written[index]!), written[index]).toBe(0);
    }
  },

  'docs/control.md > Named machines > 1': async (name) => {
    const place = workplace();
    ends(place, 'box');
    mkdirSync(place.path('site'));
    writeFileSync(place.path('site/index.html'), 'a page\n');
    for (const line of linesOf(name)) {
      const typed = place.terminal(line);
      if (line.startsWith('vivarium console')) await atConsole(typed, 'cat /srv/index.html', /\na page\r/);
      const { status, stdout } = await typed.ended;
      expect(status, `${line}\n${stdout.toString()}`).toBe(0);
      if (line.startsWith('vivarium ps'))
        expect(stdout.toString()).toMatch(/^NAME +ID +STATE +PID +HOST +SINCE\r*\nbox /m);
      if (line.startsWith('vivarium exec')) expect(stdout.toString()).toMatch(/^Linux vivarium /m);
      // A guest on a busy host takes longer to come up than exec waits by itself.
      if (line.startsWith('vivarium run')) await answered(place, 'vivarium exec --wait 120 box -- true');
    }
    expect(readFileSync(place.path('snaps/ready/manifest.json'), 'utf8')).toContain('vivarium snapshot');
    expect((await answered(place, 'vivarium ps')).stdout).not.toMatch(/^box /m);
  },

  'docs/control.md > The fence > 1': async (name) => {
    const place = workplace();
    ends(place, 'box');
    mkdirSync(place.path('box'));
    writeFileSync(place.path('box/root.img'), '');
    truncateSync(place.path('box/root.img'), 2 ** 20);
    await answered(place, `set -e; ${blockNamed(name).replaceAll('/srv', place.folder)}`);
    expect((await answered(place, 'vivarium snapshots list --json snapshots')).stdout).toContain('"ready"');
  },

  'docs/control.md > For programs > 1': async (name) => {
    const place = workplace();
    mkdirSync(place.path('snaps'));
    const block = blockNamed(name);
    const other = block.split('// in any other process of the user\n')[1]!;
    let program = block;
    if (!(await probeKvm()).linuxGuests) {
      // A script inside the embedded host has no server: the command holds the machine there, and only the other program is run.
      ends(place, 'box');
      await answered(place, 'vivarium run -d --name box');
      program = `import { connect } from 'vivarium';\n${other}`;
    }
    const source = `${program}\nconsole.log('it ended:', status);\nprocess.exit(0);\n`;
    const { status, stdout, stderr } = await place.program(source);
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(/^Linux vivarium /m);
    expect(stdout).toMatch(/^hello$/m);
    expect(stdout).toMatch(/^it ended: \{ kind: 'exited', code: 0 \}$/m);
    expect(readFileSync(place.path('etc/hosts'), 'utf8')).toContain('localhost');
    expect(readFileSync(place.path('snaps/ready/manifest.json'), 'utf8')).toContain('vivarium snapshot');
    expect((await answered(place, 'vivarium ps')).stdout).not.toMatch(/^box /m);
  },
};

/** Whatever happens, nothing of that name runs on. */
function ends(place: Workplace, machine: string): void {
  onTestFinished(async () => {
    await place.type(`vivarium kill ${machine}`);
  });
}

/** Typed, with its status held to 0. */
async function answered(place: Workplace, line: string): Promise<Ended> {
  const ended = await place.type(line);
  expect(ended.status, `${line}\n${ended.stderr}`).toBe(0);
  return ended;
}

/** The guest's httpd through a port of this host; then Ctrl-C. */
async function servesHosts(place: Workplace, text: string, port: number): Promise<number> {
  const run = place.start(text);
  onTestFinished(() => void run.child.kill('SIGKILL'));
  const hosts = (): Promise<string> =>
    fetch(`http://127.0.0.1:${port}/etc/hosts`).then(
      (answer) => answer.text(),
      () => run.stderr,
    );
  await expect.poll(hosts, { timeout: PROGRAM_S * 1000, interval: 500 }).toContain('localhost');
  run.child.kill('SIGTERM');
  await run.ended;
  return 0;
}

async function servesPage(place: Workplace, text: string): Promise<number> {
  const dashboard = place.start(text);
  const [url] = await dashboard.until(/http:\/\/127\.0\.0\.1:\d+\/\?token=[\w-]+/);
  expect((await fetch(url)).status).toBe(200);
  dashboard.child.kill('SIGINT');
  return (await dashboard.ended).status;
}

describe('run as it is written', () => {
  it.each(Object.keys(tests) as Name[])('%s', { timeout: 1_800_000 }, (name) => tests[name](name));
});
