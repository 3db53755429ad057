/**
 * A flat guest in QEMU on the same KVM, with the kernel's PIT: the guest is the PC's BIOS, so that no firmware runs before
 * it. Its memory is a file in memory, which is read here without QEMU's help; it is stopped and continued over QMP.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { findQemu } from '#lib/host/index.js';
import { biosImage } from './pit-bios.js';
import { connectQmp } from './qmp.js';

export interface QemuPeer {
  readU32(gpa: number): number;
  /** Resolves when QEMU has carried out a QMP command without arguments. */
  execute(command: 'stop' | 'cont'): Promise<void>;
  close(): Promise<void>;
}

const MEMORY_MIB = 16;
/** A software-backed KVM lists IA32_ARCH_CAPABILITIES and refuses to have it set, at which QEMU ends. */
const CPU = 'host,-arch-capabilities';

/**
 * Resolves when the guest is running. `globals` are values of -global.
 *
 * @throws Error when QEMU is not installed or ends before it answers.
 */
export async function startQemuPeer(guest: Uint8Array, globals: readonly string[]): Promise<QemuPeer> {
  const qemu = findQemu();
  if (qemu === undefined) throw new Error('qemu-system-x86_64 is not installed: npm run setup');
  const folder = mkdtempSync('/dev/shm/vivarium-peer-');
  const file = (name: string) => path.join(folder, name);
  writeFileSync(file('bios'), biosImage(guest));
  const child = spawn(
    qemu,
    [
      ...['-accel', 'kvm', '-cpu', CPU, '-m', String(MEMORY_MIB), '-machine', 'pc,memory-backend=ram'],
      ...['-object', `memory-backend-file,id=ram,size=${MEMORY_MIB}M,mem-path=${file('ram')},share=on`],
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-bios', file('bios')],
      ...['-qmp', `unix:${file('qmp')},server=on,wait=off`],
      ...globals.flatMap((value) => ['-global', value]),
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let complaint = '';
  child.stderr.on('data', (bytes: Buffer) => (complaint += bytes.toString()));
  const ended = once(child, 'close');
  const end = async () => {
    child.kill('SIGKILL');
    await ended;
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const qmp = await connectQmp(file('qmp'), () => child.exitCode !== null || child.signalCode !== null);
    const memory = openSync(file('ram'), 'r');
    const word = Buffer.alloc(4);
    return {
      readU32(gpa) {
        readSync(memory, word, 0, 4, gpa);
        return word.readUInt32LE();
      },
      execute: async (command) => {
        await qmp.execute(command);
      },
      async close() {
        qmp.close();
        closeSync(memory);
        await end();
      },
    };
  } catch (error) {
    await end();
    throw new Error(`QEMU did not start: ${complaint.trim()}`, { cause: error });
  }
}
