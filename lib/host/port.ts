/**
 * The inner end of the virtio-serial port that joins the embedded host to its broker, as two streams.
 * Only runs inside the embedded host. The port's device answers a read with at most one page and Node reads such
 * devices on its thread pool, a millisecond each: a small copying process collects the pages into a pipe instead
 * (measured under emulation: 13 MB/s in place of 2.5).
 */
import { spawn } from 'node:child_process';
import { openSync, readdirSync, readFileSync, write } from 'node:fs';
import { Writable, type Readable } from 'node:stream';

const PORTS = '/sys/class/virtio-ports';
/** The driver takes at most this much by one write (drivers/char/virtio_console.c, port_fops_write). */
const WRITE_BYTES = 32 * 1024;

/** Opens the port that has this name. @throws Error when there is none. */
export function openPort(name: string): { input: Readable; output: Writable } {
  const device = readdirSync(PORTS).find((port) => readFileSync(`${PORTS}/${port}/name`, 'utf8').trim() === name);
  if (device === undefined) throw new Error(`no virtio-serial port is named ${name}`);
  const fd = openSync(`/dev/${device}`, 'r+');
  const copier = spawn('/bin/busybox', ['cat'], { stdio: [fd, 'pipe', 'inherit'] });
  if (copier.stdout === null) throw new Error('no pipe');
  return { input: copier.stdout, output: new PortWritable(fd) };
}

class PortWritable extends Writable {
  readonly #fd: number;

  constructor(fd: number) {
    super({ highWaterMark: 256 * 1024 });
    this.#fd = fd;
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    const writeFrom = (offset: number): void => {
      if (offset === chunk.length) return callback();
      write(this.#fd, chunk, offset, Math.min(WRITE_BYTES, chunk.length - offset), null, (error, written) => {
        if (error) callback(error);
        else writeFrom(offset + written);
      });
    };
    writeFrom(0);
  }

  override _writev(
    chunks: { chunk: Uint8Array; encoding: BufferEncoding }[],
    callback: (error?: Error | null) => void,
  ): void {
    this._write(Buffer.concat(chunks.map(({ chunk }) => chunk)), 'binary', callback);
  }
}
