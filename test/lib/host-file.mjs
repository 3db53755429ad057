/**
 * Many reads and writes at a time of one file of the machine outside, by the engine that machines have: inside the embedded host that
 * is a file system whose calls the kernel interrupts. Prints how many requests there were, and what went wrong.
 */
import { closeSync, constants, openSync, writeFileSync } from 'node:fs';

const library = (path) => import(new URL(path, import.meta.resolve('vivarium')));
const { AddressSpace } = await library('memory/address-space.js');
const { NativeIoEngine } = await library('memory/native-io-engine.js');
const { GuestVector } = await library('memory/io-vector.js');

const MIB = 2 ** 20;
const FILE_BYTES = 4 * MIB;
const DEPTH = 16;
const SECTOR = 512;
const { file, requests } = JSON.parse(process.argv[2]);

// Each worker has its own sectors of the file and its own memory; each sector holds its number.
const numbered = (first, count) => {
  const words = new Uint32Array((count * SECTOR) / 4);
  for (let sector = 0; sector < count; sector++) words[(sector * SECTOR) / 4] = first + sector;
  return new Uint8Array(words.buffer);
};
writeFileSync(file, numbered(0, FILE_BYTES / SECTOR));
const space = new AddressSpace({ ranges: [{ gpa: 0, sizeBytes: 16 * MIB }] });
const engine = new NativeIoEngine(space);
// The thread that submits does such reads itself: its signals interrupt them.
const fd = openSync(file, constants.O_RDWR | constants.O_NONBLOCK);
const wrong = [];
const perWorker = FILE_BYTES / SECTOR / DEPTH;

async function work(worker) {
  const gpa = worker * MIB;
  // Requests come in turns of the event loop, as a guest's do.
  const turnOfLoop = () => new Promise((resolve) => setImmediate(resolve));
  for (let turn = 0; turn < requests / DEPTH; turn++) {
    await turnOfLoop();
    const count = 1 + ((turn * 7) % 48);
    const sector = worker * perWorker + ((turn * 31) % (perWorker - count));
    const bytes = count * SECTOR;
    const call = turn % 4 === 3 ? 'write' : 'read';
    const wanted = numbered(sector, count);
    space.write(gpa, call === 'write' ? wanted : new Uint8Array(bytes));
    const result = await new Promise((resolve) =>
      engine[call](fd, sector * SECTOR, new GuestVector(space, [gpa], [bytes]), resolve),
    );
    if (turn % 8 === worker % 8) {
      const synced = await new Promise((resolve) => engine.sync(fd, resolve));
      if (synced !== 0) wrong.push(`sync: ${synced}`);
    }
    if (result !== bytes) wrong.push(`${call} of ${bytes} bytes: ${result}`);
    else if (Buffer.compare(space.read(gpa, bytes), wanted) !== 0)
      wrong.push(`${call} at sector ${sector}: other bytes`);
  }
}

await Promise.all(Array.from({ length: DEPTH }, (_, worker) => work(worker)));
await engine.close();
closeSync(fd);
console.log(JSON.stringify({ engine: engine.kind, wrong }));
space.close();
