/**
 * The pictures of docs/devices.md: the way of a disk request, with the files that it goes through; and what each kind of backend leaves to
 * emulation, as the contracts of real providers say it.
 */
import { existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { gpa } from '../../../lib/base/address.js';
import { silentLogger } from '../../../lib/base/logger.js';
import { AddressSpace, NativeIoEngine } from '../../../lib/memory/index.js';
import { BLOCK_FUNCTIONS, type BlockBackend } from '../../../lib/vsp/block/contract.js';
import { BlockProvider } from '../../../lib/vsp/block/provider.js';
import { type BlockSource, createQcow2Overlay, fileDisk, memoryDisk, qcow2Disk } from '../../../lib/vsp/index.js';
import { ROOT } from '../document-blocks.js';
import { arrow, box, Colour, line, picture, rect, text } from './svg.js';

interface Station {
  readonly name: string;
  readonly does: string;
  /** From lib/ or native/. */
  readonly file: string;
}

/** Where a request goes, in order. */
const GUEST: readonly Station[] = [
  { name: "the guest's driver", does: 'a chain of descriptors, a doorbell', file: '' },
  { name: 'VDP: virtio device', does: 'copies and checks the chain', file: 'lib/vdp/block-session.ts' },
  { name: 'VSP: provider', does: 'range, rights, order, limits, counts', file: 'lib/vsp/block/provider.ts' },
  { name: 'dispatcher', does: 'for each call: who does it', file: 'lib/vsp/block/dispatcher.ts' },
];
const HEL: Station = { name: 'HEL: emulation', does: 'in terms of what the backend has', file: 'lib/vsp/block/hel' };
const HAL: Station = {
  name: 'HAL: backend',
  does: 'file, device, qcow2, memory',
  file: 'lib/vsp/block/file-backend.ts',
};
const ENGINE: Station = {
  name: 'I/O engine',
  does: 'io_uring or threads, no JavaScript',
  file: 'lib/memory/native-io-engine.ts',
};

/** @throws Error for a station whose file has gone */
export function drawRequestPath(): string {
  const lost = [...GUEST, HEL, HAL, ENGINE].filter(({ file }) => file !== '' && !existsSync(path.join(ROOT, file)));
  if (lost.length > 0) throw new Error(`no longer there: ${lost.map(({ file }) => file).join(', ')}`);
  const [left, top, width, height, gap] = [44, 70, 210, 58, 62];
  const station = ({ name, does, file }: Station, x: number, y: number, colour?: Colour): string =>
    box(x, y, width, height, [name, does, ...(file === '' ? [] : [file])], colour);
  const column = (index: number) => top + index * (height + 26);
  const [middle, right] = [left + width + gap, left + 2 * (width + gap)];
  const down = (x: number, from: number) =>
    arrow([
      [x, from],
      [x, from + 24],
    ]);
  return picture('Where a disk request goes', 860, 424, [
    rect(24, 46, width + 40, height + 36, 'class="zone" rx="6"'),
    text(32, 62, 'guest', { style: 'small' }),
    rect(24, column(1) - 14, 812, 424 - column(1), 'class="zone" rx="6"'),
    text(828, column(1) + 2, 'host, which owns the device', { style: 'small', anchor: 'end' }),
    ...GUEST.map((each, index) => station(each, left, column(index))),
    ...[0, 1, 2].map((index) => down(left + width / 2, column(index) + height + 1)),
    station(HEL, middle, column(2), Colour.ORANGE),
    station(HAL, right, column(3), Colour.GREEN),
    station(ENGINE, right, column(2)),
    // The dispatcher's two ways, and back into what the backend can.
    arrow([
      [left + width + 1, column(3) + 40],
      [right - 2, column(3) + 40],
    ]),
    text(middle + width / 2, column(3) + 56, 'native: the backend has it', { anchor: 'middle', colour: Colour.GREEN }),
    arrow([
      [left + width + 1, column(3) + 16],
      [left + width + 30, column(3) + 16],
      [left + width + 30, column(2) + 29],
      [middle - 2, column(2) + 29],
    ]),
    text(left + width + 38, column(3) + 12, 'emulated: it lacks it', { colour: Colour.ORANGE }),
    arrow([
      [middle + width + 1, column(2) + 29],
      [middle + width + 30, column(2) + 29],
      [middle + width + 30, column(3) + 16],
      [right - 2, column(3) + 16],
    ]),
    arrow([
      [right + width / 2, column(3) - 1],
      [right + width / 2, column(2) + height + 2],
    ]),
    arrow([
      [right + width / 2, column(2) - 1],
      [right + width / 2, column(1) + 29],
      [left + width + 3, column(1) + 29],
    ]),
    text(right + width / 2 - 8, column(1) + 22, 'data in guest memory; used ring; one interrupt for a batch', {
      anchor: 'end',
      style: 'small',
    }),
  ]);
}

/** What a kind of disk does by itself. */
export interface OfferedSet {
  readonly kind: string;
  readonly by: ReadonlyMap<string, string>;
}

/** The contracts of providers over disks of each kind, as they are when a machine is made. */
export async function offeredSets(): Promise<OfferedSet[]> {
  const folder = mkdtempSync(path.join(tmpdir(), 'vivarium-pictures-'));
  const memory = new AddressSpace({ ranges: [{ gpa: gpa(0), sizeBytes: 2 ** 20 }] });
  const engine = new NativeIoEngine(memory, { kind: 'threads' });
  try {
    const [raw, image] = [path.join(folder, 'raw.img'), path.join(folder, 'image.qcow2')];
    writeFileSync(raw, '');
    truncateSync(raw, 2 ** 20);
    await createQcow2Overlay(image, { backing: raw, backingFormat: 'raw' });
    const kinds: readonly (readonly [string, BlockSource])[] = [
      ['fileDisk', fileDisk(raw)],
      ['qcow2Disk', qcow2Disk(image)],
      ['memoryDisk', memoryDisk('1MiB')],
      ['one that can only read', onlyReads()],
    ];
    const sets: OfferedSet[] = [];
    for (const [kind, source] of kinds) {
      const copyOnWrite = kind.startsWith('one') ? { maxBytes: 2 ** 20 } : undefined;
      const provider = await BlockProvider.open(source, { id: 'root', engine, logger: silentLogger, copyOnWrite });
      const { functions } = provider.contract;
      sets.push({ kind, by: new Map(Object.entries(functions).map(([name, { by }]) => [name, by])) });
      await provider.close();
    }
    return sets;
  } finally {
    await engine.close();
    memory.close();
    rmSync(folder, { recursive: true });
  }
}

/** A backend of a user's own with nothing but what it must have. */
function onlyReads(): BlockSource {
  const backend: BlockBackend = {
    geometry: { sizeBytes: 2 ** 20, blockBytes: 512, physicalBlockBytes: 512, optimalIoBytes: 0 },
    read: (_offset, _data, done) => done(undefined),
    describe: () => ({ kind: 'only-reads' }),
    close: () => Promise.resolve(),
  };
  return { class: 'block', describe: () => ({ kind: 'only-reads' }), open: () => Promise.resolve(backend) };
}

export function drawOfferedSets(sets: readonly OfferedSet[]): string {
  const [left, top, row, column] = [176, 86, 30, 82];
  const bottom = top + sets.length * row;
  return picture('One contract for the guest, whatever the disk stands on', 860, bottom + 40, [
    ...BLOCK_FUNCTIONS.map((name, at) =>
      text(left + (at + 0.5) * column, top - 14, name, { anchor: 'middle', style: 'strong' }),
    ),
    ...sets.flatMap(({ kind, by }, index) => {
      const y = top + index * row;
      return [
        line(24, y, 836, y),
        text(24, y + 20, kind),
        ...BLOCK_FUNCTIONS.map((name, at) => {
          const who = by.get(name) ?? 'missing';
          const colour = who === 'native' ? Colour.GREEN : Colour.ORANGE;
          return text(left + (at + 0.5) * column, y + 20, who, { anchor: 'middle', colour });
        }),
      ];
    }),
    text(836, bottom + 24, 'as vm.device(id).contract says when a machine is made; the last one with copyOnWrite', {
      anchor: 'end',
      style: 'small',
    }),
  ]);
}
