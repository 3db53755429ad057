/**
 * `npm start`: setup, then a stock Debian kernel with a busybox shell on this terminal. Without a terminal on stdin it
 * boots, prints what the guest says of itself (kernel, CPUs, memory, clock), and exits with 0.
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { ROOT } from './lib/stamp.mjs';

const SELF_PORTRAIT = `
uname -a
echo "CPUs: $(nproc)"
echo "memory: $(sed -n 's/^MemTotal: *//p' /proc/meminfo)"
echo "clock: $(date -u '+%Y-%m-%d %H:%M:%S') UTC"
`;

const command = (file, args, stdio) =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [join(ROOT, file), ...args], { stdio });
    // Signals of the terminal reach the child by themselves; this process waits for what it makes of them.
    const ignored = ['SIGINT', 'SIGQUIT'];
    const handler = () => undefined;
    for (const signal of ignored) process.on(signal, handler);
    const passedOn = (signal) => child.kill(signal);
    process.on('SIGTERM', passedOn).on('SIGHUP', passedOn);
    child.once('error', (error) => {
      console.error(error.message);
      resolve(125);
    });
    child.once('exit', (code, signal) => {
      for (const name of ignored) process.off(name, handler);
      process.off('SIGTERM', passedOn).off('SIGHUP', passedOn);
      resolve(code ?? (signal === 'SIGINT' ? 130 : 143));
    });
  });

// Setup speaks on stderr, so that stdout is the guest's.
const setup = await command('scripts/setup.mjs', ['--for-run'], ['ignore', 2, 2]);
if (setup !== 0) process.exit(setup);

const main = 'dist/command/main.js';
const status = process.stdin.isTTY
  ? await command(main, ['run', ...process.argv.slice(2)], 'inherit')
  : await command(
      main,
      ['run', '--quiet', ...process.argv.slice(2), '--', 'sh', '-c', SELF_PORTRAIT],
      ['ignore', 1, 2],
    );
process.exit(status);
