/**
 * Finding and running tools for the set-up scripts: plain Node, since they run before anything is built.
 */
import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, join } from 'node:path';
import { ROOT } from './stamp.mjs';

/** The path of the first of `names` that is on PATH (or where root's tools are), if there is one. */
export function findTool(...names) {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'].filter(
    (folder) => folder !== '',
  );
  for (const name of names) {
    for (const folder of folders) {
      try {
        accessSync(join(folder, name), constants.X_OK);
        return join(folder, name);
      } catch {
        // Not here: the next folder.
      }
    }
  }
  return undefined;
}

/** The file of a module that npm installed for us, wherever it put it; undefined when it is not there. */
export function findModule(specifier) {
  try {
    return createRequire(join(ROOT, 'package.json')).resolve(specifier);
  } catch {
    return undefined;
  }
}

/** Runs a tool in the package's folder; resolves to its status and everything it said. */
export function run(file, args, { env = {} } = {}) {
  return new Promise((resolve) => {
    const child = spawn(file, args, { cwd: ROOT, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    const take = (text) => (output += text);
    child.stdout.setEncoding('utf8').on('data', take);
    child.stderr.setEncoding('utf8').on('data', take);
    child.once('error', (error) => resolve({ status: 127, output: error.message }));
    child.once('close', (code) => resolve({ status: code ?? 1, output }));
  });
}

/** The last lines of a tool's output, indented, for an error. */
export function lastLines(output, count = 25) {
  return output
    .trimEnd()
    .split('\n')
    .slice(-count)
    .map((line) => `    ${line}`)
    .join('\n');
}
