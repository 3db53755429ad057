/**
 * What a machine costs in resident memory beyond the memory of its guest: the first one, and each of 20 more in the same
 * process. All run and sleep. Guest memory is a memfd here, so that /proc/self/smaps tells its pages from ours.
 */
import { readFileSync } from 'node:fs';
import v8 from 'node:v8';
import vm from 'node:vm';
import { Machine } from '#lib/index.js';
import type { Bench } from './lib/bench.js';
import { GUEST_ADDRESS, MARK_PORT, sleeper } from './lib/guests.js';
import { Marks } from './lib/marks.js';
import { summarise } from './lib/stats.js';

const MORE_MACHINES = 20;
const MIB = 1024 * 1024;

export const bench: Bench = {
  name: 'memory',
  stage: 'flat',
  about: `resident memory beyond guest memory, of one machine and of each of ${MORE_MACHINES} more; to reach: 5 MiB each`,
  async run({ progress }) {
    // The first machine also pays for the addon and the library, which a process loads once.
    const before = residentBeyondGuests();
    const first = await sleepingMachine(0);
    const afterFirst = residentBeyondGuests();
    progress(`first machine: ${((afterFirst - before) / MIB).toFixed(2)} MiB`);
    const machines = [first];
    const steps: number[] = [];
    let last = afterFirst;
    for (let index = 1; index <= MORE_MACHINES; index++) {
      machines.push(await sleepingMachine(index));
      const now = residentBeyondGuests();
      steps.push((now - last) / MIB);
      last = now;
    }
    await Promise.all(machines.map((machine) => machine.close()));
    const afterClose = residentBeyondGuests();
    return {
      metrics: {
        processBeforeMiB: mib(before),
        firstMachineMiB: mib(afterFirst - before),
        furtherMachineMiB: summarise(steps),
        furtherMachineMeanMiB: mib((last - afterFirst) / MORE_MACHINES),
        leftAfterCloseMiB: mib(afterClose - before),
      },
      peers: {},
      runs: 1 + MORE_MACHINES,
    };
  },
};

async function sleepingMachine(index: number): Promise<Machine> {
  const marks = new Marks();
  const machine = await Machine.create({
    name: `sleeper-${index}`,
    memory: '128MiB',
    memoryBacking: 'memfd',
    boot: { flat: sleeper, address: GUEST_ADDRESS, mode: 'real16' },
    portDevices: [{ firstPort: MARK_PORT, portCount: 1, device: marks }],
  });
  await machine.start();
  await marks.reached(1);
  return machine;
}

/** The collector by its own name, however this process was started. */
v8.setFlagsFromString('--expose-gc');
const collectGarbage = vm.runInNewContext('gc') as () => void;

/** Resident bytes of this process without the pages of memfds, after a collection. */
function residentBeyondGuests(): number {
  collectGarbage();
  collectGarbage();
  let resident = 0;
  let inGuest = false;
  for (const line of readFileSync('/proc/self/smaps', 'utf8').split('\n')) {
    const rss = /^Rss:\s+(\d+) kB/.exec(line);
    if (rss) {
      if (!inGuest) resident += Number(rss[1]) * 1024;
    } else if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) {
      inGuest = line.includes('/memfd:');
    }
  }
  return resident;
}

function mib(bytes: number): number {
  return Number((bytes / MIB).toFixed(2));
}
