/**
 * Saves a machine: joins the way to save (snapshot/save.ts) with the machine, its dirty lineage, its pager and the writer of the
 * folder. One at a time; whatever ends it early, the machine goes on and nothing of the snapshot is left.
 */
import { AbortError, VmmError } from '../../base/errors.js';
import type { Clock, Timer } from '../../base/clock.js';
import { untilAborted } from '../../base/turn-queue.js';
import { PAGE_SIZE } from '../../base/units.js';
import {
  type AddressSpace,
  type GuestPager,
  groupRuns,
  type InterceptStats,
  requireIntercept,
  WriteIntercept,
} from '../../memory/index.js';
import { meter } from '../../snapshot/progress.js';
import { GROUP_BYTES, SnapshotReader, SnapshotWriter } from '../../snapshot/index.js';
import {
  type DirtyGroups,
  type GroupIntercept,
  type GroupWriter,
  type Saved,
  saveInstant,
  saveLive,
  savePaused,
} from '../../snapshot/save.js';
import { type DirtyLineage, type Epoch, groupsOf } from './dirty-lineage.js';
import type { Snapshot, SnapshotOptions } from './options.js';
import { MachineSubject, requireSavable, type SubjectMachine } from './subject.js';
import { MachineThrottle } from './throttle.js';

export interface SaveMachine extends SubjectMachine {
  /** Fires when the machine ends. */
  readonly ended: AbortSignal;
  space(): AddressSpace;
  lineage(): DirtyLineage;
  /** Made when it is first needed. @throws VmmError ERR_SNAPSHOT_HOST */
  pager(): GuestPager;
  /** Resolves when all memory is there: at once but during a lazy restore. @throws VmmError ERR_PAGER */
  whole(): Promise<void>;
  /** For each group how often it was used; undefined where nobody counted. */
  access(): Uint16Array | undefined;
}

/** @throws as Machine.snapshot */
export async function saveMachine(machine: SaveMachine, dir: string, options: SnapshotOptions): Promise<Snapshot> {
  const { mode = 'live', compress, maxPauseMs, track = true, signal, onProgress } = options;
  const { clock } = machine.config;
  requireSavable(machine.config);
  const startNs = clock.nowNs();
  const space = machine.space();
  if (mode === 'instant') requireIntercept(space.backing);
  // The intercept brings in what is missing; the other ways read all of memory themselves.
  else await untilAborted(machine.whole(), signal);
  const lineage = machine.lineage();
  const parentId = options.parent === undefined ? undefined : await parentOf(options.parent, lineage);
  const parentDir = options.parent;
  const writer = await SnapshotWriter.create(dir, { memory: space, compress, parent: parentDir, signal, clock });
  let epoch: Epoch | undefined;
  let subject: MachineSubject | undefined;
  try {
    subject = new MachineSubject(machine, {
      generation: writer.id,
      folder: writer.draftFolder,
      onInstant: () => {
        if (epoch !== undefined) lineage.drop(epoch);
        epoch = track ? lineage.begin() : undefined;
      },
    });
    const changed =
      parentId === undefined ? undefined : (): Uint32Array => lineage.changedSince(parentId, parentDir ?? '');
    const common = { subject, writer: groupWriter(writer, onProgress), clock, maxPauseMs, changed };
    // What is written in a stop, or over and over, ends with the machine; an instant's memory is there also after it.
    const untilEnd = signal ? AbortSignal.any([signal, machine.ended]) : machine.ended;
    let saved: Saved;
    let writes: MachineIntercept | undefined;
    if (mode === 'paused') saved = await savePaused({ ...common, signal: untilEnd });
    else if (mode === 'live') {
      const throttle = options.throttle === true ? new MachineThrottle(machine, clock, maxPauseMs) : undefined;
      saved = await saveLive({ ...common, signal: untilEnd, dirty: dirtyGroups(lineage, writer.groups), throttle });
    } else {
      // What has changed since a parent is there.
      const whole = parentId === undefined ? () => machine.whole() : () => Promise.resolve();
      writes = intercept(machine, writer, whole, onProgress);
      saved = await saveInstant({ ...common, signal, intercept: writes });
    }

    const state = [...saved.parts, ...(await subject.disks())];
    const { id, bytes, zeroGroups } = await writer.commit({ state, config: {}, access: machine.access() });
    if (epoch === undefined) lineage.forget();
    else lineage.adopt(id, epoch);
    epoch = undefined;
    return {
      dir: writer.dir,
      id,
      stats: {
        pauseMs: saved.pauseMs,
        totalMs: Number(clock.nowNs() - startNs) / 1e6,
        pages: space.sizeBytes / PAGE_SIZE,
        zeroPages: Math.min(space.sizeBytes, zeroGroups * GROUP_BYTES) / PAGE_SIZE,
        bytesWritten: bytes,
        rounds: saved.rounds,
        ...(saved.throttled === undefined ? {} : { throttled: saved.throttled }),
        ...(writes?.stats ? { intercept: writes.stats } : {}),
      },
    };
  } catch (error) {
    if (epoch !== undefined) lineage.drop(epoch);
    await subject?.release();
    await writer.abort().catch(() => undefined);
    throw error;
  }
}

