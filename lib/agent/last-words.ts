/** The end of what a program in the guest says, for people: without what would steer a terminal. */
import { Writable } from 'node:stream';

const MAX_WORDS_BYTES = 8 * 1024;

export class LastWords extends Writable {
  #said = '';

  get text(): string {
    return this.#said
      .replace(/[^\x20-\x7e\n]/g, '?')
      .trim()
      .split('\n')
      .slice(-3)
      .join('; ');
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#said = (this.#said + chunk.toString()).slice(-MAX_WORDS_BYTES);
    done();
  }
}
