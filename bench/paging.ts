/**
 * What it costs to take dirty pages, to protect guest memory at an instant, and to hand it over while a ring-3 guest
 * writes at full speed; and how long the first instruction of a lazy restore waits. Groups go to and come from memory,
 * so that no disk is measured.
 */
import { Cap } from '#lib/abi/kvm.js';
import { loadFlat } from '#lib/boot/flat.js';
import { ramRanges } from '#lib/boot/index.js';
import { loadBinding } from '#lib/kvm/binding.js';
import { Kvm, type Vcpu, type Vm } from '#lib/kvm/index.js';
import { AddressSpace, DirtyEpochs, GuestPager, KvmDirtyLog, OwnDirtyLog, WriteIntercept } from '#lib/memory/index.js';
import type { Bench } from './lib/bench.js';
import { PAGE_WRITER_GPA, pageWriter } from './lib/guests.js';
import { summarise, type Summary } from './lib/stats.js';

const MIB = 1024 * 1024;
const SIZES_MIB = [1024, 4096];
/** The guest goes round in this much of it. */
const WINDOW_BYTES = 256 * MIB;
const IMAGE_GPA = 0x10000;

export const bench: Bench = {
  name: 'paging',
  stage: 'flat',
  about: 'dirty epochs, write protection at an instant and lazy memory; to reach: a stop of at most 10 ms at 1 GiB',
  async run({ runs = 5, progress }) {
    // A vCPU alone keeps no event loop alive.
    loadBinding().dispatcher.runtime.ref();
    const metrics: Record<string, Summary | number> = {};
    for (const sizeMiB of SIZES_MIB) {
      for (const hugePages of [true, false]) {
        const key = `at${sizeMiB}MiB${hugePages ? 'Huge' : 'Small'}`;
        progress(key);
        Object.assign(metrics, await measure(key, sizeMiB * MIB, hugePages, runs, progress));
      }
    }
    loadBinding().dispatcher.runtime.unref();
    return { metrics, peers: {}, runs };
  },
};

