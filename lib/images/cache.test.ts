/** Entries are whole or absent: with processes that race, die half-way, are aborted, or find damage. */
import { spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ts from 'typescript';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Cache } from './cache.js';
import { processIdentity } from './lock.js';

let root: string;
let cache: Cache;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'vivarium-cache-'));
  cache = new Cache(join(root, 'vivarium'));
});
afterEach(() => {
  rmSync(root, { recursive: true, force: true });
});

const write = (text: string) => async (folder: string) => {
  writeFileSync(join(folder, 'file'), text);
  return Promise.resolve();
};
const read = (folder: string): string => readFileSync(join(folder, 'file'), 'utf8');
/** What stands in an entry's folder beside whole entries. */
const leftovers = (name: string): string[] =>
  readdirSync(join(cache.path, name)).filter((file) => file.startsWith('.'));

describe('Cache.use', () => {
  it('builds once and finds it again', async () => {
    const first = await cache.use('name', 'key', write('one'));
    const second = await cache.use('name', 'key', write('two'));
    expect(second).toBe(first);
    expect(read(second)).toBe('one');
    expect(leftovers('name')).toEqual([]);
  });

  it('keeps keys and names apart', async () => {
    expect(read(await cache.use('a', '1', write('a1')))).toBe('a1');
    expect(read(await cache.use('a', '2', write('a2')))).toBe('a2');
    expect(read(await cache.use('b', '1', write('b1')))).toBe('b1');
  });

  it('lists the whole entries of a name, newest first', async () => {
    expect(await cache.keys('name')).toEqual([]);
    const old = await cache.use('name', 'old', write('1'));
    await cache.use('name', 'new', write('2'));
    rmSync(join(await cache.use('name', 'broken', write('3')), 'file'));
    utimesSync(old, 1, 1);
    await cache.setCurrent('name', 'old');
    expect(await cache.keys('name')).toEqual(['new', 'old']);
  });

  it('leaves nothing behind when the build fails, and builds the next time', async () => {
    await expect(cache.use('name', 'key', () => Promise.reject(new Error('no network')))).rejects.toThrow('no network');
    expect(readdirSync(join(cache.path, 'name'))).toEqual([]);
    expect(read(await cache.use('name', 'key', write('then')))).toBe('then');
  });

  it('builds once when it is wanted twice at the same time in one process', async () => {
    let builds = 0;
    const build = async (folder: string) => {
      builds++;
      await write('once')(folder);
    };
    await Promise.all([cache.use('n', 'k', build), cache.use('n', 'k', build), cache.use('n', 'k', build)]);
    expect(builds).toBe(1);
  });

  it.each([
    [
      'a file that is shorter',
      (folder: string) => {
        truncateSync(join(folder, 'file'), 1);
      },
    ],
    [
      'a file that is gone',
      (folder: string) => {
        rmSync(join(folder, 'file'));
      },
    ],
    [
      'no manifest',
      (folder: string) => {
        rmSync(join(folder, '.entry.json'));
      },
    ],
    [
      'a manifest that is damaged',
      (folder: string) => {
        writeFileSync(join(folder, '.entry.json'), '[[1,');
      },
    ],
    [
      'a manifest of another shape',
      (folder: string) => {
        writeFileSync(join(folder, '.entry.json'), '{"a":1}');
      },
    ],
  ])('builds anew over an entry with %s', async (_, damage) => {
    const folder = await cache.use('name', 'key', write('good'));
    await cache.setCurrent('name', 'key');
    damage(folder);
    expect(cache.peek('name', 'key')).toBeUndefined();
    expect(cache.current('name')).toBeUndefined();
    expect(read(await cache.use('name', 'key', write('again')))).toBe('again');
    expect(cache.current('name')).toBe('key');
    expect(leftovers('name')).toEqual([]);
  });

  it('checks the top of a large entry only', async () => {
    const folder = await cache.use('name', 'key', (draft) => {
      mkdirSync(join(draft, 'deep/er'), { recursive: true });
      writeFileSync(join(draft, 'top'), '1');
      for (let index = 0; index < 70; index++) writeFileSync(join(draft, `deep/er/${index}`), '1');
      return Promise.resolve();
    });
    rmSync(join(folder, 'deep/er/5'));
    expect(cache.peek('name', 'key')).toBe(folder);
    rmSync(join(folder, 'top'));
    expect(cache.peek('name', 'key')).toBeUndefined();
  });

  it.each(['', '.', '..', 'a/b', '.hidden', '../x', 'a b', 'a\0'])('refuses the name %j', async (name) => {
    await expect(cache.use(name, 'key', write(''))).rejects.toThrow(RangeError);
    await expect(cache.use('name', name, write(''))).rejects.toThrow(RangeError);
  });

  it('says where the folder is when it can not be made', async () => {
    writeFileSync(join(root, 'vivarium'), 'a file');
    await expect(cache.use('name', 'key', write(''))).rejects.toMatchObject({
      code: 'ERR_SETUP',
      cure: expect.stringContaining('XDG_CACHE_HOME'),
    });
  });
});

