/** The layer rule: what it lets through, what it refuses, and that ESLint with this repository's config applies it. */
import { ESLint } from 'eslint';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
// @ts-expect-error -- a script without types
import { ROOMS, whyForbidden as untypedWhyForbidden } from '../../scripts/lint/rooms.mjs';

const ROOT = path.resolve(import.meta.dirname, '../..');

const whyForbidden = untypedWhyForbidden;

const OPTIONS = {
  packages: { bindings: ['lib/kvm/binding.ts'], commander: ['lib/cli/'], vitest: ['*.test.ts'] },
  guarded: { 'lib/kvm/native.ts': ['lib/kvm/', 'lib/memory/'] },
};

describe('whyForbidden', () => {
  it.each([
    ['lib/machine/machine.ts', '../kvm/system.js'],
    ['lib/machine/machine.ts', './config.js'],
    ['lib/machine/deep/exit.ts', '../../base/errors.js'],
    ['lib/abi/kvm.ts', 'node:fs'],
    ['lib/index.ts', './cli/main.js'],
    ['lib/kvm/binding.ts', 'bindings'],
    ['lib/cli/run.ts', 'commander'],
    ['lib/memory/address-space.ts', '../kvm/native.js'],
    ['lib/base/units.test.ts', 'vitest'],
    ['test/kvm/run.test.ts', '../../lib/kvm/native.js'],
  ])('lets %s import %s', (file, specifier) => {
    expect(whyForbidden(file, specifier, OPTIONS)).toBeUndefined();
  });

  it.each([
    ['lib/kvm/vm.ts', '../memory/guest-memory.js', /kvm stands before memory/],
    ['lib/base/errors.ts', '../abi/kvm.js', /base stands before abi/],
    ['lib/host/probe.ts', '../cli/run.js', /host stands before cli/],
    ['lib/machine/machine.ts', '../kvm/native.js', /only lib\/kvm\/, lib\/memory\//],
    ['lib/machine/machine.test.ts', '../kvm/native.js', /only lib\/kvm\/, lib\/memory\//],
    ['lib/machine/machine.ts', '../index.js', /public surface/],
    ['lib/machine/machine.ts', '../../package.json', /leads out of lib/],
    ['lib/machine/machine.ts', '../machinery/x.js', /in no room/],
    ['lib/machinery/x.ts', './y.js', /in no room/],
    ['lib/other.ts', './base/errors.js', /in no room/],
    ['lib/machine/machine.ts', 'bindings', /only lib\/kvm\/binding.ts/],
    ['lib/base/units.ts', 'vitest', /\*\.test\.ts/],
    ['lib/api/server.ts', 'commander', /only lib\/cli\//],
    ['lib/api/server.ts', 'express', /not listed/],
    ['lib/api/server.ts', '@scope/name/deep', /'@scope\/name' is not listed/],
    ['lib/api/server.ts', 'vivarium', /not listed/],
    ['lib/api/server.ts', 'fs', /not listed/],
    ['lib/base/errors.ts', '../base/../cli/main.js', /base stands before cli/],
  ])('refuses that %s imports %s', (file, specifier, reason) => {
    expect(whyForbidden(file, specifier, OPTIONS)).toMatch(reason);
  });
});

describe('the rule in this repository', () => {
  it('knows every folder of lib/ as a room', () => {
    const folders = readdirSync(path.join(ROOT, 'lib'), { withFileTypes: true }).filter((entry) => entry.isDirectory());
    for (const folder of folders) expect(ROOMS).toContain(folder.name);
  });

  it('is applied by `npm run lint`, to every way of importing', async () => {
    // Only this rule and its options, as eslint.config.js gives them for a file of the room.
    const configured = (await new ESLint({ cwd: ROOT }).calculateConfigForFile('lib/base/units.ts')) as {
      rules: Record<string, unknown>;
      plugins: Record<string, unknown>;
      languageOptions: { parser: unknown };
    };
    const eslint = new ESLint({
      cwd: ROOT,
      overrideConfigFile: true,
      baseConfig: {
        files: ['**/*.ts'],
        plugins: { vivarium: configured.plugins['vivarium'] as never },
        languageOptions: { parser: configured.languageOptions.parser },
        rules: { 'vivarium/rooms': configured.rules['vivarium/rooms'] as never },
      },
    });
    const text = [
      "import { a } from '../kvm/vm.js';",
      "import type { B } from '../kvm/vm.js';",
      "export { c } from '../kvm/vm.js';",
      "export * from '../kvm/vm.js';",
      "export const d = await import('../kvm/vm.js');",
      "export type E = import('../kvm/vm.js').Vm;",
      "require('bindings');",
      "import { ok } from './errors.js';",
    ].join('\n');
    const [result] = await eslint.lintText(text, { filePath: path.join(ROOT, 'lib/base/units.ts') });
    expect(result!.messages.map((message) => [message.line, message.ruleId])).toEqual(
      [1, 2, 3, 4, 5, 6, 7].map((line) => [line, 'vivarium/rooms']),
    );
  });
});