async function measure(
  key: string,
  sizeBytes: number,
  hugePages: boolean,
  runs: number,
  progress: (line: string) => void,
) {
  const kvm = Kvm.open();
  const memory = new AddressSpace({ ranges: ramRanges(sizeBytes), hugePages });
  const target = new AddressSpace({ ranges: ramRanges(sizeBytes), hugePages: true });
  for (const { gpa, sizeBytes: length } of memory.ranges) {
    for (const one of [memory, target]) for (let at = 0; at < length; at += MIB) one.fill(gpa + at, 1, MIB);
  }
  progress('  memory is there');
  const { vm, vcpu } = await guestOn(kvm, memory);
  const samples = new Map<string, number[]>();
  const note = (name: string, value: number) => {
    const list = samples.get(name) ?? [];
    list.push(value);
    samples.set(name, list);
  };

  const epochs = new DirtyEpochs(sizeBytes / 4096);
  epochs.addSource(new KvmDirtyLog(vm, memory));
  epochs.addSource(new OwnDirtyLog(memory));
  vcpu.resume();
  for (let run = 0; run < runs; run++) {
    await rest();
    note(
      'logOnMs',
      timed(() => void (consumer = epochs.consumer('bench'))),
    );
    await rest();
    note(
      'takeMs',
      timed(() => void consumer?.take()),
    );
    await vcpu.park();
    note(
      'takeQuietMs',
      timed(() => void consumer?.take()),
    );
    vcpu.resume();
    note(
      'logOffMs',
      timed(() => consumer?.close()),
    );
  }

  progress('  epochs done');
  const pager = new GuestPager(memory);
  const groups = new (loadBinding().addon.MemoryGroups)(target.native);
  const intercept = new WriteIntercept(pager);
  for (let run = 0; run < runs; run++) {
    for (const armed of [false, true]) {
      const name = armed ? 'Armed' : '';
      await rest();
      note(
        'prepareMs',
        timed(() => intercept.prepare()),
      );
      if (armed) {
        const armMs = performance.now();
        await intercept.arm();
        note('armMs', performance.now() - armMs);
        await rest();
      }
      const stoppedMs = performance.now();
      await vcpu.park();
      intercept.begin(groups.sink());
      const before = Number(vcpu.getRegs().rax);
      vcpu.resume();
      note(`stop${name}Ms`, performance.now() - stoppedMs);
      intercept.walk();
      const stats = await intercept.ended();
      const walkedMs = performance.now() - stoppedMs;
      note(`protect${name}Ms`, stats.protectNs / 1e6);
      note(`walk${name}MiBPerSecond`, sizeBytes / MIB / (walkedMs / 1000));
      note(`guest${name}PagesPerSecond`, ((await pagesWritten(vcpu)) - before) / (walkedMs / 1000));
      if (stats.faults > 0) note(`fault${name}Us`, stats.faultNs / stats.faults / 1000);
      note(`faultMax${name}Us`, stats.faultMaxNs / 1000);
      note(
        `releaseMs`,
        timed(() => intercept.release()),
      );
    }
  }
  progress('  intercepts done');
  const atRest = await pagesWritten(vcpu);
  const restMs = await timedAsync(rest);
  note('guestUndisturbedPagesPerSecond', ((await pagesWritten(vcpu)) - atRest) / (restMs / 1000));
  await vcpu.park();
  const state = { regs: vcpu.getRegs(), sregs: vcpu.getSregs() };
  await vm.close();
  pager.close();
  for (const { gpa, sizeBytes: length } of memory.ranges) {
    for (let at = 0; at < length; at += MIB) target.write(gpa + at, memory.read(gpa + at, MIB));
  }
  memory.close();

  for (let run = 0; run < runs; run++) {
    const startedMs = performance.now();
    const lazy = new AddressSpace({ ranges: ramRanges(sizeBytes), hugePages });
    const lazyPager = new GuestPager(lazy);
    lazyPager.serve(groups.source());
    const next = await guestOn(kvm, lazy, state);
    lazyPager.guard(next.vm);
    next.vcpu.resume();
    const from = Number(state.regs.rax);
    while (Number(new BigUint64Array(lazy.read(nextPage(from), 8).buffer)[0]) < from) await turn();
    note('lazyFirstWriteMs', performance.now() - startedMs);
    const cost = await lazyPager.complete();
    note('lazyFillMiBPerSecond', sizeBytes / MIB / ((performance.now() - startedMs) / 1000));
    note('lazyFaultUs', cost.faultNs / cost.faults / 1000);
    await next.vm.close();
    lazyPager.close();
    lazy.close();
  }
  target.close();
  kvm.close();
  return Object.fromEntries(
    [...samples].map(([name, list]) => [`${key}${name[0]!.toUpperCase()}${name.slice(1)}`, summarise(list)]),
  );
}

let consumer: ReturnType<DirtyEpochs['consumer']> | undefined;

interface State {
  readonly regs: ReturnType<Vcpu['getRegs']>;
  readonly sregs: ReturnType<Vcpu['getSregs']>;
}

async function guestOn(kvm: Kvm, memory: AddressSpace, from?: State): Promise<{ vm: Vm; vcpu: Vcpu }> {
  const vm = await kvm.createVm();
  if (vm.checkExtension(Cap.SET_TSS_ADDR) > 0) vm.setTssAddress(0xfffbd000);
  vm.createIrqchip();
  await memory.attach(vm);
  const vcpu = vm.createVcpu(0, 'paging');
  vcpu.setCpuid(kvm.supportedCpuid());
  if (from === undefined) {
    const start = loadFlat(memory, pageWriter(WINDOW_BYTES / 4096), { address: IMAGE_GPA, mode: 'long64' });
    vcpu.setSregs({ ...vcpu.getSregs(), ...start.sregs });
    vcpu.setRegs(start.regs);
  } else {
    vcpu.setSregs(from.sregs);
    vcpu.setRegs(from.regs);
  }
  return { vm, vcpu };
}

function nextPage(value: number): number {
  return PAGE_WRITER_GPA + ((value - 1) % (WINDOW_BYTES / 4096)) * 4096;
}

/** How many pages the guest has written so far. */
async function pagesWritten(vcpu: Vcpu): Promise<number> {
  await vcpu.park();
  const next = vcpu.getRegs().rax;
  vcpu.resume();
  return Number(next);
}

function timed(work: () => void): number {
  const startedMs = performance.now();
  work();
  return performance.now() - startedMs;
}

async function timedAsync(work: () => Promise<void>): Promise<number> {
  const startedMs = performance.now();
  await work();
  return performance.now() - startedMs;
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
const rest = () => new Promise<void>((resolve) => setTimeout(resolve, 200));
