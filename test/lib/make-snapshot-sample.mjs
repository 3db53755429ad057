/**
 * Makes the sample of snapshots in test/corpus/snapshots/VERSION, by hand and once for each version of the format or of a part in it: one of
 * a flat machine with every class of device, and a difference to it. Its guest is test/guests/pit-halts.S. A sample that is there stays,
 * since it shows that what was written before can be read.
 *
 *   npm run build && node test/lib/make-snapshot-sample.mjs NEW-FOLDER
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as delay } from 'node:timers/promises';
import { callbackConsole, Machine, memoryDisk, networkSwitch } from 'vivarium';

const folder = path.resolve(process.argv[2]);
const address = 0x1_0000;
const TICKS = 0x600;

/** As test/lib/assemble.ts does. */
function assemble(name, defines) {
  const scratch = mkdtempSync(path.join(tmpdir(), 'vivarium-sample-'));
  const guests = path.join(import.meta.dirname, '../guests');
  const [object, flat] = ['guest.o', 'guest.bin'].map((file) => path.join(scratch, file));
  const symbols = Object.entries(defines).flatMap(([symbol, value]) => ['--defsym', `${symbol}=${value}`]);
  execFileSync('as', ['--64', '-I', guests, ...symbols, '-o', object, path.join(guests, `${name}.S`)]);
  const format = ['-m', 'elf_x86_64', `-Ttext=${address}`, '-e', String(address), '--oformat', 'binary'];
  execFileSync('ld', [...format, '-o', flat, object]);
  const bytes = readFileSync(flat);
  rmSync(scratch, { recursive: true });
  return new Uint8Array(bytes);
}

mkdirSync(folder);
const vm = await Machine.create({
  name: 'sample',
  memory: '1MiB',
  debugExit: true,
  boot: { flat: assemble('pit-halts', { COUNT: 4773, PIN: 255 }), address, mode: 'long64' },
  disks: [
    { id: 'disk', backend: memoryDisk('1MiB'), limits: { operationsPerSecond: 1000 } },
    { id: 'kept', backend: memoryDisk('1MiB'), copyOnWrite: '1MiB' },
  ],
  nics: [{ id: 'net', backend: networkSwitch('sample'), mac: '02:00:00:00:00:5a' }],
  consolePorts: [{ id: 'port', backend: callbackConsole(() => undefined) }],
  entropy: true,
});
const ticks = () => new DataView(vm.memory.read(TICKS, 4).buffer).getUint32(0, true);
await vm.start();
for (const [name, parent] of [['base'], ['child', path.join(folder, 'base')]]) {
  const from = ticks();
  while (ticks() < from + 100) await delay(20);
  // Work of its own, so that there is something to catch up with.
  await vm.snapshot(path.join(folder, name), { mode: 'paused', ...(parent ? { parent } : {}) });
}
await vm.close();
process.exit(0);
