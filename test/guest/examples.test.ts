/** The examples run as a reader would run them, against the built package, and say what they promise. */
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { expect, it, onTestFinished } from 'vitest';

const FOLDER = path.resolve(import.meta.dirname, '../../examples');

const EXPECTED: Record<string, RegExp> = {
  'flat-guest.mjs': /^the guest wrote "hello, world\\n" and ended by debug-exit with 42$/m,
  'three-machines.mjs':
    /^(\w+-\d+: Linux \d+\.\d+\S*\n){3}two and three reach one\nrandom numbers: ([0-9a-f]{32} ?){3}\nno two are the same$/m,
  'boot-linux.mjs': /^this is Linux \d+\.\d+\S*, up for \d+ s\nended by poweroff$/m,
};

/** A program of several files, run by `npm run demo:pit`; its parts are held by test/unit/pit-demo.test.ts. */
const DEMONSTRATION = 'pit-demo';
const ROOT = path.dirname(FOLDER);

it('holds every example', () => {
  expect([...Object.keys(EXPECTED), DEMONSTRATION].sort()).toEqual(readdirSync(FOLDER).sort());
});

it.each(Object.entries(EXPECTED))('%s', async (file, output) => {
  const { stdout } = await promisify(execFile)(process.execPath, [path.join(FOLDER, file)], { timeout: 290_000 });
  expect(stdout).toMatch(output);
});

it('npm run demo:pit draws a picture and prints a table', async () => {
  mkdirSync(path.join(ROOT, 'build'), { recursive: true });
  const folder = mkdtempSync(path.join(ROOT, 'build/demo-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const picture = path.join(folder, 'pit.svg');
  const args = ['--out', picture, '--stop', '1', '--overload', '1'];
  const program = path.join(ROOT, 'scripts/demo-pit.mjs');
  const { stdout } = await promisify(execFile)(process.execPath, [program, ...args], { timeout: 290_000 });
  for (const policy of ['catch-up', 'reinject', 'discard']) {
    expect(stdout).toMatch(new RegExp(`^${policy} +\\d+ ms +-?\\d+ ms +(never|\\d+ ms) +\\d+ +\\d+ %$`, 'm'));
  }
  const svg = readFileSync(picture, 'utf8');
  expect(svg).toMatch(/^<svg [^>]*xmlns="http:\/\/www\.w3\.org\/2000\/svg"/);
  expect(unclosedTags(svg)).toEqual([]);
  expect(svg.match(/<polyline /g)).toHaveLength(6);
});

/** What is left open, or closed without having been opened; also a character that XML wants escaped. */
function unclosedTags(xml: string): string[] {
  const open: string[] = [];
  const text = xml.replaceAll(
    /<(\/?)([\w:-]+)((?:\s+[\w:-]+="[^"<]*")*)\s*(\/?)>/g,
    (_, closes, name: string, __, empty) => {
      if (closes === '' && empty === '') open.push(name);
      else if (closes !== '' && open.at(-1) === name) open.pop();
      else if (closes !== '') open.push(`/${name}`);
      return '';
    },
  );
  return [...open, ...(text.match(/<|&(?!\w+;)/g) ?? [])];
}