/** @throws VmmError ERR_SNAPSHOT_PARENT, ERR_SNAPSHOT; SystemError */
async function parentOf(dir: string, lineage: DirtyLineage): Promise<string> {
  const reader = await SnapshotReader.open(dir);
  const { id } = reader;
  await reader.close();
  lineage.requireParent(id, dir);
  return id;
}

function groupWriter(writer: SnapshotWriter, onProgress: SnapshotOptions['onProgress']): GroupWriter {
  return {
    groups: writer.groups,
    bufferGroups: writer.bufferGroups,
    // A disk that does not answer is left to the writer's end: the guest must not stand still for it.
    write: async (groups, signal) => {
      throwIfAborted(signal);
      await untilAborted(writer.writeGroups(groups, onProgress), signal);
    },
    copy: (groups) => writer.copyGroups(groups),
    drained: async (signal) => {
      await untilAborted(writer.drained(), signal);
    },
  };
}

function dirtyGroups(lineage: DirtyLineage, groups: number): DirtyGroups {
  const rounds = lineage.rounds();
  return { take: () => groupsOf(rounds.take(), groups), close: () => rounds.close() };
}

interface MachineIntercept extends GroupIntercept {
  /** Once it has finished. */
  readonly stats: InterceptStats | undefined;
}

function intercept(
  machine: SaveMachine,
  writer: SnapshotWriter,
  whole: () => Promise<void>,
  onProgress: SnapshotOptions['onProgress'],
): MachineIntercept {
  const writes = new WriteIntercept(machine.pager());
  const { clock } = machine.config;
  let stats: InterceptStats | undefined;
  return {
    get stats() {
      return stats;
    },
    protectAhead: (groups) => {
      writes.prepare({ bufferGroups: COPY_GROUPS });
      return writes.arm(runsOf(groups));
    },
    arm: (groups) => {
      writes.begin(writer.sinkForPager().sink(), runsOf(groups));
      return Promise.resolve();
    },
    finished: async (signal) => {
      const release = (): void => writes.release();
      signal?.addEventListener('abort', release, { once: true });
      const stopReporting = report(clock, writes, onProgress);
      try {
        throwIfAborted(signal);
        // A restore in the background comes in larger pieces than the walk would ask for, which would also count as use.
        await untilAborted(whole(), signal);
        writes.walk();
        stats = await writes.ended();
      } catch (error) {
        throwIfAborted(signal);
        throw error;
      } finally {
        stopReporting();
        signal?.removeEventListener('abort', release);
      }
    },
    release: () => {
      writes.release();
      return Promise.resolve();
    },
  };

  function runsOf(groups: Uint32Array): Uint32Array {
    // Within the stop: a table, since a set of 65,536 groups would take milliseconds.
    const wanted = new Uint8Array(writer.groups);
    for (const group of groups) wanted[group] = 1;
    return groupRuns(writer.groups, (group) => wanted[group] === 1);
  }
}

/** Tells, ten times a second, how much was handed over; what is given ends it. */
function report(clock: Clock, writes: WriteIntercept, onProgress: SnapshotOptions['onProgress']): () => void {
  if (onProgress === undefined) return () => undefined;
  const tell = meter(clock, writes.stats.groups * GROUP_BYTES, onProgress);
  let timer: Timer;
  const look = (): void => {
    tell(writes.stats.saved * GROUP_BYTES);
    timer = clock.setTimer(REPORT_NS, look);
  };
  look();
  return () => {
    timer.cancel();
    tell(writes.stats.saved * GROUP_BYTES);
  };
}

const REPORT_NS = 100_000_000n;

/** What the guest may write at once while the writer has no room: 16 MiB. */
const COPY_GROUPS = 256;

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new AbortError(signal);
}

/** One after another, or refused. */
export function busyError(name: string): VmmError {
  return new VmmError('ERR_STATE', `${name}: another snapshot is being taken`, {
    cure: "whenBusy: 'queue' waits for it",
  });
}
