/**
 * For the tests of qcow2: the room's TestingEngine that records what changes files, in the order in which it was asked
 * for, so that a test can replay any prefix of it as a crash would leave it.
 */
import { TestingEngine, type Recorded } from '../testing-engine.js';

export class RecordingEngine extends TestingEngine {
  readonly history: Recorded[] = [];
  recording = false;

  protected override changes(change: Recorded): void {
    if (this.recording) this.history.push(change);
  }

  /** Nothing of a test has to outlive this machine: only the order counts. */
  protected override makeDurable(_fd: number, done: (error: null) => void): void {
    setImmediate(() => done(null));
  }
}