describe('among processes', () => {
  const lockPath = () => join(cache.path, 'name', '.key.lock');

  it('waits for a living builder and gives up when told to', async () => {
    mkdirSync(join(cache.path, 'name'), { recursive: true });
    // Process 1 lives for certain; its start time is what its stat says.
    const stat = readFileSync('/proc/1/stat', 'latin1');
    const startTicks = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
    writeFileSync(lockPath(), JSON.stringify({ ...processIdentity(), pid: 1, startTicks }));
    const ended = new AbortController();
    const waits: number[] = [];
    const using = cache.use('name', 'key', write('x'), {
      signal: ended.signal,
      onWait: (pid) => {
        waits.push(pid);
        ended.abort();
      },
    });
    await expect(using).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(waits).toEqual([1]);
    expect(existsSync(lockPath())).toBe(true);
  });

  it.each([
    ['died', { pid: 2 ** 22 + 1 }],
    ['had the number of a process that lives now', { startTicks: '1' }],
    ['ran before the machine was restarted', { bootId: '00000000-0000-0000-0000-000000000000' }],
  ])('takes over from a builder that %s', async (_, difference) => {
    mkdirSync(join(cache.path, 'name', '.key.77.0123abcd.tmp'), { recursive: true });
    writeFileSync(join(cache.path, 'name', '.key.77.0123abcd.tmp', 'half'), '');
    writeFileSync(lockPath(), JSON.stringify({ ...processIdentity(), ...difference }));
    expect(read(await cache.use('name', 'key', write('mine')))).toBe('mine');
    expect(leftovers('name')).toEqual([]);
  });

  it.each(['', '{', 'null', '{"pid":"x"}'])('takes a lock that holds %j for nobody’s', async (text) => {
    mkdirSync(join(cache.path, 'name'), { recursive: true });
    writeFileSync(lockPath(), text);
    expect(read(await cache.use('name', 'key', write('mine')))).toBe('mine');
  });

  it('waits for the lock of another process-number namespace', async () => {
    mkdirSync(join(cache.path, 'name'), { recursive: true });
    writeFileSync(lockPath(), JSON.stringify({ ...processIdentity(), pid: 2 ** 22 + 1, pidNamespace: 'pid:[1]' }));
    const ended = new AbortController();
    const using = cache.use('name', 'key', write('x'), {
      signal: ended.signal,
      onWait: () => {
        ended.abort();
      },
    });
    await expect(using).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });

  it('builds once when two processes want it at the same time', async () => {
    const outputs = await Promise.all([child('race'), child('race')]);
    expect(outputs.map(({ code }) => code)).toEqual([0, 0]);
    const pids = outputs.map(({ output }) => output.trim());
    expect(pids[0]).toBe(pids[1]);
    expect(
      readFileSync(join(cache.path, 'builds'), 'utf8')
        .split('\n')
        .filter((line) => line !== ''),
    ).toHaveLength(1);
  });

  it('goes on after a process that was killed in the middle of a build', async () => {
    const { code } = await child('die');
    expect(code).toBe(null);
    expect(leftovers('name').length).toBeGreaterThan(0);
    expect(cache.peek('name', 'key')).toBeUndefined();
    expect(read(await cache.use('name', 'key', write('after')))).toBe('after');
    expect(leftovers('name')).toEqual([]);
  });

  /**
   * A process that builds the same entry: `race` builds it unhurriedly and prints who built it, `die` is killed in the
   * middle. It runs this folder's own code, as JavaScript.
   */
  function child(mode: 'race' | 'die'): Promise<{ code: number | null; output: string }> {
    const script = join(transpiled(), 'child.js');
    const started = spawn(process.execPath, [script, cache.path, mode], { stdio: ['ignore', 'pipe', 'inherit'] });
    let output = '';
    started.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
    return new Promise((resolve) => {
      started.once('close', (code) => {
        resolve({ code, output });
      });
    });
  }
});

const CHILD = `
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { Cache } from './images/cache.js';
const [, , path, mode] = process.argv;
const folder = await new Cache(path).use('name', 'key', async (draft) => {
  appendFileSync(path + '/builds', process.pid + '\\n');
  writeFileSync(draft + '/file', 'half');
  if (mode === 'die') process.kill(process.pid, 'SIGKILL');
  await delay(300);
  writeFileSync(draft + '/file', String(process.pid));
});
process.stdout.write(readFileSync(folder + '/file', 'utf8'));
`;

/** The files of the cache and what they import, transpiled into the test's folder. */
function transpiled(): string {
  const target = join(root, 'js');
  if (existsSync(join(target, 'child.js'))) return target;
  for (const file of ['images/cache', 'images/lock', 'images/run', 'base/errors', 'base/user-folders']) {
    const source = readFileSync(new URL(`../${file}.ts`, import.meta.url), 'utf8');
    const { outputText } = ts.transpileModule(source, {
      compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 },
    });
    mkdirSync(join(target, file, '..'), { recursive: true });
    writeFileSync(join(target, `${file}.js`), outputText);
  }
  writeFileSync(join(target, 'package.json'), '{"type":"module"}');
  writeFileSync(join(target, 'child.js'), CHILD);
  return target;
}
