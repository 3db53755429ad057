/**
 * `npm run ok`, the one gate: builds the addon and the library, then goes through all of `npm test`, which holds format,
 * lint with the layer rule, types, clang-format, every group of tests, the checks of the documents and the examples.
 */
import process from 'node:process';
import { command } from './test/run.mjs';

for (const [program, args] of [
  [process.execPath, ['node_modules/cmake-js/bin/cmake-js', 'compile']],
  [process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json']],
  [process.execPath, ['scripts/test.mjs', ...process.argv.slice(2)]],
]) {
  const { status } = await command(program, args, { limitS: 3600 });
  if (status !== 0) process.exit(status);
}
