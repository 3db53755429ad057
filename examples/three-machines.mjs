/**
 * Three machines on one switch, each in a process of its own: a command runs in each, the first is saved while it runs, and two
 * clones go on from there, each with random numbers of its own. `npm run setup` once, then `node examples/three-machines.mjs`;
 * where this machine's KVM can't run Linux, the embedded KVM host does.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const COMMAND = fileURLToPath(new URL('command/main.js', import.meta.resolve('vivarium')));

async function vivarium(...argv) {
  const { stdout } = await promisify(execFile)(process.execPath, [COMMAND, ...argv]);
  return stdout.trim();
}
const shell = (name, words) => vivarium('exec', '--wait', '240', name, '--', 'sh', '-c', words);

const lan = `lan-${process.pid}`;
const names = ['one', 'two', 'three'].map((name) => `${name}-${process.pid}`);
const clones = ['left', 'right'].map((name) => `${name}-${process.pid}`);
const folder = await mkdtemp(path.join(tmpdir(), 'three-machines-'));
try {
  await Promise.all(
    names.map((name) => vivarium('run', '-d', '--name', name, '--memory', '128M', '--nic', `switch:${lan}`)),
  );
  for (const [index, name] of names.entries()) {
    await shell(name, `ip addr add 10.7.0.${index + 1}/24 dev eth0`);
    console.log(`${name}: ${await shell(name, 'uname -sr')}`);
  }
  for (const name of names.slice(1)) await shell(name, 'ping -c 1 -W 20 10.7.0.1');
  console.log('two and three reach one');

  const saved = path.join(folder, 'one');
  await vivarium('snapshot', '--live', names[0], saved);
  for (const clone of clones) await vivarium('restore', '-d', '--name', clone, saved);
  const random = 'head -c 16 /dev/urandom | od -An -tx1 | tr -d " "';
  const numbers = await Promise.all([names[0], ...clones].map((name) => shell(name, random)));
  console.log(`random numbers: ${numbers.join(' ')}`);
  console.log(new Set(numbers).size === numbers.length ? 'no two are the same' : 'two are the same');
} finally {
  // One that never came to be has nothing to be killed.
  await Promise.all([...names, ...clones].map((name) => vivarium('kill', name).catch(() => undefined)));
  await rm(folder, { recursive: true, force: true });
}
