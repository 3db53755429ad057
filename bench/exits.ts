/**
 * PIO exits a second of one vCPU: (a) a plain C loop around KVM_RUN in this process, (b) answered by the vCPU's thread
 * from a published value, (c) handled by a TypeScript device. The guest's loop is the same bytes in all three, but for
 * the port. Also what a process with an idle machine uses of a CPU, right after it was busy: polling must end.
 */
import { Machine } from '#lib/index.js';
import type { Bench } from './lib/bench.js';
import { GUEST_ADDRESS, MARK_PORT, readLoop, sleeper } from './lib/guests.js';
import { Answering, Marks } from './lib/marks.js';
import { plainExits } from './lib/native-peers.js';
import { pairedRatio, summarise } from './lib/stats.js';

const EXITS = 20_000;
const DEFAULT_RUNS = 11;
/** The line status register of the first serial port: the 16550 publishes it. */
const PUBLISHED_PORT = 0x3fd;
const SCRIPT_PORT = 0x720;

export const bench: Bench = {
  name: 'exits',
  stage: 'flat',
  about:
    'PIO exits a second; to reach: answered natively within 1.15 of a plain C loop in cost, in TypeScript within 2',
  async run({ runs = DEFAULT_RUNS, progress }) {
    const plainUs: number[] = [];
    const nativeUs: number[] = [];
    const scriptUs: number[] = [];
    // One round that is not counted: code is compiled, pages are touched.
    for (let round = -1; round < runs; round++) {
      const plain = plainExits(readLoop(SCRIPT_PORT, EXITS), EXITS);
      const native = await machineExits(PUBLISHED_PORT, 'native');
      const script = await machineExits(SCRIPT_PORT, 'script');
      if (round < 0) continue;
      plainUs.push(plain);
      nativeUs.push(native);
      scriptUs.push(script);
      progress(
        `round ${round + 1}: plain ${plain.toFixed(2)} us, native ${native.toFixed(2)}, script ${script.toFixed(2)}`,
      );
    }
    const perSecond = (us: number[]) => summarise(us.map((cost) => 1e6 / cost));
    return {
      metrics: {
        nativeUs: summarise(nativeUs),
        nativePerSecond: perSecond(nativeUs),
        nativeRatio: pairedRatio(nativeUs, plainUs),
        scriptUs: summarise(scriptUs),
        scriptPerSecond: perSecond(scriptUs),
        scriptRatio: pairedRatio(scriptUs, plainUs),
        idleCpuPercent: await idleCpuPercent(),
      },
      peers: { plainC: { exitUs: summarise(plainUs), perSecond: perSecond(plainUs) } },
      runs,
    };
  },
};

/** Microseconds for one exit of a machine's guest, the guest's loop around it included. */
async function machineExits(port: number, by: 'native' | 'script'): Promise<number> {
  const marks = new Marks();
  const answering = new Answering();
  const machine = await Machine.create({
    memory: '1MiB',
    debugExit: true,
    boot: { flat: readLoop(port, EXITS), address: GUEST_ADDRESS, mode: 'real16' },
    portDevices: [
      { firstPort: MARK_PORT, portCount: 1, device: marks },
      { firstPort: SCRIPT_PORT, portCount: 1, device: answering },
    ],
  });
  try {
    await machine.start();
    const status = await machine.wait();
    if (status.reason !== 'debug-exit' || marks.count !== 2) {
      throw new Error(`the guest ended by ${status.reason} after ${marks.count} marks: ${status.detail ?? ''}`);
    }
    if (answering.reads !== (by === 'script' ? EXITS : 0))
      throw new Error(`${answering.reads} reads reached the device`);
    return marks.betweenNs(0, 1) / 1000 / EXITS;
  } finally {
    await machine.close();
  }
}

/** CPU time of the whole process in per cent of one CPU over a second in which its guest sleeps. */
async function idleCpuPercent(): Promise<number> {
  const marks = new Marks();
  const machine = await Machine.create({
    memory: '1MiB',
    boot: { flat: sleeper, address: GUEST_ADDRESS, mode: 'real16' },
    portDevices: [{ firstPort: MARK_PORT, portCount: 1, device: marks }],
  });
  try {
    await machine.start();
    await marks.reached(1);
    const before = process.cpuUsage();
    const startedNs = process.hrtime.bigint();
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const { user, system } = process.cpuUsage(before);
    const elapsedUs = Number(process.hrtime.bigint() - startedNs) / 1000;
    return Number((((user + system) / elapsedUs) * 100).toFixed(2));
  } finally {
    await machine.close();
  }
}
