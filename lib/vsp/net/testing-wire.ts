/** A stream and its other end, in one process, for tests of what speaks over sockets; and a passt made of one. */
import { Duplex } from 'node:stream';
import type { PasstProcess } from './passt-process.js';
import { framed, FrameReader } from './stream-frames.js';

/** One end; what is written to it is read at the other. */
export class Wire extends Duplex {
  /** Writes stay under way until it is set free. */
  isStuck = false;
  #other: Wire | undefined;
  #stuck: (() => void)[] = [];

  static pair(): [Wire, Wire] {
    const [a, b] = [new Wire(), new Wire()];
    a.#other = b;
    b.#other = a;
    return [a, b];
  }

  free(): void {
    this.isStuck = false;
    for (const callback of this.#stuck.splice(0)) callback();
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, callback: () => void): void {
    this.#other?.push(chunk);
    if (this.isStuck) this.#stuck.push(callback);
    else callback();
  }

  override _read(): void {}

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    if (this.#other?.destroyed === false) this.#other.push(null);
    callback(error);
  }
}

/** Answers questions for an address, keeps the other frames, and dies when it is told to. */
export class FakePasst implements PasstProcess {
  readonly stream: Wire;
  readonly pid = undefined;
  readonly ended: Promise<string>;
  readonly got: Uint8Array[] = [];
  readonly far: Wire;
  isAlive = true;
  #end!: (words: string) => void;

  constructor(answers = true) {
    [this.stream, this.far] = Wire.pair();
    this.ended = new Promise((resolve) => (this.#end = resolve));
    const reader = new FrameReader({ minBytes: 1, maxBytes: 1e6 });
    this.far.on('data', (chunk: Uint8Array) => {
      for (const frame of reader.push(chunk)) {
        const isQuestion = frame[12] === 8 && frame[13] === 6;
        if (!isQuestion) this.got.push(frame);
        else if (answers) this.give(frame);
      }
    });
  }

  give(...frames: Uint8Array[]): void {
    const lengths = frames.map(({ length }) => length);
    this.far.write(framed(lengths, (index, all, at) => all.set(frames[index]!, at)));
  }

  die(words: string): void {
    this.isAlive = false;
    this.#end(words);
  }

  keepAlive(): void {}

  kill(): void {
    this.die('killed');
  }
}
