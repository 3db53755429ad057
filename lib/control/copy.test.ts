import { spawn } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { VmmError } from '../base/errors.js';
import { copyIn, copyOut, type CopyMachine } from './copy.js';
import { encodeHeader, padding } from './tar-format.js';
import { unpackFiles, type CopyReport } from './tar-files.js';

let folder: string;
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'vivarium-copy-'))));
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A guest whose root is a folder here, and whose programs are this machine's. */
function guest(root: string): CopyMachine {
  const inside = (text: string): string => (text.startsWith('/') ? join(root, text) : text);
  return {
    name: 'box',
    run: ({ argv, stdin, stdout, stderr, signal }) =>
      new Promise((resolve, reject) => {
        const [program = '', ...more] = argv.map(inside);
        const child = spawn(program, more, { ...(signal && { signal }), killSignal: 'SIGKILL' });
        child.once('error', (error) => (signal?.aborted === true ? undefined : reject(error)));
        child.stdin.on('error', () => undefined);
        if (stdin === undefined) child.stdin.end();
        else stdin.pipe(child.stdin);
        if (stdout !== undefined) child.stdout.pipe(stdout, { end: false });
        if (stderr !== undefined) child.stderr.pipe(stderr, { end: false });
        child.once('close', (code) => {
          if (signal?.aborted === true) reject(new VmmError('ERR_ABORTED', 'aborted'));
          else resolve({ status: { kind: 'exited', code: code ?? 1 }, timedOut: false, outputError: undefined });
        });
      }),
  };
}

const LONG = 'n'.repeat(120);

/** Files of many kinds below a folder. */
function fill(root: string): void {
  mkdirSync(join(root, 'sub', 'empty'), { recursive: true });
  writeFileSync(join(root, 'a file; with "odd" $name'), 'odd');
  writeFileSync(join(root, 'sub', 'big'), Buffer.alloc(1_000_001, 'x'));
  writeFileSync(join(root, 'sub', LONG), 'long');
  writeFileSync(join(root, 'ünï'), 'ü');
  writeFileSync(join(root, 'run'), '#!/bin/sh\n');
  chmodSync(join(root, 'run'), 0o755);
  writeFileSync(join(root, 'secret'), '');
  chmodSync(join(root, 'secret'), 0o600);
  symlinkSync('../sub/big', join(root, 'sub', 'link'));
  symlinkSync('/nowhere', join(root, 'dangling'));
  chmodSync(join(root, 'sub', 'empty'), 0o555);
}

/** Everything below a folder, in words. */
function told(root: string): string[] {
  return (readdirSync(root, { recursive: true }) as string[]).sort().map((name) => {
    const at = join(root, name);
    const found = lstatSync(at);
    if (found.isSymbolicLink()) return `${name} -> ${readlinkSync(at)}`;
    const mode = (found.mode & 0o777).toString(8);
    return found.isDirectory()
      ? `${name}/ ${mode}`
      : `${name} ${mode} ${readFileSync(at).toString('base64').slice(0, 40)} ${found.size}`;
  });
}

