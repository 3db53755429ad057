/** A snapshot that is asked for over the control socket: its progress is among the counters and the events while it lasts. */
import { dirname } from 'node:path';
import { orFenced, requireWritable } from '../base/fence.js';
import type { Snapshot } from '../machine/index.js';
import { failureOf } from './failures.js';
import type { SnapshotRequest } from './schemas.js';
import type { ControlTarget, SaveUnderWay } from './target.js';

/** Progress is an event this often at most. */
const EVERY_NS = 250_000_000n;

/** @throws as Machine.snapshot; VmmError ERR_FENCED */
export async function saveFor(
  { machine, saves, events, clock, fence }: ControlTarget,
  { dir, ...options }: SnapshotRequest,
  signal: AbortSignal,
): Promise<Snapshot> {
  requireWritable(dirname(dir), fence);
  const save: SaveUnderWay = { dir, bytesDone: 0, bytesTotal: machine.memory.sizeBytes };
  let toldNs = clock.nowNs();
  const onProgress = ({ bytesDone, bytesTotal }: { bytesDone: number; bytesTotal: number }): void => {
    Object.assign(save, { bytesDone, bytesTotal });
    if (clock.nowNs() - toldNs < EVERY_NS) return;
    toldNs = clock.nowNs();
    events.tell({ type: 'snapshot', what: 'progress', dir, bytesDone, bytesTotal });
  };
  saves.add(save);
  events.tell({ type: 'snapshot', what: 'started', dir });
  try {
    const snapshot = await machine.snapshot(dir, { ...options, signal, onProgress });
    events.tell({ type: 'snapshot', what: 'done', dir, id: snapshot.id, pauseMs: snapshot.stats.pauseMs });
    return snapshot;
  } catch (cause) {
    // A disk is cut into an image beside it.
    const error = orFenced(cause, fence);
    const { code, message } = failureOf(error);
    events.tell({ type: 'snapshot', what: 'failed', dir, code, message });
    throw error;
  } finally {
    saves.delete(save);
  }
}
