/**
 * `npm run bench -- NAME [--json] [--save] [--runs N]`: runs bench/NAME.ts against the built package (dist/ and the
 * addon). The programs are TypeScript; their types are stripped file by file into build/bench/, which takes no check of
 * types (`npm run types` does that) and no second build of the library.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import ts from 'typescript';

const ROOT = path.resolve(import.meta.dirname, '..');
const SOURCE = path.join(ROOT, 'bench');
const TARGET = path.join(ROOT, 'build/bench');

const names = readdirSync(SOURCE)
  .filter((file) => file.endsWith('.ts'))
  .map((file) => file.slice(0, -'.ts'.length));

const name = process.argv.slice(2).find((argument) => !argument.startsWith('-'));
if (name === undefined || !names.includes(name)) {
  console.error(`usage: npm run bench -- NAME [--json] [--save] [--runs N]\nNAME is one of: ${names.join(', ')}`);
  process.exit(2);
}
if (!existsSync(path.join(ROOT, 'dist/index.js'))) {
  console.error('dist/ is missing: run `npm run build` first');
  process.exit(1);
}

const peers = spawnSync(
  process.execPath,
  [path.join(ROOT, 'node_modules/cmake-js/bin/cmake-js'), 'compile', '-d', 'bench/native', '--log-level', 'warn'],
  { cwd: ROOT, encoding: 'utf8' },
);
if (peers.status !== 0) {
  console.error(`bench/native does not build:\n${peers.stdout}${peers.stderr}`);
  process.exit(1);
}

rmSync(TARGET, { recursive: true, force: true });
for (const folder of ['', 'lib']) {
  mkdirSync(path.join(TARGET, folder), { recursive: true });
  for (const file of readdirSync(path.join(SOURCE, folder)).filter((entry) => entry.endsWith('.ts'))) {
    const { outputText } = ts.transpileModule(readFileSync(path.join(SOURCE, folder, file), 'utf8'), {
      compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true },
      fileName: file,
    });
    writeFileSync(path.join(TARGET, folder, file.replace(/\.ts$/, '.js')), outputText);
  }
}

const run = spawnSync(process.execPath, [path.join(TARGET, 'lib/main.js'), ...process.argv.slice(2)], {
  cwd: ROOT,
  stdio: 'inherit',
});
process.exit(run.status ?? 1);