describe('cp', () => {
  it('takes a folder out as it is, and in again', async () => {
    const root = join(folder, 'guest');
    mkdirSync(join(root, 'srv'), { recursive: true });
    fill(join(root, 'srv'));
    const report = await copyOut(guest(root), '/srv', join(folder, 'out'));
    expect(report).toMatchObject({ files: 11, leftOut: [] });
    expect(told(join(folder, 'out'))).toEqual(told(join(root, 'srv')));
    const back = await copyIn(guest(root), join(folder, 'out'), '/back');
    expect(back).toEqual(report);
    expect(told(join(root, 'back'))).toEqual(told(join(root, 'srv')));
  });

  it('goes into a folder that is there, else under the new name', async () => {
    const root = join(folder, 'guest');
    mkdirSync(join(root, 'etc'), { recursive: true });
    writeFileSync(join(root, 'etc', 'conf'), 'one');
    mkdirSync(join(folder, 'here'));
    await copyOut(guest(root), 'etc/conf', join(folder, 'here'));
    await copyOut(guest(root), '/etc/conf', join(folder, 'here', 'renamed'));
    expect(readdirSync(join(folder, 'here')).sort()).toEqual(['conf', 'renamed']);
    writeFileSync(join(folder, 'here', 'conf'), 'two');
    await copyIn(guest(root), join(folder, 'here', 'conf'), '/etc');
    await copyIn(guest(root), join(folder, 'here', 'conf'), '/etc/other');
    expect(readFileSync(join(root, 'etc', 'conf'), 'utf8')).toBe('two');
    expect(readFileSync(join(root, 'etc', 'other'), 'utf8')).toBe('two');
    await copyOut(guest(root), '/etc', folder);
    await copyOut(guest(root), '/etc', folder);
    expect(readdirSync(join(folder, 'etc')).sort()).toEqual(['conf', 'other']);
  });

  it('says what is wrong with either side', async () => {
    const root = join(folder, 'guest');
    mkdirSync(root);
    const vm = guest(root);
    await expect(copyOut(vm, '/nope', folder)).rejects.toThrow(/^cp box:\/nope: .*[Nn]o such file/);
    await expect(copyIn(vm, join(folder, 'nope'), '/')).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(copyIn(vm, root, '/no/such/folder')).rejects.toThrow(/^cp box:\/no\/such\/folder: /);
    await expect(copyIn(vm, root, '/nope/')).rejects.toThrow('cp: box:/nope/: there is no such folder');
    await expect(copyOut(vm, '/', folder)).rejects.toThrow(TypeError);
    const gone: CopyMachine = { name: 'box', run: () => Promise.reject(new VmmError('ERR_AGENT', 'no agent')) };
    await expect(copyOut(gone, '/etc', folder)).rejects.toThrow('no agent');
  });
});

type Made = Parameters<typeof encodeHeader>[0];

