/**
 * Makes the parts of a machine out of a snapshot, in order: configuration and devices, memory or its pager, a blank board that gets the
 * saved state. Until all of it is there nothing runs; what fails closes what was made.
 *
 *   plan -> devices (over whatever backends) -> memory: loaded, or served page by page -> board -> state -> clocks run
 */
import { VmmError } from '../../base/errors.js';
import { untilAborted } from '../../base/turn-queue.js';
import type { RtcBattery } from '../../chipset/index.js';
import { ramRanges } from '../../boot/index.js';
import { Kvm } from '../../kvm/index.js';
import {
  AddressSpace,
  type CloneMembership,
  type GuestPager,
  joinClones,
  userFaultSupport,
} from '../../memory/index.js';
import { Board, type BoardListener } from '../board.js';
import { requireLinuxSupport } from '../linux-support.js';
import { MachineDevices } from '../machine-devices.js';
import type { RestoredTime } from '../machine-pit.js';
import { restoreBoard } from '../state/board-state.js';
import type { SnapshotMemory } from './machine-memory.js';
import type { RestoreCost, RestoreOptions, RestorePhases } from './options.js';
import { planRestore, type RestorePlan } from './restore-plan.js';

export interface RestoreParts {
  readonly startNs: bigint;
  readonly plan: RestorePlan;
  readonly kvm: Kvm;
  readonly space: AddressSpace;
  readonly devices: MachineDevices;
}

/** A group that was used at least this much is brought in before the others: it was touched in the last life but one, or later. */
const HOT = 128;

/** @throws as Machine.restore */
export async function openRestore(dir: string, options: RestoreOptions): Promise<RestoreParts> {
  const startNs = process.hrtime.bigint();
  const plan = await planRestore(dir, options);
  const { config } = plan;
  let kvm: Kvm | undefined;
  let space: AddressSpace | undefined;
  try {
    kvm = Kvm.open();
    if (config.cpus > kvm.maxVcpus()) {
      throw new VmmError('ERR_SNAPSHOT_HOST', `the machine has ${config.cpus} CPUs; this KVM allows ${kvm.maxVcpus()}`);
    }
    if (plan.kind !== 'flat') await requireLinuxSupport(kvm);
    const clone = membership(plan, options);
    space = new AddressSpace({ ranges: ramRanges(config.memoryBytes), backing: config.memoryBacking, clone });
    const { name, disks, nics, consolePorts, entropy, clock, logger } = config;
    const lent = { name, disks, nics, consolePorts, entropy, clock, logger, signal: options.signal };
    const devices = await MachineDevices.open({ ...lent, memory: space });
    try {
      for (const [id, changes] of plan.changes) devices.fillDisk(id, changes);
      devices.restoreState(plan.lent);
    } catch (error) {
      await devices.close().catch(() => undefined);
      await devices.release(space);
      space = undefined;
      throw error;
    }
    return { startNs, plan, kvm, space, devices };
  } catch (error) {
    space?.close();
    kvm?.close();
    await plan.abandon();
    throw error;
  }
}

/** @throws VmmError ERR_SNAPSHOT_HOST where memory is to be shared and this host can't. */
function membership({ reader, config }: RestorePlan, options: RestoreOptions): CloneMembership {
  const { lazy } = userFaultSupport('store');
  const lack = config.memoryBacking === 'memfd' ? { name: 'anonymous memory', cure: 'share: false' } : lazy;
  if (options.share === true && lack !== undefined) {
    throw new VmmError('ERR_SNAPSHOT_HOST', `memory can not be shared: this machine lacks ${lack.name}`, {
      cure: lack.cure,
    });
  }
  const share = lack !== undefined || options.memory === 'eager' ? (options.share ?? false) : options.share;
  return joinClones(reader.memoryKey, {
    share,
    source: reader.source().native.source(),
    sizeBytes: config.memoryBytes,
  });
}

