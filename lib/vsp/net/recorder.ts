/**
 * HAL: a recorder around another network: what passes is written to a file that packet analysers read (pcap, with
 * nanoseconds; draft-ietf-opsawg-pcap). Frames are recorded as they pass: with checksums that are still to be finished,
 * and uncut. A disk that is too slow costs records, which are counted, never frames.
 */
import { createWriteStream, openSync, type WriteStream } from 'node:fs';
import { hostClock, type Clock } from '../../base/clock.js';
import { SystemError, VmmError } from '../../base/errors.js';
import { KiB, MiB } from '../../base/units.js';
import type { NetBackend, NetFrame, NetHostEnd } from './contract.js';
import type { NetSource } from './source.js';

const MAGIC_NANOSECONDS = 0xa1b23c4d;
const LINKTYPE_ETHERNET = 1;
const FILE_HEADER_BYTES = 24;
const RECORD_HEADER_BYTES = 16;
const MAX_RECORD_BYTES = 256 * KiB;
const MAX_BEHIND_BYTES = 8 * MiB;

/**
 * Records what passes between a device and `network` in a file of mode 0600 that must not be there yet. Opened again, after
 * a rebind away, it goes on in that file.
 *
 * @throws TypeError for what is no network or no path; `open` throws VmmError ERR_STATE while a device has it, SystemError.
 * @example nics: [{ id: 'net0', backend: recordedNetwork(networkSwitch('lan'), 'lan.pcap') }]
 */
export function recordedNetwork(network: NetSource, path: string): NetSource {
  if ((network as NetSource | null)?.class !== 'network') throw new TypeError('recordedNetwork: a network is wanted');
  if (typeof path !== 'string' || path === '' || path.includes('\0')) {
    throw new TypeError('recordedNetwork: the path of a file is wanted');
  }
  let isOpen = false;
  let wasOpened = false;
  return {
    class: 'network',
    onlyOneGuest: network.onlyOneGuest,
    describe: () => ({ kind: 'recorder', path, around: network.describe() }),
    open: async (context) => {
      if (isOpen) throw new VmmError('ERR_STATE', `${path} records the packets of another device`);
      isOpen = true;
      const release = (): void => void (isOpen = false);
      let backend: NetBackend | undefined;
      try {
        backend = await network.open(context);
        const recorder = recordPackets(backend, path, { clock: context.clock, goesOn: wasOpened, onClose: release });
        wasOpened = true;
        return recorder;
      } catch (error) {
        release();
        await backend?.close();
        throw error;
      }
    },
  };
}

export interface RecorderOptions {
  readonly clock?: Clock;
  /** The file is there, with its header. Default: it must not be there. */
  readonly goesOn?: boolean;
  readonly onClose?: () => void;
}

/** The same around a network that is open. @throws SystemError. */
export function recordPackets(backend: NetBackend, path: string, options: RecorderOptions = {}): NetBackend {
  let fd: number;
  try {
    fd = openSync(path, options.goesOn === true ? 'a' : 'wx', 0o600);
  } catch (error) {
    const { code = 'EIO', errno = 0 } = error as NodeJS.ErrnoException;
    throw new SystemError('open', code, Math.abs(errno), path);
  }
  return new Recorder(backend, createWriteStream(path, { fd }), path, options);
}

class Recorder implements NetBackend {
  readonly takes: NetBackend['takes'];
  readonly gives: NetBackend['gives'];
  readonly mtuBytes: number;
  readonly #backend: NetBackend;
  readonly #stream: WriteStream;
  readonly #path: string;
  readonly #clock: Clock;
  readonly #onClose: (() => void) | undefined;
  #skipped = 0;
  #failure: string | undefined;

  constructor(backend: NetBackend, stream: WriteStream, path: string, options: RecorderOptions) {
    this.takes = backend.takes;
    this.gives = backend.gives;
    this.mtuBytes = backend.mtuBytes;
    this.#backend = backend;
    this.#stream = stream;
    this.#path = path;
    this.#clock = options.clock ?? hostClock;
    this.#onClose = options.onClose;
    stream.on('error', (error) => (this.#failure = error.message));
    if (options.goesOn === true) return;
    const header = Buffer.alloc(FILE_HEADER_BYTES);
    header.writeUInt32LE(MAGIC_NANOSECONDS, 0);
    header.writeUInt16LE(2, 4); // version 2.4
    header.writeUInt16LE(4, 6);
    header.writeUInt32LE(MAX_RECORD_BYTES, 16);
    header.writeUInt32LE(LINKTYPE_ETHERNET, 20);
    stream.write(header);
  }

  start(host: NetHostEnd): void {
    this.#backend.start({
      receive: (frames) => {
        this.#record(frames);
        host.receive(frames);
      },
      writable: () => host.writable(),
      link: (up) => host.link(up),
    });
  }

  send(frames: readonly NetFrame[]): boolean {
    this.#record(frames);
    return this.#backend.send(frames);
  }

  setPaused(paused: boolean): void {
    this.#backend.setPaused(paused);
  }

  describe() {
    const { failure, skipped } = { failure: this.#failure, skipped: this.#skipped };
    return { kind: 'recorder', path: this.#path, skipped, failure, around: this.#backend.describe() };
  }

  async close(): Promise<void> {
    try {
      await this.#backend.close();
    } finally {
      await new Promise<void>((resolve) => {
        if (this.#stream.closed) resolve();
        else this.#stream.once('close', resolve).end();
      });
      this.#onClose?.();
    }
  }

  #record(frames: readonly NetFrame[]): void {
    const wallMs = this.#clock.wallMs();
    for (const { bytes } of frames) {
      if (this.#failure !== undefined || this.#stream.writableLength > MAX_BEHIND_BYTES) {
        this.#skipped++;
        continue;
      }
      // A copy: the bytes are somebody else's after this.
      const record = Buffer.alloc(RECORD_HEADER_BYTES + bytes.length);
      record.writeUInt32LE(Math.floor(wallMs / 1000) >>> 0, 0);
      record.writeUInt32LE(Math.floor((wallMs % 1000) * 1e6), 4);
      record.writeUInt32LE(bytes.length, 8);
      record.writeUInt32LE(bytes.length, 12);
      record.set(bytes, RECORD_HEADER_BYTES);
      this.#stream.write(record);
    }
  }
}
