/** The examples run as a reader would run them, against the built package, and say what they promise. */
import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const FOLDER = path.resolve(import.meta.dirname, '../../examples');

const EXPECTED: Record<string, RegExp> = {
  'flat-guest.mjs': /^the guest wrote "hello, world\\n" and ended by debug-exit with 42$/m,
  'boot-linux.mjs': /^this is Linux \d+\.\d+\S*, up for \d+ s\nended by poweroff$/m,
};

/** A program of several files, minutes long, run by `npm run demo:pit`; its parts are held by test/unit/pit-demo.test.ts. */
const DEMONSTRATION = 'pit-demo';

it('holds every example', () => {
  expect([...Object.keys(EXPECTED), DEMONSTRATION].sort()).toEqual(readdirSync(FOLDER).sort());
});

it.each(Object.entries(EXPECTED))('%s', async (file, output) => {
  const { stdout } = await promisify(execFile)(process.execPath, [path.join(FOLDER, file)], { timeout: 290_000 });
  expect(stdout).toMatch(output);
});
