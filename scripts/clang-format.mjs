/**
 * Holds C and C++ (native/, guest/, test/) to .clang-format; with --fix it rewrites what differs.
 * Exit status 0: all is well; 1: something differs; 2: there is no clang-format 14 here, which the caller may take as a skip.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import process from 'node:process';

const WANTED_MAJOR = 14;

const version = spawnSync('clang-format', ['--version'], { encoding: 'utf8' });
const major = /version (\d+)/.exec(version.stdout ?? '')?.[1];
if (major !== String(WANTED_MAJOR)) {
  console.error(
    `clang-format ${WANTED_MAJOR} is wanted (apt-get install clang-format on Debian 12), found ${major ?? 'none'}`,
  );
  process.exit(2);
}

const files = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
  encoding: 'utf8',
})
  .split('\0')
  .filter((file) => /^(native|guest|bench|test)\/.*\.(c|cc|cpp|h|hpp)$/.test(file));
if (files.length === 0) process.exit(0);

const mode = process.argv.includes('--fix') ? ['-i'] : ['--dry-run', '--Werror'];
const run = spawnSync('clang-format', [...mode, '--style=file', ...files], { stdio: 'inherit' });
process.exit(run.status === 0 ? 0 : 1);
