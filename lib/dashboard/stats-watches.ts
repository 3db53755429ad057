/**
 * Watches of machines' counters, each shared by all pages that look: one stream from the machine's process, whose lines go on as they are, with a
 * message put around them and without being parsed. A watch is open only while somebody looks.
 */
import type { Readable } from 'node:stream';
import { failureOf } from '../control/failures.js';
import type { Beat, FailureText } from './page/protocol.js';
import type { DashboardWorld } from './world.js';

/** Who looks at a machine. */
export interface StatsViewer {
  /** A whole message of type 'stats'. */
  take(message: Buffer): void;
  /** No more comes: the machine has ended, or can't be watched. */
  ended(failure: FailureText | undefined): void;
}

const EVERY_MS: Readonly<Record<Beat, number>> = { slow: 1000, fast: 100 };
/** A line is a few KiB; a longer one than this is none of ours. */
const MAX_LINE_BYTES = 1024 * 1024;
const NEWLINE = 0x0a;
const SUFFIX = Buffer.from('}');

export class StatsWatches {
  readonly #world: Pick<DashboardWorld, 'connect'>;
  readonly #watches = new Map<string, Watch>();

  constructor(world: Pick<DashboardWorld, 'connect'>) {
    this.#world = world;
  }

  /** Open watches: for tests and inspection. */
  get size(): number {
    return this.#watches.size;
  }

  /** The viewer is told from the next beat on; the result leaves. */
  join(name: string, beat: Beat, viewer: StatsViewer): () => void {
    const key = `${beat} ${name}`;
    let watch = this.#watches.get(key);
    if (watch === undefined) {
      watch = new Watch(name, beat, this.#world);
      const opened = watch;
      this.#watches.set(key, opened);
      void opened.run().finally(() => {
        if (this.#watches.get(key) === opened) this.#watches.delete(key);
      });
    }
    const joined = watch;
    joined.viewers.add(viewer);
    return () => {
      joined.viewers.delete(viewer);
      if (joined.viewers.size > 0) return;
      if (this.#watches.get(key) === joined) this.#watches.delete(key);
      joined.stop();
    };
  }
}

class Watch {
  readonly viewers = new Set<StatsViewer>();
  readonly #name: string;
  readonly #beat: Beat;
  readonly #world: Pick<DashboardWorld, 'connect'>;
  readonly #stop = new AbortController();
  readonly #prefix: Buffer;

  constructor(name: string, beat: Beat, world: Pick<DashboardWorld, 'connect'>) {
    this.#name = name;
    this.#beat = beat;
    this.#world = world;
    this.#prefix = Buffer.from(`{"type":"stats","name":${JSON.stringify(name)},"beat":"${beat}","stats":`);
  }

  stop(): void {
    this.#stop.abort();
  }

  /** Until the machine's end, a failure, or the last viewer has left. Never rejects. */
  async run(): Promise<void> {
    const { signal } = this.#stop;
    let failure: FailureText | undefined;
    try {
      const machine = await this.#world.connect(this.#name, signal);
      const everyMs = EVERY_MS[this.#beat];
      const { output, close } = await machine.openStats({ everyMs, writes: this.#beat === 'fast', signal });
      try {
        await this.#handOn(output);
      } finally {
        close();
      }
    } catch (error) {
      failure = failureOf(error);
    }
    if (signal.aborted) return;
    for (const viewer of [...this.viewers]) viewer.ended(failure);
    this.viewers.clear();
  }

  async #handOn(output: Readable): Promise<void> {
    let rest: Buffer = Buffer.alloc(0);
    for await (const chunk of output as AsyncIterable<Buffer>) {
      let data = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
      for (let end = data.indexOf(NEWLINE); end >= 0; end = data.indexOf(NEWLINE)) {
        const message = Buffer.concat([this.#prefix, data.subarray(0, end), SUFFIX]);
        for (const viewer of this.viewers) viewer.take(message);
        data = data.subarray(end + 1);
      }
      if (data.length > MAX_LINE_BYTES) throw new RangeError(`${this.#name} sends a line without end`);
      rest = data;
    }
  }
}
