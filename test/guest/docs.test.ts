/** What docs/ci.md tells people to type does what it says, typed into a shell: its blocks in their order, over a suite of the test's. */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, it, onTestFinished } from 'vitest';

const ROOT = path.resolve(import.meta.dirname, '../..');
const blocks = [...readFileSync(path.join(ROOT, 'docs/ci.md'), 'utf8').matchAll(/```sh\n([\s\S]*?)```/g)].map(
  (match) => match[1]!,
);

/** A folder with a suite in it, and a `vivarium` on the path, as where the package is installed. */
function workplace(suite: string): { folder: string; type: (text: string) => ReturnType<typeof spawnSync> } {
  const folder = mkdtempSync(path.join(tmpdir(), 'vivarium-docs-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  for (const name of ['tests', 'bin']) mkdirSync(path.join(folder, name));
  writeFileSync(path.join(folder, 'tests/run.sh'), suite);
  const command = path.join(folder, 'bin/vivarium');
  writeFileSync(command, `#!/bin/sh\nexec "${process.execPath}" "${ROOT}/dist/command/main.js" "$@"\n`);
  chmodSync(command, 0o755);
  const env = { ...process.env, PATH: `${path.dirname(command)}:${process.env['PATH'] ?? ''}` };
  return { folder, type: (text) => spawnSync('sh', ['-c', text], { cwd: folder, env, encoding: 'utf8' }) };
}

it('has two blocks', () => {
  expect(blocks).toHaveLength(2);
});

it('a suite in one line: its output and its status come back', () => {
  const { type } = workplace(
    'echo "in a guest: $(uname -s), $(cat /proc/sys/kernel/hostname)"; echo failed >&2; exit 3',
  );
  const { status, stdout, stderr } = type(blocks[0]!);
  expect(stderr).toContain('failed\n');
  expect(stdout).toBe('in a guest: Linux, vivarium\n');
  expect(status).toBe(3);
});

it('and what it leaves', () => {
  const { folder, type } = workplace('mkdir results; echo whole > results/report; echo said');
  const { status, stderr } = type(blocks[1]!);
  expect(stderr).toContain('said\n');
  expect(status).toBe(0);
  expect(readFileSync(path.join(folder, 'results/report'), 'utf8')).toBe('whole\n');
});
