/** A machine and its life: what the command, the host and users of the library hold. */
export { Machine } from './machine.js';
export type { MachineState } from './status.js';
export type { CallOptions, MachineMemory, PauseOptions, StopOptions } from './call-options.js';
export type { WriteWatch, WrittenPages } from './call-options.js';
export type { DiskOptions } from './disk-options.js';
export type { NicOptions } from './nic-options.js';
export { claimMac, type MacClaim } from './mac-claims.js';
export type { ConsolePortOptions } from './console-options.js';
export type { EntropyOptions } from './entropy-options.js';
export type { DeviceSource, LentDevice, RefreshReport } from './lent-device.js';
export type { DeviceOptions } from './device-options.js';
export type { MachineOptions, PortDevice } from './options.js';
export type { BootImage, FlatBoot, KernelBoot, MultibootBoot } from '../boot/index.js';
export { checkMachineOptions, checkMemory } from './options.js';
export type { EndReason, EndStatus } from './status.js';
export type { MachinePit } from './machine-pit.js';
export { fileDisk, lockImages, networkSwitch, passt, qcow2Disk, tap } from '../vsp/index.js';
export { carriedNetwork, carryNetwork, formatMac, parseMac } from '../vsp/index.js';
export type { CarriedNetwork, CarriedRelay } from '../vsp/index.js';
export { MachineConsole, type WaitForOptions } from './console.js';
export { describeSnapshot, type DescribedSnapshot } from './snapshot/described.js';
export { setLinuxProbe, type LinuxSupport } from './linux-support.js';
export type { JsonValue, MachineCounters } from './inspect.js';
export type {
  RestoreCost,
  RestoreOptions,
  RestoreOverrides,
  RestorePhases,
  Snapshot,
  SnapshotOptions,
  SnapshotStats,
} from './snapshot/options.js';
