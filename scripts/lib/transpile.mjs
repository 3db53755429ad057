/**
 * TypeScript programs of this repository outside lib/, made ready to run on the oldest Node that is supported: types are
 * stripped file by file into build/, under the same paths. Types are checked by `npm run types`, not here.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import ts from 'typescript';
import { ROOT } from './stamp.mjs';

/** Strips the files of each folder (not of those in it); the result is the folder that holds them. */
export function transpile(...folders) {
  const target = path.join(ROOT, 'build');
  for (const folder of folders) {
    rmSync(path.join(target, folder), { recursive: true, force: true });
    mkdirSync(path.join(target, folder), { recursive: true });
    for (const file of readdirSync(path.join(ROOT, folder)).filter((entry) => entry.endsWith('.ts'))) {
      const { outputText } = ts.transpileModule(readFileSync(path.join(ROOT, folder, file), 'utf8'), {
        compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true },
        fileName: file,
      });
      writeFileSync(path.join(target, folder, file.replace(/\.ts$/, '.js')), outputText);
    }
  }
  return target;
}

/** The programs import the built package; without it there is nothing to run. */
export function requireBuild() {
  if (existsSync(path.join(ROOT, 'dist/index.js'))) return;
  console.error('dist/ is missing: run `npm run build` first');
  process.exit(1);
}