/** An archive as a guest may make it up. */
function archive(...entries: (Partial<Made> & { name: string; content?: string; type?: string })[]): Buffer {
  const blocks = entries.map(({ content = '', type, ...entry }) => {
    const header = encodeHeader({
      kind: 'file',
      mode: 0o644,
      mtimeS: 0,
      linkName: '',
      sizeBytes: content.length,
      ...entry,
    });
    if (type !== undefined) retype(header, type);
    return Buffer.concat([header, Buffer.from(content), padding(content.length)]);
  });
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

function retype(header: Buffer, type: string): void {
  const sum = parseInt(header.toString('latin1', 148, 154), 8) - header[156]! + type.charCodeAt(0);
  header.write(type, 156, 'latin1');
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
}

async function unpack(bytes: Buffer, pieceBytes = bytes.length): Promise<CopyReport> {
  const report: CopyReport = { files: 0, bytes: 0, leftOut: [] };
  async function* pieces(): AsyncGenerator<Buffer> {
    for (let at = 0; at < bytes.length; at += pieceBytes)
      yield await Promise.resolve(bytes.subarray(at, at + pieceBytes));
  }
  await unpackFiles(pieces(), 'root', join(folder, 'target'), report);
  return report;
}

const DIR = { name: 'root/', kind: 'directory', mode: 0o755 } as const;

describe('what a guest sends', () => {
  it.each([
    ['a way up', archive(DIR, { name: 'root/../../evil' }), /it leads out of what is copied/],
    ['an absolute name', archive(DIR, { name: '/etc/evil' }), /it leads out of what is copied/],
    ['another root', archive(DIR, { name: 'other/evil' }), /it is not below "root"/],
    [
      'a way through a link of its own',
      archive(DIR, { name: 'root/up', kind: 'symlink', linkName: '..' }, { name: 'root/up/evil', content: 'x' }),
      /up is no folder/,
    ],
    [
      'a root that is a link',
      archive({ name: 'root', kind: 'symlink', linkName: '.' }, { name: 'root/evil', content: 'x' }),
      /target is no folder/,
    ],
    [
      'a hard link to what lies outside',
      archive(DIR, { name: 'root/x', linkName: '/etc/hostname', type: '1' }),
      /leads out/,
    ],
    [
      'a hard link through a link',
      archive(
        DIR,
        { name: 'root/up', kind: 'symlink', linkName: '..' },
        { name: 'root/x', linkName: 'root/up/outside', type: '1' },
      ),
      /up is no folder/,
    ],
    [
      'a file in place of a folder',
      archive(DIR, { name: 'root/d/', kind: 'directory' }, { name: 'root/d' }),
      /is a folder/,
    ],
    ['a file below a file', archive(DIR, { name: 'root/f' }, { name: 'root/f/g' }), /f is no folder/],
    ['a wrong checksum', archive(DIR).fill('x', 1, 2), /the checksum of a header is wrong/],
    ['no number where one is due', Buffer.alloc(512, 1), /is no octal number/],
    ['half a header', archive(DIR).subarray(0, 100), /ends in the middle/],
    [
      'half a file',
      archive(DIR, { name: 'root/f', content: 'x'.repeat(2000) }).subarray(0, 1500),
      /ends in the middle/,
    ],
    ['a name without end', archive({ name: 'x', type: 'L', sizeBytes: 2 ** 30 }), /a name without end/],
    [
      'a name that no file can have',
      archive(DIR, { name: 'x', type: 'L', content: `root/${'n'.repeat(5000)}\0` }, { name: 'root/cut', type: '3' }),
      /a name without end/,
    ],
    ['a pax record that is none', archive({ name: 'x', type: 'x', content: '99 path=x\n' }), /a pax record/],
    [
      'a sparse file',
      archive({ name: 'x', type: 'x', content: '22 GNU.sparse.major=1\n' }, { name: 'root' }),
      /sparse/,
    ],
  ])('is refused: %s', async (_what, bytes, message) => {
    writeFileSync(join(folder, 'outside'), 'mine');
    await expect(unpack(bytes)).rejects.toThrow(message);
    expect(existsSync(join(folder, 'evil'))).toBe(false);
    expect(readdirSync(folder).filter((name) => name !== 'target')).toEqual(['outside']);
    expect(readFileSync(join(folder, 'outside'), 'utf8')).toBe('mine');
  });

  it('brings no device, no owner and no special bit along', async () => {
    const report = await unpack(
      archive(
        DIR,
        { name: 'root/dev', type: '3' },
        { name: 'root/pipe', type: '6' },
        { name: 'root/su', mode: 0o6755 },
      ),
    );
    expect(report.leftOut).toEqual(['root/dev', 'root/pipe']);
    const many = Array.from({ length: 1500 }, (_, index) => ({ name: `root/${index}`, type: '3' }));
    expect((await unpack(archive(...many))).leftOut).toHaveLength(1000);
    expect(readdirSync(join(folder, 'target'))).toEqual(['su']);
    expect(lstatSync(join(folder, 'target', 'su')).mode & 0o7777).toBe(0o755);
  });

  it('replaces a link that stands in the way, and not what it leads to', async () => {
    writeFileSync(join(folder, 'outside'), 'mine');
    mkdirSync(join(folder, 'target'));
    symlinkSync('../outside', join(folder, 'target', 'f'));
    await unpack(archive(DIR, { name: 'root/f', content: 'theirs' }));
    expect(readFileSync(join(folder, 'outside'), 'utf8')).toBe('mine');
    expect(lstatSync(join(folder, 'target', 'f')).isFile()).toBe(true);
  });

  it('is read in pieces of any size, with hard links and names of GNU tar', async () => {
    const bytes = archive(
      DIR,
      { name: 'x', type: 'L', content: `root/${LONG}\0` },
      { name: 'root/cut', content: 'hello' },
      { name: 'x', type: 'K', content: `./root/${LONG}\0` },
      // A date before 1970, and a key that nobody uses.
      { name: 'x', type: 'x', content: '12 mtime=-1\n12 vendor=1\n' },
      { name: 'root/same', linkName: 'cut', type: '1' },
    );
    await unpack(bytes, 1);
    expect(readFileSync(join(folder, 'target', LONG), 'utf8')).toBe('hello');
    expect(readFileSync(join(folder, 'target', 'same'), 'utf8')).toBe('hello');
  });

  it('may be anything: what it is not is told, and nothing is written elsewhere', async () => {
    const sound = archive(
      DIR,
      { name: 'root/f', content: 'hello' },
      { name: 'root/l', kind: 'symlink', linkName: 'f' },
    );
    let refusals = 0;
    for (let seed = 0; seed < 500; seed++) {
      const bytes = Buffer.from(sound);
      for (let change = 0; change <= seed % 3; change++) {
        bytes[(seed * 7919 + change * 104_729) % bytes.length] = (seed * 31 + change) & 0xff;
      }
      await unpack(bytes).catch((error: unknown) => {
        refusals++;
        expect(error).toMatchObject({ code: expect.stringMatching(/^ERR_CONTROL$|^E[A-Z]+$/) as string });
      });
      expect(readdirSync(folder).filter((name) => name !== 'target')).toEqual([]);
      rmSync(join(folder, 'target'), { recursive: true, force: true });
    }
    expect(refusals).toBeGreaterThan(100);
  });
});
