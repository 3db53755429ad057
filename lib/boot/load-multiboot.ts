/**
 * Multiboot 1 from files to the entry state: the image, its modules and the texts that go with them.
 * The pieces are in multiboot.ts; here they are put in order.
 */
import type { GuestMemory } from '../memory/guest-memory.js';
import { imageError, type ImageFile, openImage } from './errors.js';
import { LowMemory, memoryMap } from './layout.js';
import {
  enterMultiboot,
  findMultibootHeader,
  loadModules,
  loadMultiboot,
  type MultibootImage,
  writeMultibootInfo,
} from './multiboot.js';
import type { LoadedBoot, MultibootBoot, ResolvedShape } from './types.js';

/** Room for all texts of a multiboot image. */
const MAX_TEXT_BYTES = LowMemory.COMMAND_LINE_END - LowMemory.COMMAND_LINE - 1;

/**
 * A command line as bytes.
 *
 * @throws VmmError ERR_KERNEL_IMAGE when it is longer than the kernel takes, or holds a NUL.
 */
export function encodeText(what: string, text: string, maxBytes: number): Uint8Array {
  const bytes = new TextEncoder().encode(text);
  // What a hostile header may claim ends where our place for it does.
  const limit = Math.min(maxBytes, MAX_TEXT_BYTES);
  if (bytes.length > limit) {
    throw imageError(what, `it has ${bytes.length} bytes, and this kernel takes ${limit}`, 'shorten it');
  }
  if (bytes.includes(0)) throw imageError(what, 'it holds a NUL, which would end it', 'take the NUL out');
  return bytes;
}

/** Opens a multiboot image and loads it. @throws VmmError ERR_KERNEL_IMAGE naming the file and its fault. */
export function bootMultibootFile(memory: GuestMemory, boot: MultibootBoot, shape: ResolvedShape): LoadedBoot {
  const file = openImage('multiboot image', boot.multiboot);
  try {
    const header = findMultibootHeader(file);
    if (!header) {
      throw imageError(file.label, 'it has no multiboot header in its first 8 KiB', 'give a multiboot 1 image');
    }
    return bootMultiboot(memory, file, header, boot, shape);
  } finally {
    file.close();
  }
}

/** Loads an open multiboot image. Texts begin with the path of their file, as other loaders have it. */
export function bootMultiboot(
  memory: GuestMemory,
  file: ImageFile,
  header: MultibootImage,
  boot: Pick<MultibootBoot, 'modules' | 'cmdline'>,
  shape: ResolvedShape,
): LoadedBoot {
  const text = (path: string, rest: string | undefined): Uint8Array =>
    encodeText('command line', rest === undefined || rest === '' ? path : `${path} ${rest}`, MAX_TEXT_BYTES);
  const opened: { file: ImageFile; text: Uint8Array }[] = [];
  try {
    for (const module of boot.modules ?? []) {
      const { path, cmdline } = typeof module === 'string' ? { path: module, cmdline: undefined } : module;
      opened.push({ file: openImage('module', path), text: text(path, cmdline) });
    }
    const { entry, end } = loadMultiboot(memory, file, header, shape);
    const modules = loadModules(memory, opened, end, shape.loadSegment);
    writeMultibootInfo(memory, file.label, {
      cmdline: text(file.path, boot.cmdline),
      modules,
      map: memoryMap(memory.ranges, shape.reserved),
    });
    return { kind: 'multiboot', format: 'multiboot', entry: '32bit', state: enterMultiboot(memory, entry), notes: [] };
  } finally {
    for (const { file: moduleFile } of opened) moduleFile.close();
  }
}