/** Of a machine whose board was never made. */
export async function closeRestore({ plan, kvm, devices, space }: RestoreParts, memory: SnapshotMemory): Promise<void> {
  await devices.close().catch(() => undefined);
  memory.close();
  await devices.release(space);
  kvm.close();
  await plan.abandon();
}

export interface RestoredOn {
  readonly board: Board;
  readonly time: RestoredTime;
  readonly phases: { readonly all: RestorePhases; ready(): void; fail(error: unknown): void };
}

/** @throws as Machine.restore; the board is closed then. */
export async function restoreOn(
  { startNs, plan, kvm, space, devices }: RestoreParts,
  memory: SnapshotMemory,
  options: RestoreOptions,
  machine: { readonly listener: BoardListener; readonly battery: RtcBattery },
): Promise<RestoredOn> {
  const { config, reader } = plan;
  const { clock = 'step', track = true, mask = false, signal, onProgress } = options;
  const how = options.memory ?? (userFaultSupport(space.backing).lazy === undefined ? 'lazy' : 'eager');
  let pager: GuestPager | undefined;
  if (how === 'lazy' || space.backing === 'store') {
    pager = memory.pager();
    // All else is filled in when the restore is over: the board, and the first instruction of a guest that is started with it, would
    // have to share the CPUs with that.
    pager.serve(reader.source().native.source(), { hot: hotGroups(reader.access), fill: how === 'eager' });
    memory.serveLazily(pager, reader.access);
    if (how === 'eager') await untilAborted(pager.complete(), signal);
  } else {
    await reader.loadAll(space, { fresh: true, signal, onProgress, clock: config.clock });
  }
  const phases = restorePhases(startNs, pager, () => reader.close());
  const { listener, battery } = machine;
  const proxies = () => devices.makeProxies();
  const board = await Board.create(kvm, config, space, listener, {
    battery,
    proxies,
    blank: true,
    logDirty: track,
    signal,
  });
  try {
    memory.attach(board.vm);
    // Before anything of it is written: KVM does so when it gets its clocks.
    if (track) memory.lineage().adopt(reader.id, memory.lineage().begin());
    const context = { kvm, clock: config.clock, pci: board.pci };
    const { time, notes } = restoreBoard(board, plan.board, context, { mode: clock, memory: space, mask });
    for (const note of notes) config.logger.log('info', note);
    // It may be one of several now, whose random numbers must not be the same.
    if (plan.kind !== 'flat') board.chipset.generation.renew();
    return { board, time, phases };
  } catch (error) {
    await board.close();
    throw error;
  }
}

/** The groups that were used most, the most used first. */
function hotGroups(access: Uint16Array | undefined): Uint32Array {
  if (access === undefined) return new Uint32Array();
  const hot = [...access.keys()].filter((group) => access[group]! >= HOT);
  return Uint32Array.from(hot.sort((a, b) => access[b]! - access[a]!));
}

function restorePhases(startNs: bigint, pager: GuestPager | undefined, onComplete: () => Promise<void>) {
  const cost = (more: object = {}): RestoreCost => ({ ms: Number(process.hrtime.bigint() - startNs) / 1e6, ...more });
  let resolveRunning!: () => void;
  let fail!: (error: unknown) => void;
  const running = new Promise<void>((resolve, reject) => {
    resolveRunning = resolve;
    fail = reject;
  }).then(() => cost());
  const hotLoaded = pager ? pager.hotLoaded().then(cost) : running;
  const complete = (pager ? pager.complete().then(cost) : running).finally(onComplete);
  // Whoever wants to know asks; a machine that fails by it says so itself.
  for (const phase of [running, hotLoaded, complete]) phase.catch(() => undefined);
  const all: RestorePhases = { running, hotLoaded, complete };
  const ready = (): void => {
    pager?.fill();
    resolveRunning();
  };
  return { all, ready, fail };
}
