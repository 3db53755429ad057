/**
 * A machine's configuration in its snapshot: what it was made of, without backends of devices, which say themselves what they stood on,
 * and without what only a process has (functions, loggers, clocks). Restored, it makes the same machine; boot images are only
 * needed again when the guest resets itself.
 */
import * as v from 'valibot';
import { listOf } from '../../base/saved-parts.js';
import { bytes, integer, type SavedPart, stateFormat, u8 } from '../../base/saved-state.js';
import { PAGE_SIZE } from '../../base/units.js';
import { KERNEL_ENTRIES, type BootImage } from '../../boot/index.js';
import type { PitOptions } from '../../time/index.js';
import type { MachineConfig } from '../options.js';

/** Images in memory are kept up to here; a machine with a larger one can't restart after it was restored. */
const MAX_IMAGE_BYTES = 4 * 2 ** 20;
const MAX_TEXT = 1 << 16;

const text = v.pipe(v.string(), v.maxLength(MAX_TEXT));
const address = integer(0, 2 ** 52 - 1);
const image = bytes({ maxLength: MAX_IMAGE_BYTES });
const rate = v.pipe(v.number(), v.finite(), v.minValue(0));

const boot = v.union([
  v.strictObject({
    kernel: text,
    initrd: v.optional(v.union([text, image, v.pipe(v.array(v.union([text, image])), v.maxLength(64))])),
    cmdline: v.optional(text),
    cacheDir: v.optional(text),
    entry: v.optional(v.picklist(KERNEL_ENTRIES)),
  }),
  v.strictObject({
    flat: v.union([text, image]),
    address,
    entry: v.optional(address),
    mode: v.picklist(['real16', 'protected32', 'long64']),
  }),
  v.strictObject({
    multiboot: text,
    modules: v.optional(
      v.pipe(v.array(v.union([text, v.strictObject({ path: text, cmdline: v.optional(text) })])), v.maxLength(1024)),
    ),
    cmdline: v.optional(text),
  }),
]);

/** Bounds of the single values are checked where they are used, as for any user's (time/configuration). */
const pit = v.strictObject({
  policy: v.optional(v.picklist(['catch-up', 'reinject', 'discard'])),
  enterMs: v.optional(rate),
  toleranceMs: v.optional(rate),
  maxRateHz: v.optional(rate),
  giveUpMs: v.optional(rate),
  profile: v.optional(v.string()),
  feedback: v.optional(
    v.strictObject({
      gpa: address,
      widthBytes: u8,
      rateHz: v.union([rate, v.literal('programmed')]),
      wrapsAt: v.optional(rate),
    }),
  ),
  timeScale: v.optional(rate),
});

const MAX_DEVICES = 64;
const deviceId = v.pipe(v.string(), v.regex(/^[A-Za-z0-9._-]{1,20}$/));
const count = integer(0, Number.MAX_SAFE_INTEGER);
const limit = v.optional(v.pipe(v.number(), v.finite(), v.minValue(0)));
const limits = v.strictObject({
  operationsPerSecond: limit,
  operationsBurst: limit,
  bytesPerSecond: limit,
  bytesBurst: limit,
});

const format = stateFormat({
  type: 'machine',
  version: 1,
  schema: v.strictObject({
    name: v.pipe(v.string(), v.regex(/^[A-Za-z0-9][\w.-]{0,62}$/)),
    cpus: integer(1, 0xffff),
    memoryBytes: v.pipe(integer(2 ** 20, 2 ** 46), v.multipleOf(PAGE_SIZE)),
    memoryBacking: v.picklist(['anonymous', 'memfd']),
    debugExit: v.boolean(),
    onReset: v.picklist(['end', 'restart']),
    /** What it was booted from, which decides what its board has; an image that is not kept leaves only that. */
    kind: v.picklist(['kernel', 'flat', 'multiboot']),
    boot: v.optional(boot),
    pit,
    disks: listOf(
      v.strictObject({
        id: deviceId,
        readOnly: v.boolean(),
        copyOnWriteBytes: v.optional(count),
        limits: v.optional(limits),
      }),
      MAX_DEVICES,
    ),
    nics: listOf(
      v.strictObject({
        id: deviceId,
        mtuBytes: v.optional(integer(68, 65_521)),
        limits: v.optional(v.strictObject({ send: v.optional(limits), receive: v.optional(limits) })),
      }),
      MAX_DEVICES,
    ),
    consolePorts: listOf(
      v.strictObject({
        id: deviceId,
        name: v.pipe(v.string(), v.regex(/^[A-Za-z0-9._-]{1,63}$/)),
        terminal: v.boolean(),
      }),
      MAX_DEVICES,
    ),
    entropy: v.optional(
      v.strictObject({
        id: deviceId,
        rate: v.strictObject({ bytesPerSecond: v.optional(count), burstBytes: v.optional(count) }),
      }),
    ),
  }),
});

export type SavedConfig = ReturnType<typeof format.load>;

/** What of a machine's configuration a snapshot keeps. */
export function saveConfig(config: MachineConfig): SavedPart {
  const { name, cpus, memoryBytes, memoryBacking, debugExit, onReset } = config;
  const { policy, ...pitOptions } = config.pit;
  const kept = keptBoot(config.boot);
  return format.save({
    ...{ name, cpus, memoryBytes, memoryBacking, debugExit, onReset },
    kind: 'kernel' in config.boot ? 'kernel' : 'flat' in config.boot ? 'flat' : 'multiboot',
    ...(kept === undefined ? {} : { boot: kept }),
    // A policy of the user's own is a function: the restored machine has the default, unless it is given one.
    pit: { ...pitOptions, ...(typeof policy === 'string' ? { policy } : {}) },
    disks: config.disks.map(({ id, readOnly, copyOnWriteBytes, limits: bounds }) =>
      plain({ id, readOnly, copyOnWriteBytes, limits: bounds }),
    ),
    nics: config.nics.map(({ id, mtuBytes, limits: bounds }) => plain({ id, mtuBytes, limits: bounds })),
    consolePorts: config.consolePorts.map(({ id, name: called, terminal }) => ({ id, name: called, terminal })),
    ...(config.entropy ? { entropy: plain({ id: config.entropy.id, rate: config.entropy.rate }) } : {}),
  });
}

/** @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION */
export function loadConfig(part: SavedPart): SavedConfig {
  return format.load(part);
}

export function pitOf(saved: SavedConfig): PitOptions {
  return saved.pit as PitOptions;
}

function keptBoot(image: BootImage): SavedConfig['boot'] {
  const pieces = 'flat' in image ? [image.flat] : 'kernel' in image ? [image.initrd ?? []].flat() : [];
  const sizes = pieces.map((piece) => (piece instanceof Uint8Array ? piece.length : 0));
  if (sizes.reduce((sum, size) => sum + size, 0) > MAX_IMAGE_BYTES) return undefined;
  return plain(image) as SavedConfig['boot'];
}

/** Without what is undefined, which no file has. */
function plain<T extends object>(object: T): T {
  const entries = Object.entries(object).filter(([, value]) => value !== undefined);
  return Object.fromEntries(
    entries.map(([name, value]) => [name, isPlain(value) ? plain(value) : (value as unknown)]),
  ) as T;
}

function isPlain(value: unknown): value is object {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}
